"""A real Chromium, and the page served by the real server with a scripted engine behind it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.async_api import Browser, async_playwright

from agent.conversation import Conversation
from server.caller_audio import CALLER_RATE
from server.engine_link import LocalEngineLink
from server.serve import ServeOptions, serve
from streaming.fakes import ScriptedEngine

BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
ALLOW_MICROPHONE = "--use-fake-ui-for-media-stream"

Browsing = Callable[..., AbstractAsyncContextManager[Browser]]
Serving = Callable[..., AbstractAsyncContextManager[str]]


def find_chromium() -> str:
    """The browser's executable; tests marked `browser` are skipped before this where there is none."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    assert found is not None
    return found


@asynccontextmanager
async def browse(*flags: str, executable: str | None = None) -> AsyncIterator[Browser]:
    """A browser of its own: what its microphone hears is decided by its flags. `executable` may start it elsewhere."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable or find_chromium(), args=[*BROWSER_FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def serve_page(engine: ScriptedEngine, options: ServeOptions | None = None) -> AsyncIterator[str]:
    """The server on a free port; its address."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    chosen = options or ServeOptions(port=0, drain_seconds=0.1)
    running = asyncio.create_task(serve(chosen, LocalEngineLink(engine), Conversation, stop=stop, announce=ready.set_result))
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield ready.result()
    finally:
        stop.set()
        await running


def voice(seconds: float) -> np.ndarray:
    """A voice-like sound at 24 kHz: the browser's noise suppression takes a plain tone away."""
    time = np.arange(round(seconds * CALLER_RATE)) / CALLER_RATE
    harmonics = sum(np.sin(2 * np.pi * 140 * k * time + k) / k for k in range(1, 20))
    return 0.2 * harmonics * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))


@pytest.fixture
def voiced() -> Callable[[float], np.ndarray]:
    """The function `voice`."""
    return voice


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable."""
    return find_chromium()


@pytest.fixture
def browsing() -> Browsing:
    """`async with browsing(*flags) as browser`."""
    return browse


@pytest.fixture
def serving() -> Serving:
    """`async with serving(engine) as address`."""
    return serve_page


@pytest.fixture
def spoken(tmp_path: Path) -> Callable[..., str]:
    """`spoken(silence, speech, silence, ...)` in seconds: the flag for a microphone that hears this once, then silence."""

    def make(*seconds: float) -> str:
        parts = [voice(length) if number % 2 else np.zeros(round(length * CALLER_RATE)) for number, length in enumerate(seconds)]
        path = tmp_path / "microphone.wav"
        soundfile.write(path, np.concatenate(parts), CALLER_RATE, subtype="PCM_16")
        return f"--use-file-for-fake-audio-capture={path}%noloop"

    return make
