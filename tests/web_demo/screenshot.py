"""Takes the picture of the page that the README shows: `python tests/web_demo/screenshot.py --help`.

Without `--url` a scripted engine answers, for work on the page's looks. The README's picture is taken of a server with real models.
"""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import soundfile
from conftest import ALLOW_MICROPHONE, browse, serve_page, voice

from server.caller_audio import CALLER_RATE, load_recording
from streaming.fakes import ScriptedEngine, ScriptedReply

QUESTIONS = ["What is the capital of Switzerland?", "How old is it?", "And what should I see there?"]
ANSWERS = [
    "Bern is the capital of Switzerland.",
    "Bern was founded in eleven ninety-one, by Duke Berthold the Fifth of Zähringen, on a bend of the river Aare. "
    "Its old town of sandstone has hardly changed since the fifteenth century.",
    "Walk through the arcades of the old town to the clock tower, then go down to the river. "
    "From the rose garden you see all of it at once.",
]
SPEAKING = """turns => {
    const answers = [...document.querySelectorAll(".entry[data-who=agent][data-cut=false] .text")];
    return document.querySelectorAll(".entry[data-who=you]").length >= turns &&
        document.getElementById("layout").dataset.state === "speaking" &&
        answers.at(-1).textContent.split(" ").length >= 9;
}"""


async def main(arguments: argparse.Namespace) -> None:
    """One call in a browser, photographed while the last answer is being spoken."""
    if arguments.recordings:
        turns = [load_recording(path).pcm / 32_768 for path in arguments.recordings]
    else:
        turns = [voice(seconds) for seconds in (1.6, 1.2, 1.5)]
    pause = np.zeros(round(arguments.gap * CALLER_RATE))
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        soundfile.write(
            microphone, np.concatenate([pause[: 2 * CALLER_RATE], *(part for turn in turns for part in (turn, pause))]), CALLER_RATE
        )
        async with AsyncExitStack() as stack:
            engine = ScriptedEngine([ScriptedReply(answer) for answer in ANSWERS], QUESTIONS, word_ms=300)
            address = arguments.url or await stack.enter_async_context(serve_page(engine))
            browser = await stack.enter_async_context(
                browse(ALLOW_MICROPHONE, f"--use-file-for-fake-audio-capture={microphone.absolute()}%noloop")
            )
            page = await browser.new_page(
                viewport={"width": arguments.width, "height": arguments.height},
                device_scale_factor=2,
                color_scheme="dark" if arguments.dark else "light",
            )
            await page.add_init_script(
                "navigator.mediaDevices.enumerateDevices = () => Promise.resolve([])"
            )  # a fake one is nothing to show
            await page.goto(address)
            await page.click("#call")
            await page.wait_for_function(SPEAKING, arg=len(turns), timeout=120_000)
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=arguments.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help="what the caller says, a turn each")
    parser.add_argument("--url", help="a running server, such as http://127.0.0.1:8765")
    parser.add_argument("--gap", type=float, default=6.0, help="seconds between the caller's turns: time for the answer")
    parser.add_argument("--output", type=Path, default=Path("docs/images/page.png"))
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1_280)
    parser.add_argument("--height", type=int, default=760)
    asyncio.run(main(parser.parse_args()))
