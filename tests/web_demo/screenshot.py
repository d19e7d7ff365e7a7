"""Takes the pictures of the page that the README and docs/ show: `python tests/web_demo/screenshot.py --help`.

One call, photographed while its last answer is being spoken: on a desk, at night, and on a phone. Without `--url` a scripted engine
answers, for work on the page's looks. The pictures in docs/ are of a server with real models.
"""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import soundfile
from conftest import ALLOW_MICROPHONE, browse, serve_page, voice
from playwright.async_api import Page

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
        answers.at(-1).textContent.split(" ").length >= 6;
}"""
DESK = {"width": 1_280, "height": 800}
PHONE = {"width": 390, "height": 844}


async def main(arguments: argparse.Namespace) -> None:
    """One call in a browser, photographed."""
    if arguments.recordings:
        turns = [load_recording(path).pcm / 32_768 for path in arguments.recordings]
    else:
        turns = [voice(seconds) for seconds in (1.6, 1.2, 1.5)]
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        soundfile.write(microphone, spoken_turns(turns, arguments.gaps), CALLER_RATE)
        async with AsyncExitStack() as stack:
            engine = ScriptedEngine([ScriptedReply(answer) for answer in ANSWERS], QUESTIONS, word_ms=300)
            address = arguments.url or await stack.enter_async_context(serve_page(engine))
            heard = f"--use-file-for-fake-audio-capture={microphone.absolute()}%noloop"
            browser = await stack.enter_async_context(browse(ALLOW_MICROPHONE, heard))
            page = await browser.new_page(viewport=DESK, device_scale_factor=2, color_scheme="light")
            await page.goto(address)
            await page.click("#call")
            await page.wait_for_function(SPEAKING, arg=len(turns), timeout=120_000)
            await photograph(page, arguments.folder)


def spoken_turns(turns: list[np.ndarray], gaps: list[float]) -> np.ndarray:
    """Three seconds for the call to be made, then the turns, each with its gap behind it (the last for those that have none)."""
    parts = [np.zeros(3 * CALLER_RATE)]
    for number, turn in enumerate(turns):
        parts += [turn, np.zeros(round(gaps[min(number, len(gaps) - 1)] * CALLER_RATE))]
    return np.concatenate(parts)


async def photograph(page: Page, folder: Path) -> None:
    """The page as it is now, as quickly as can be: the call goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=folder / "page.png")
    await page.click("#theme")
    await page.mouse.move(0, 0)
    await page.wait_for_timeout(400)
    await page.screenshot(path=folder / "page-dark.png")
    await page.click("#theme")
    await page.set_viewport_size(PHONE)
    await page.wait_for_timeout(400)
    await page.screenshot(path=folder / "page-phone.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help="what the caller says, a turn each")
    parser.add_argument("--url", help="a running server, such as http://127.0.0.1:8765")
    parser.add_argument("--gaps", type=float, nargs="+", default=[6.0], help="seconds between the caller's turns: time for the answer")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    asyncio.run(main(parser.parse_args()))
