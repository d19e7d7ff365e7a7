"""npm `@openai/agents-realtime`, unmodified, in a real browser over WebRTC: a spoken turn, an interruption, and a clear by hand.

The sound is the browser's own: Opus, DTLS, ICE and its jitter buffer on one side, its microphone processing on the other.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(180)]

ALLOW = "--use-fake-ui-for-media-stream"
BUNDLE = Path(__file__).parents[2] / ".clients/node/node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.umd.js"
PATIENCE_MS = 60_000
ANSWER = "Bern is the capital. It lies on the river Aare."
LONG_ANSWER = " ".join(f"This is sentence number {number} of a long story." for number in range(1, 21))

CONNECT = """async () => {
    const { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession } = OpenAIAgentsRealtime;
    const { value } = await (await fetch("/v1/realtime/client_secrets", { method: "POST" })).json();
    window.events = [];
    window.errors = [];
    const audioElement = document.createElement("audio");
    const transport = new OpenAIRealtimeWebRTC({ baseUrl: location.origin + "/v1/realtime/calls", audioElement });
    window.session = new RealtimeSession(new RealtimeAgent({ name: "Clerk", instructions: "Be brief." }), { transport });
    session.on("transport_event", (event) => events.push(event));
    session.on("error", (error) => errors.push(JSON.stringify(error)));
    await session.connect({ apiKey: value });
    // How loud the page is, in ten values a second.
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(audioElement.srcObject).connect(analyser);
    window.loudness = [];
    const samples = new Float32Array(analyser.fftSize);
    setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        loudness.push(Math.max(...samples.map(Math.abs)));
    }, 100);
}"""


@asynccontextmanager
async def calling(browser: Browser, address: str) -> AsyncIterator[Page]:
    """A page with nothing but the SDK in it, of the server's origin, in a call."""
    page = await browser.new_page()
    await page.route("**/blank", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    await page.goto(address + "/blank")
    await page.add_script_tag(path=BUNDLE)
    await page.evaluate(CONNECT)
    yield page
    await page.evaluate("session.close()")


async def until(page: Page, kind: str, count: int = 1) -> None:
    """Waits until so many events of this type have come."""
    condition = "([kind, count]) => events.filter(event => event.type === kind).length >= count"
    await page.wait_for_function(condition, arg=[kind, count], timeout=PATIENCE_MS)


async def events_of(page: Page, kind: str) -> list[dict]:
    found: list[dict] = await page.evaluate("kind => events.filter(event => event.type === kind)", kind)
    return found


async def said(page: Page) -> list[tuple[str, str]]:
    """The conversation as the SDK shows it."""
    items = await page.evaluate("session.history.filter(item => item.type === 'message')")
    return [(item["role"], item["content"][0].get("transcript") or "") for item in items]


async def test_a_spoken_turn(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    engine = ScriptedEngine([ScriptedReply(ANSWER)], ["What is the capital of Switzerland?"])
    async with serving(engine) as address, browsing(ALLOW, spoken(3.0, 1.5, 60.0)) as browser, calling(browser, address) as page:
        await until(page, "output_audio_buffer.stopped")
        await page.wait_for_function("loudness.some(peak => peak > 0.02)", timeout=PATIENCE_MS)
        assert [event["response"]["status"] for event in await events_of(page, "response.done")] == ["completed"]
        assert ("assistant", ANSWER) in await said(page)
        assert await events_of(page, "response.output_audio.delta") == []
        assert await page.evaluate("errors") == []
    assert engine.contexts[0][0].text == "Be brief."


async def test_an_interruption_and_a_clear_by_hand(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    replies = [ScriptedReply(LONG_ANSWER), ScriptedReply("Of course."), ScriptedReply(LONG_ANSWER)]
    engine = ScriptedEngine(replies, ["Tell me a story.", "Stop, please."], word_ms=150)
    microphone = spoken(3.0, 1.0, 5.0, 1.2, 60.0)
    async with serving(engine) as address, browsing(ALLOW, microphone) as browser, calling(browser, address) as page:
        await until(page, "response.done", 2)
        first, second = [event["response"] for event in await events_of(page, "response.done")]
        assert (first["status"], first["status_details"]["reason"], second["status"]) == ("cancelled", "turn_detected", "completed")
        (truncated,) = await events_of(page, "conversation.item.truncated")
        heard = LONG_ANSWER.split()[: truncated["audio_end_ms"] // 150]
        assert heard
        assert engine.contexts[1][2].text.split() == heard
        assert [event["response_id"] for event in await events_of(page, "output_audio_buffer.cleared")] == [first["id"]]
        await page.evaluate("session.sendMessage('Another one.')")
        await until(page, "output_audio_buffer.started", 3)
        await page.evaluate("session.interrupt()")
        await until(page, "response.done", 3)
        await until(page, "output_audio_buffer.cleared", 2)
        await page.wait_for_function("loudness.slice(-5).every(peak => peak < 0.02)", timeout=PATIENCE_MS)
        assert await page.evaluate("errors") == []
