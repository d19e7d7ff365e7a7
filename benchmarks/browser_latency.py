"""Voice to voice in a real browser: the same questions over WebRTC and over the WebSocket, in turns, on the same machine.

    python -m benchmarks.browser_latency [recordings ...] [--rounds 4] [--url ws://...] [--json FILE]

Recordings are files, folders or lists of them, as for `vivavoce bench`; without any, the golden ones.

Chromium, without a window, hears the recording as its microphone. What its echo cancellation, noise suppression and gain make of it, and
what is played to the caller, are recorded side by side in one audio context: from the microphone's last speech sample (by loudness) to the
answer's first sample above -40 dBFS. What lies before that graph (the device's input) and behind it (its output) is in neither figure. Both
ways are the page's own modules. Each question and round asks one way after the other, the order changing; rows are medians, and the middle
half.

`webrtc, target 0` asks Chromium for the smallest jitter buffer (`RTCRtpReceiver.jitterBufferTarget`), as a page may. `jitter buffer` is
Chromium's own mean delay in it over the call. `beyond the WebSocket` is against the median of the same question; `outside the server` is
what is left without the server's own ledger (last speech sample by the VAD, to the first frame sent): Chromium, both coders, the way.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from playwright.async_api import Browser, Error, async_playwright
from rich.console import Console
from rich.table import Table

from server.bench.recordings import choose_recordings, server_at, short_name
from server.caller_audio import CALLER_RATE, Recording, speech_end
from streaming.audio import Pcm16

__all__ = ["WAYS", "Trial", "ask", "browser_hearing"]

WAYS: Final[dict[str, tuple[str, int | None]]] = {
    "websocket": ("websocket", None),
    "webrtc": ("webrtc", None),
    "webrtc, target 0": ("webrtc", 0),
}
"""By name: the transport, and the jitter buffer's target in ms that Chromium is asked for."""
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=LocalNetworkAccessChecks",  # the blank page is the benchmark's, and so of no address that Chromium trusts
)
_MOST: Final = 20
"""Recordings."""
_BEFORE: Final = 3.0
"""Seconds of silence before the question: the call is set up meanwhile."""
_AFTER: Final = 60.0
_PATIENCE_MS: Final = 40_000
_AUDIBLE: Final = 328
"""-40 dBFS, as everywhere."""
_SCRIPT: Final = Path(__file__).with_suffix(".js")


@dataclass(frozen=True, slots=True)
class Trial:
    """One question asked one way. Times in ms; None where there was no answer, or one before the question's end. `jitter_buffer` is
    Chromium's, `ledger` the server's own total."""

    way: str
    question: str
    latency: float | None
    jitter_buffer: float | None
    ledger: float | None
    error: str = ""


