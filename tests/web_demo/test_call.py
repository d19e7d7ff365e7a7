"""Calls of the page over both transports: turns, interruptions, the way back when one fails, functions, and what can be kept of a call."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.async_api import Page, WebSocketRoute, expect
from visit import ALLOW, PATIENCE_MS, visit

from server.limits import Limits
from server.serve import ServeOptions
from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

BLOCK_UDP = "--webrtc-ip-handling-policy=disable_non_proxied_udp"
ROUTES = {"webrtc": "Over WebRTC", "websocket": "Over the WebSocket"}
QUESTION = "What is the capital of Switzerland?"
ANSWER = "Bern is the capital. It lies on the river Aare."
LONG_ANSWER = " ".join(f"This is sentence number {number} of a long story." for number in range(1, 21))


async def saved(page: Page, kind: str) -> bytes:
    """What the page gives to keep."""
    await page.click("#save")
    async with page.expect_download() as download:
        await page.click(f"#save-{kind}")
    return Path(await (await download.value).path()).read_bytes()


def loud(samples: np.ndarray) -> float:
    """Seconds of sound that is not silence, in pieces of 20 ms."""
    pieces = samples[: len(samples) // 480 * 480].reshape(-1, 480)
    return float(np.count_nonzero(np.sqrt(np.mean(pieces**2, axis=1)) > 0.01) * 0.02)


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_a_turn_and_an_interruption(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """What the page shows as heard is what the model is told, and the recording has both sides."""
    engine = ScriptedEngine([ScriptedReply(LONG_ANSWER), ScriptedReply(ANSWER)], [QUESTION, "Stop, please."], word_ms=150)
    async with serving(engine) as address, browsing(ALLOW, spoken(3.0, 1.0, 5.0, 1.2, 60.0)) as browser:
        seen = await visit(browser, f"{address}/?transport={transport}")
        await seen.page.click("#call")
        await seen.state("speaking")
        await seen.route(ROUTES[transport])
        await seen.state("hearing")
        entries = await seen.settled(4)
        await seen.state("listening")
        recording, rate = soundfile.read(io.BytesIO(await saved(seen.page, "sound")))
        text = (await saved(seen.page, "text")).decode()
    assert [(who, cut) for who, _, _, cut in entries] == [("you", "false"), ("agent", "true"), ("you", "false"), ("agent", "false")]
    heard = entries[1][1]
    assert heard
    assert LONG_ANSWER.startswith(heard)
    assert heard != LONG_ANSWER
    assert entries[3][1] == ANSWER
    assert [message.text.strip() for message in engine.contexts[1] if message.role == "assistant" and message.text] == [heard]
    assert f"Vivavoce: {heard} [interrupted" in text
    assert rate == 24_000
    assert loud(recording[:, 0]) > 1.0
    assert loud(recording[:, 1]) > 1.0
    assert seen.of("error", sent=False) == []
    assert seen.complaints == []
    assert bool(seen.of("input_audio_buffer.append")) is (transport == "websocket")


async def test_where_udp_is_blocked_the_call_goes_over_the_websocket(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """By itself, and the place that the first attempt took at the server is free again."""
    options = ServeOptions(port=0, drain_seconds=0.1, limits=Limits(max_sessions=1))
    engine = ScriptedEngine([ScriptedReply(ANSWER)], [QUESTION])
    async with serving(engine, options) as address, browsing(ALLOW, BLOCK_UDP, spoken(9.0, 1.5, 60.0)) as browser:
        seen = await visit(browser, address)
        await seen.page.click("#call")
        await seen.route("Over the WebSocket: WebRTC did not connect; UDP may be blocked")
        assert await seen.settled(2) == [("you", QUESTION, "true", "false"), ("agent", ANSWER, "true", "false")]
        await seen.page.click("#call")
        await seen.page.goto(f"{address}/?transport=webrtc")
        await seen.page.click("#call")
        await seen.problem("WebRTC does not get through")


LOSE_WEBRTC = """() => {
    const peer = peers.at(-1);
    Object.defineProperty(peer, "connectionState", { value: "failed" });
    peer.dispatchEvent(new Event("connectionstatechange"));
}"""


COUNT_CONTEXTS = """
window.contexts = [];
window.AudioContext = class extends AudioContext {
    constructor(...given) {
        super(...given);
        contexts.push(this);
    }
};
"""
OPEN_CONTEXTS = "() => contexts.filter(({ state }) => state !== 'closed').length"


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_a_lost_call_goes_on_in_another_session(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Nothing of the lost one sounds on."""
    engine = ScriptedEngine(lambda messages: ScriptedReply(f"You have said {sum(message.role == 'user' for message in messages)} things."))
    sockets: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    async with serving(engine) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, address, scripts=(COUNT_CONTEXTS,))
        await seen.page.route_web_socket("**/v1/realtime", pass_on)
        await seen.page.goto(f"{address}/?transport={transport}")
        await seen.page.click("#call")
        await seen.state("listening")
        await seen.page.fill("#text", "One")
        await seen.page.keyboard.press("Enter")
        await seen.settled(2)
        await seen.state("listening")
        if transport == "webrtc":
            await seen.page.evaluate(LOSE_WEBRTC)
        else:
            await sockets[0].close(code=1011, reason="lost")
        await seen.settled(3)
        await seen.state("listening")
        await seen.route(ROUTES[transport])
        await seen.page.fill("#text", "Two")
        await seen.page.keyboard.press("Enter")
        entries = await seen.settled(5)
        assert await seen.page.evaluate(OPEN_CONTEXTS) == 2
        await seen.page.click("#call")
        await seen.state("off")
        await seen.page.wait_for_function("() => contexts.every(({ state }) => state === 'closed')", timeout=PATIENCE_MS)
    assert [(who, text) for who, text, _, _ in entries] == [
        ("you", "One"),
        ("agent", "You have said 1 things."),
        ("note", "Connected again: this session was told the words so far."),
        ("you", "Two"),
        ("agent", "You have said 2 things."),
    ]
    assert [message.text for message in engine.contexts[-1] if message.text][-3:] == ["One", "You have said 1 things.", "Two"]


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_a_call_of_a_function_is_shown_and_answered(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    replies = [ScriptedReply("", (("city_time", '{"city":"Bern"}'),)), ScriptedReply("It is late.")]
    engine = ScriptedEngine(replies, ["What time is it in Bern?"])
    async with serving(engine) as address, browsing(ALLOW, spoken(3.0, 1.5, 60.0)) as browser:
        seen = await visit(browser, f"{address}/?transport={transport}")
        await seen.page.click("#open-settings")
        await seen.page.check("[name=tool]")
        await seen.page.click("#close-settings")
        await seen.page.click("#call")
        entries = await seen.settled(3)
        called = await seen.page.locator(".called").all_text_contents()
    assert [who for who, _, _, _ in entries] == ["you", "tool", "agent"]
    assert called[1] == 'city_time({"city":"Bern"})'
    (output,) = [event["item"]["output"] for event in seen.of("conversation.item.create")]
    assert entries[1][1] == output
    assert output.split()[0].endswith("day")
    assert entries[2][1] == "It is late."
    assert seen.of("error", sent=False) == []


PUT_MARKUP = "() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.name; } }"


async def test_what_the_server_says_is_shown_as_text(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Whoever wrote it."""
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    engine = ScriptedEngine([ScriptedReply("", ((markup, markup),)), ScriptedReply(markup)], [markup])
    async with serving(engine) as address, browsing(ALLOW, spoken(3.0, 1.5, 60.0)) as browser:
        seen = await visit(browser, address)
        await seen.page.click("#call")
        entries = await seen.settled(3)
        assert await seen.page.locator("#entries img, #entries b").count() == 0
        complaints = [*seen.complaints]
        # And no script of the page could put it in otherwise.
        assert await seen.page.evaluate(PUT_MARKUP) == "TypeError"
    assert [(who, text) for who, text, _, _ in entries][::2] == [("you", markup), ("agent", markup)]
    assert complaints == []


async def test_what_was_chosen_is_sent_and_kept(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, voices=("joe", "ann"), languages=("en", "de"))
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, address)
        await expect(seen.page.locator("[name=voice] option")).to_have_text(["Default", "joe", "ann"], timeout=PATIENCE_MS)
        await expect(seen.page.locator("[name=language] option")).to_have_text(["Default", "English", "German"])
        await seen.page.click("#open-settings")
        await seen.page.select_option("[name=voice]", "ann")
        await seen.page.select_option("[name=language]", "de")
        await seen.page.fill("[name=instructions]", "Be brief.")
        await seen.page.keyboard.press("Escape")
        await expect(seen.page.locator("#settings")).to_be_hidden()
        await seen.page.keyboard.press("Alt+t")
        await seen.state("listening")
        await seen.page.click("#open-settings")
        await seen.page.fill("[name=instructions]", "")
        await seen.page.click("#close-settings")
        await expect(seen.page.locator("#settings")).to_be_hidden()
        await seen.page.keyboard.press("Alt+m")
        await seen.state("muted")
        await seen.page.reload()
        assert await seen.page.input_value("[name=voice]") == "ann"
        first, second = [event["session"] for event in seen.of("session.update")]
    assert first["instructions"] == "Be brief."
    assert first["audio"]["output"]["voice"] == "ann"
    assert first["audio"]["input"]["transcription"]["language"] == "de"
    assert second["instructions"] == ""
    assert seen.of("error", sent=False) == []


def keeps(**settings: object) -> str:
    """A script: the browser has kept these settings from an earlier visit."""
    return f"localStorage.setItem('vivavoce-settings', {json.dumps(json.dumps(settings))});"


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_devices_that_are_gone_are_replaced(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    async with serving(ScriptedEngine()) as address, browsing(ALLOW, spoken(60.0)) as browser:
        scripts = (keeps(microphone="gone", loudspeaker="gone"),)
        seen = await visit(browser, f"{address}/?transport={transport}", scripts=scripts)
        await seen.page.click("#call")
        await seen.state("listening")
        await expect(seen.page.locator("#problem")).to_be_hidden()


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_a_session_that_is_refused_ends_the_call(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Here for its size, by the server or before it is sent."""
    async with serving(ScriptedEngine()) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, f"{address}/?transport={transport}", scripts=(keeps(instructions="x" * 70_000),))
        await seen.page.click("#call")
        await seen.problem("The server reports a problem")
        await seen.state("off")
