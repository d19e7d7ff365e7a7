"""`vivavoce serve --bundle NAME` as a person starts it, with tiny models in the published layout where the large ones would lie."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.caller import Turn, call
from server.caller_audio import load_recording

__all__ = ["ask", "serve_preset"]

QUESTION = Path(__file__).parent.parent / "golden" / "weather_question.flac"


@asynccontextmanager
async def serve_preset(bundle: str, models: Path, parts: Path, *flags: str) -> AsyncIterator[str]:
    """The address of the server. Parts are looked for in `models` first, then among those of the pocket bundle in `parts`; nothing can be
    fetched."""
    environment = {
        **os.environ,
        "VIVAVOCE_MODELS": str(models),
        "VIVAVOCE_CACHE": str(parts.parent),
        "PIP_NO_INDEX": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = (sys.executable, "-m", "server", "serve", "--bundle", bundle, "--port", "0", *flags)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        ready = re.fullmatch(rb"vivavoce ready on (http://\S+)\n", await process.stdout.readline())
        if ready is None:
            raise AssertionError((await process.communicate())[1].decode())
        yield ready[1].decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def ask(url: str) -> Turn:
    """A recorded question, and what came of it."""
    async with call(f"{url}/v1/realtime", max_output_tokens=40) as caller:
        async for _ in caller.speak(load_recording(QUESTION)):
            pass
        return caller.turns[-1]