@asynccontextmanager
async def browser_hearing(pcm: Pcm16) -> AsyncIterator[Browser]:
    """A Chromium whose microphone hears `pcm` (24 kHz) some seconds after it is opened."""
    executable = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if executable is None:
        raise SystemExit("No Chromium is installed.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "microphone.wav"
        silence = [np.zeros(round(seconds * CALLER_RATE), np.int16) for seconds in (_BEFORE, _AFTER)]
        soundfile.write(file, np.concatenate([silence[0], pcm, silence[1]]), CALLER_RATE, subtype="PCM_16")
        async with async_playwright() as playwright:
            flags = [*_FLAGS, f"--use-file-for-fake-audio-capture={file}%noloop"]
            browser = await playwright.chromium.launch(executable_path=executable, args=flags)
            try:
                yield browser
            finally:
                await browser.close()


async def ask(browser: Browser, address: str, way: str, question: str, detection: dict[str, object]) -> Trial:
    """One call on the server at `address` (http), in a page of its own."""
    transport, target = WAYS[way]
    page = await browser.new_page()
    try:
        await page.route("**/blank", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        await page.goto(address + "/blank")
        await page.add_script_tag(path=_SCRIPT, type="module")
        await page.wait_for_function("() => Boolean(window.begin)")
        await page.evaluate("([way, detection, target]) => begin(way, detection, target)", [transport, detection, target])
        await page.wait_for_function("() => answered()", timeout=_PATIENCE_MS)
        return _account(way, question, await page.evaluate("finish()"))
    except Error as error:
        return Trial(way, question, None, None, None, error.message.splitlines()[0])
    finally:
        with contextlib.suppress(Error):
            await page.evaluate("window.leave()")
        await page.close()


def _account(way: str, question: str, heard: dict[str, Any]) -> Trial:
    microphone, answer = (np.frombuffer(base64.b64decode(heard[side]), np.int16) for side in ("microphone", "answer"))
    asked = speech_end(microphone)
    audible = int(np.flatnonzero(np.abs(answer.astype(np.int32)) >= _AUDIBLE)[0])
    stats = heard["stats"]
    buffered = 1_000 * stats["jitterBufferDelay"] / stats["jitterBufferEmittedCount"] if stats.get("jitterBufferEmittedCount") else None
    if audible <= asked:
        return Trial(way, question, None, buffered, heard["ledger"], "answered before the question's end")
    return Trial(way, question, 1_000 * (audible - asked) / CALLER_RATE, buffered, heard["ledger"])


async def measure(url: str | None, recordings: Sequence[Recording], rounds: int) -> list[Trial]:
    """Every question every way, the first call a warm-up."""
    trials: list[Trial] = []
    detection: dict[str, object] = {"type": "semantic_vad"}
    async with server_at(url) as found:
        address = found.replace("ws", "http", 1).removesuffix("/v1/realtime")
        for number, recording in enumerate(recordings):
            name = short_name(recording)
            async with browser_hearing(recording.pcm) as browser:
                if not number:
                    await ask(browser, address, "websocket", name, detection)
                for turn in range(rounds):
                    ways = list(WAYS)
                    shift = (number + turn) % len(ways)
                    trials += [await ask(browser, address, way, name, detection) for way in ways[shift:] + ways[:shift]]
    return trials


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    first, middle, third = statistics.quantiles(values, n=4)
    return f"{middle:.0f} ({first:.0f} to {third:.0f})"


def report(trials: Sequence[Trial], console: Console) -> None:
    """The tables."""
    table = Table(title="last speech sample to first audible sample in Chromium, ms: median (middle half)")
    for column in ("way", "n", "voice to voice", "range", "beyond the WebSocket", "outside the server", "jitter buffer", "no answer"):
        table.add_column(column, justify="left" if column == "way" else "right")
    by_question: dict[str, list[float]] = {}
    for trial in trials:
        if trial.way == "websocket" and trial.latency is not None:
            by_question.setdefault(trial.question, []).append(trial.latency)
    usual = {question: statistics.median(times) for question, times in by_question.items()}
    for way in WAYS:
        mine = [trial for trial in trials if trial.way == way]
        times = [trial.latency for trial in mine if trial.latency is not None]
        beyond = [trial.latency - usual[trial.question] for trial in mine if trial.latency is not None and trial.question in usual]
        buffers = [trial.jitter_buffer for trial in mine if trial.jitter_buffer is not None]
        outside = [trial.latency - trial.ledger for trial in mine if trial.latency is not None and trial.ledger is not None]
        extremes = f"{min(times):.0f} to {max(times):.0f}" if times else "-"
        cells = (_spread(times), extremes, "" if way == "websocket" else _spread(beyond), _spread(outside), _spread(buffers))
        table.add_row(way, str(len(times)), *cells, str(len(mine) - len(times)))
    console.print(table)
    for trial in trials:
        if trial.error:
            console.print(f"{trial.way}, {trial.question}: {trial.error}", markup=False)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="*", default=[Path(__file__).parents[1] / "tests" / "golden"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--url", help="a server that runs already, ws://host:port/v1/realtime")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    recordings = choose_recordings(options.recordings, _MOST)
    before = os.getloadavg()[0]
    trials = asyncio.run(measure(options.url, recordings, options.rounds))
    console = Console(width=150)
    report(trials, console)
    console.print(f"{os.cpu_count()} cores; load over the last minute, our own in it: {os.getloadavg()[0]:.1f}, before: {before:.1f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n")


if __name__ == "__main__":
    main()
