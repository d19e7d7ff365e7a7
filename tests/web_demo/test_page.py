"""The page in a real browser against the real server, with a scripted engine where the models would be."""

import base64
from collections.abc import Callable
from contextlib import AsyncExitStack

import numpy as np
import pytest
from playwright.async_api import expect
from visit import ALLOW, PATIENCE_MS, entries_of, visit

from server.limits import Limits
from server.serve import ServeOptions
from streaming.events import Abort, CommitTurn
from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = pytest.mark.browser

WEBSOCKET = "/?transport=websocket"
QUESTION = "What is the capital of Switzerland?"
ANSWER = "Bern is the capital. It lies on the river Aare."
LONG_ANSWER = " ".join(f"This is sentence number {number} of a long story." for number in range(1, 21))


# ------------------------------------------------------------------------------------------------------------ speaking


async def test_a_spoken_turn_shows_both_sides_and_plays_the_answer(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    engine = ScriptedEngine([ScriptedReply(ANSWER)], [QUESTION])
    async with serving(engine) as address, browsing(ALLOW, spoken(2.0, 1.5, 60.0)) as browser:
        seen = await visit(browser, address + WEBSOCKET)
        assert await entries_of(seen.page) == []
        await seen.page.click("#call")
        await seen.state("hearing")
        await seen.state("speaking")
        assert await seen.settled(2) == [("you", QUESTION, "true", "false"), ("agent", ANSWER, "true", "false")]
        await seen.state("listening")
        assert await seen.page.locator(".timing summary").count() == 1
        assert await seen.page.locator(".stages dt").count() == 9
    audio = sum(len(base64.b64decode(event["delta"])) // 2 for event in seen.of("response.output_audio.delta", sent=False))
    assert audio == 10 * 1_440
    reports = [event["played_ms"] for event in seen.of("vivavoce.playback")]
    assert reports == sorted(reports)
    # The last report is the end of the answer: every sample went through the browser's audio thread.
    assert reports[-1] == 600
    deltas = "".join(event["delta"] for event in seen.of("conversation.item.input_audio_transcription.delta", sent=False))
    assert QUESTION.startswith(deltas)
    assert seen.of("error", sent=False) == []
    assert seen.complaints == []
    assert all(url.startswith(address) for url in seen.requests)


async def test_speaking_over_the_answer_stops_it_where_it_was_heard(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Sound stops, the entry is cut, and the model is told exactly the words that the page shows."""
    engine = ScriptedEngine([ScriptedReply(LONG_ANSWER), ScriptedReply("Of course.")], [QUESTION, "Stop, please."], word_ms=150)
    async with serving(engine) as address, browsing(ALLOW, spoken(2.0, 1.0, 5.0, 1.2, 60.0)) as browser:
        seen = await visit(browser, address + WEBSOCKET)
        await seen.page.click("#call")
        await seen.state("speaking")
        await seen.state("hearing")
        entries = await seen.settled(4)
        await seen.state("listening")
    assert [entry[0] for entry in entries] == ["you", "agent", "you", "agent"]
    _, heard, _, cut = entries[1]
    assert cut == "true"
    assert heard
    assert LONG_ANSWER.startswith(heard)
    assert heard != LONG_ANSWER
    assert entries[3] == ("agent", "Of course.", "true", "false")
    (truncate,) = seen.of("conversation.item.truncate")
    first = seen.of("response.created", sent=False)[0]["response"]["id"]
    reports = [event["played_ms"] for event in seen.of("vivavoce.playback") if event["response_id"] == first]
    assert reports == sorted(reports)
    assert reports[-1] <= truncate["audio_end_ms"] < len(LONG_ANSWER.split()) * 150
    # Every word the page shows had been heard to its end, and the next had not.
    assert len(heard.split()) == truncate["audio_end_ms"] // 150
    told = engine.contexts[1]
    assert [message.text.strip() for message in told if message.role == "assistant" and message.text] == [heard]
    assert seen.complaints == []


async def test_the_microphone_goes_on_and_mute_makes_it_silent(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    engine = ScriptedEngine()
    async with serving(engine) as address, browsing(ALLOW, spoken(0.0, 60.0)) as browser:
        seen = await visit(browser, address + WEBSOCKET)
        await seen.page.click("#call")
        await seen.state("hearing")
        await seen.page.click("#mute")
        await expect(seen.page.locator("#mute")).to_have_text("Unmute")
        muted_from = len(seen.of("input_audio_buffer.append")) + 5
        while len(seen.of("input_audio_buffer.append")) < muted_from + 25:
            await seen.page.wait_for_timeout(100)
        await seen.page.click("#call")
        await seen.state("off")
    chunks = [np.frombuffer(base64.b64decode(event["audio"]), "<i2") for event in seen.of("input_audio_buffer.append")]
    assert {len(chunk) for chunk in chunks} == {960}
    assert any(chunk.any() for chunk in chunks[:muted_from])
    assert not any(chunk.any() for chunk in chunks[muted_from:])


# -------------------------------------------------------------------------------------------------------------- typing


async def test_typing_answers_and_escape_stops_the_answer(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Without pressing Start: no microphone is asked for."""
    engine = ScriptedEngine([ScriptedReply(LONG_ANSWER), ScriptedReply(ANSWER)], word_ms=150)
    async with serving(engine) as address, browsing() as browser:
        seen = await visit(browser, address)
        await seen.page.fill("#text", "Tell me a story.")
        await seen.page.keyboard.press("Enter")
        await seen.state("speaking")
        await expect(seen.page.locator(".entry[data-who=agent] .text")).to_contain_text("sentence number 1", timeout=PATIENCE_MS)
        await seen.page.keyboard.press("Escape")
        first = await seen.settled(2)
        await seen.state("typing")
        await seen.page.fill("#text", "What is Bern?")
        await seen.page.keyboard.press("Enter")
        entries = await seen.settled(4)
    assert first[0] == ("you", "Tell me a story.", "true", "false")
    assert first[1][3] == "true"
    assert LONG_ANSWER.startswith(first[1][1])
    assert entries[2:] == [("you", "What is Bern?", "true", "false"), ("agent", ANSWER, "true", "false")]
    assert [message.text for message in engine.contexts[1] if message.role == "user"] == ["Tell me a story.", "What is Bern?"]
    assert seen.of("input_audio_buffer.append") == []
    assert seen.of("error", sent=False) == []
    assert not any(isinstance(order, CommitTurn) for _, order in engine.orders)
    assert sum(isinstance(order, Abort) for _, order in engine.orders) <= 1


# ------------------------------------------------------------------------------------------------------------ problems


async def test_a_denied_microphone_says_what_to_do_and_leaves_typing(serving: Callable, browsing: Callable) -> None:
    async with serving(ScriptedEngine([ScriptedReply(ANSWER)])) as address, browsing("--deny-permission-prompts") as browser:
        seen = await visit(browser, address)
        await seen.page.click("#call")
        await seen.problem("The microphone is blocked")
        await expect(seen.page.locator("#problem-advice")).to_contain_text("address bar")
        await seen.state("typing")
        await seen.page.fill("#text", "Hello")
        await seen.page.keyboard.press("Enter")
        assert (await seen.settled(2))[1] == ("agent", ANSWER, "true", "false")


async def test_no_microphone_is_named(serving: Callable, browsing: Callable) -> None:
    script = "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError')); }"
    async with serving(ScriptedEngine()) as address, browsing(ALLOW) as browser:
        seen = await visit(browser, address)
        await seen.page.evaluate(script)
        await seen.page.click("#call")
        await seen.problem("No microphone was found")


async def test_a_server_that_goes_is_named_and_reconnecting_works(
    serving: Callable, browsing: Callable, spoken: Callable, unused_tcp_port: int
) -> None:
    options = ServeOptions(port=unused_tcp_port, drain_seconds=0.1)
    async with browsing(ALLOW, spoken(60.0)) as browser:
        async with serving(ScriptedEngine(), options) as address:
            seen = await visit(browser, address)
            await seen.page.click("#call")
            await seen.state("listening")
        await seen.problem("The server has been stopped")
        await seen.state("off")
        await seen.page.click("#retry")
        await seen.problem("The server can't be reached")
        async with serving(ScriptedEngine(), options):
            await seen.page.click("#retry")
            await seen.state("listening")
            await expect(seen.page.locator("#problem")).to_be_hidden()


async def test_an_expired_session_is_named(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, limits=Limits(session_seconds=2.0))
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, address)
        await seen.page.click("#call")
        await seen.problem("The session has expired")
        await seen.state("off")


async def test_a_busy_server_is_named(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, limits=Limits(max_sessions=1))
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, spoken(60.0)) as browser:
        first = await visit(browser, address)
        await first.page.click("#call")
        await first.state("listening")
        second = await visit(browser, address)
        await second.page.click("#call")
        await second.problem("The server refused the call")


async def test_a_key_is_asked_for_and_kept_for_the_tab(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, api_keys=("right-key-1234567890",))
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, address)
        await seen.page.click("#call")
        await seen.problem("This server wants an API key")
        for key, title in (("two words", "That can't be an API key"), ("wrong-key", "That API key was not accepted")):
            await seen.page.fill("#key", key)
            await seen.page.keyboard.press("Enter")
            await seen.problem(title)
        await seen.page.fill("#key", "right-key-1234567890")
        await seen.page.keyboard.press("Enter")
        await seen.state("listening")
        await expect(seen.page.locator("#problem")).to_be_hidden()
        await seen.page.reload()
        await seen.page.click("#call")
        await seen.state("listening")


async def test_an_address_without_security_is_explained_and_text_still_works(serving: Callable, browsing: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, api_keys=("right-key-1234567890",))
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(ScriptedEngine([ScriptedReply(ANSWER)]), options))
        names = f"--host-resolver-rules=MAP voice.test {address.removeprefix('http://')}"
        browser = await stack.enter_async_context(browsing(ALLOW, names))
        seen = await visit(browser, "http://voice.test/")
        await seen.page.evaluate("sessionStorage.setItem('vivavoce-key', 'right-key-1234567890')")
        await seen.page.reload()
        await seen.page.click("#call")
        await seen.problem("The microphone needs a secure address")
        await seen.state("typing")
        await seen.page.fill("#text", "Hello")
        await seen.page.keyboard.press("Enter")
        assert (await seen.settled(2))[1] == ("agent", ANSWER, "true", "false")
    assert seen.of("response.output_audio.delta", sent=False) == []
