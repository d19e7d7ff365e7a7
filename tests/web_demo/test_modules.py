"""The page's modules that need no server: resampling, the playback queue, the dialogue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

pytestmark = pytest.mark.browser

PAGE = Path(__file__).parents[2] / "web_demo"
TYPES = {".js": "text/javascript"}


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless=new", "--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def blank_page(browser: Browser) -> Iterator[Page]:
    """An empty document beside the page's files, without a server."""

    def answer(route: Route, request: Request) -> None:
        name = request.url.removeprefix("http://localhost/")
        body = (PAGE / name).read_bytes() if name else b"<!doctype html>"
        route.fulfill(body=body, content_type=TYPES.get(Path(name).suffix, "text/html"))

    page = browser.new_page()
    page.route("http://localhost/**", answer)
    page.goto("http://localhost/")
    yield page
    page.close()


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000, 96_000])
def test_the_microphone_is_resampled_whatever_its_rate(blank_page: Page, rate: int) -> None:
    """A tone stays what it is, in pieces of any size; what 24 kHz can't carry is gone."""
    result = blank_page.evaluate(
        """async (rate) => {
            const { Resampler } = await import("/resampler.js");
            const tone = (hz) => Float32Array.from({ length: rate / 2 }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rate));
            const run = (input, split) => {
                const resampler = new Resampler(rate, 24000);
                const out = [];
                for (let at = 0; at < input.length; at += split) out.push(...resampler.push(input.subarray(at, at + split)));
                return out;
            };
            const whole = run(tone(440), rate);
            const ideal = (i) => Math.sin((2 * Math.PI * 440 * i) / 24000);
            const error = Math.max(...whole.map((sample, i) => (i < 200 ? 0 : Math.abs(sample - ideal(i)))));
            const loudest = Math.max(...run(tone(15000), rate).slice(200, -200).map(Math.abs));
            return {
                error, loudest,
                same: [128, 1, 1000].every((split) => JSON.stringify(run(tone(440), split)) === JSON.stringify(whole)),
                missing: 12000 - whole.length,
            };
        }""",
        rate,
    )
    assert result["error"] < 2e-3
    assert result["same"]
    assert 0 <= result["missing"] <= 100
    if rate > 30_000:
        assert result["loudest"] < 2e-3


PLAYBACK = """async (steps) => {
    globalThis.sampleRate = 24000;
    const posted = [];
    globalThis.AudioWorkletProcessor = class { constructor() { this.port = { postMessage: (message) => posted.push(message) }; } };
    let made;
    globalThis.registerProcessor = (_, Processor) => { made = new Processor(); };
    await import("/playback-worklet.js");
    const heard = [];
    for (const step of steps) {
        if (step.push) made.port.onmessage({ data: { push: { id: step.push, samples: new Float32Array(step.samples).fill(step.value) } } });
        if (step.end) made.port.onmessage({ data: { end: step.end } });
        if (step.flush) made.port.onmessage({ data: { flush: true } });
        for (let i = 0; i < (step.run ?? 0); i += 1) {
            const output = new Float32Array(128);
            made.process([], [[output]]);
            heard.push(...output);
        }
    }
    return { posted, heard };
}"""


def test_playback_counts_every_sample_and_changes_response_at_the_seam(blank_page: Page) -> None:
    steps = [{"push": "a", "samples": 1_000, "value": 0.5}, {"push": "b", "samples": 500, "value": 0.25}, {"end": "b"}, {"run": 20}]
    result = blank_page.evaluate(PLAYBACK, steps)
    assert result["heard"] == [0.5] * 1_000 + [0.25] * 500 + [0.0] * (20 * 128 - 1_500)
    positions = [(p["position"]["id"], p["position"]["played"], p["position"]["queued"]) for p in result["posted"]]
    assert positions == [("a", 1_000, 500), ("b", 500, 0)]


def test_a_flush_stops_at_once_and_says_what_was_played(blank_page: Page) -> None:
    steps = [
        {"push": "a", "samples": 24_000, "value": 0.5},
        {"run": 10},
        {"flush": True},
        {"run": 4},
        {"push": "b", "samples": 128, "value": 0.1},
        {"end": "b"},
        {"run": 2},
    ]
    result = blank_page.evaluate(PLAYBACK, steps)
    assert result["heard"][: 10 * 128] == [0.5] * 1_280
    fade = result["heard"][1_280 : 1_280 + 120]
    assert fade == sorted(fade, reverse=True)
    assert fade[-1] < 0.01
    assert result["heard"][1_400 : 14 * 128] == [0.0] * (14 * 128 - 1_400)
    assert [m["flushed"] for m in result["posted"] if "flushed" in m] == [{"id": "a", "played": 1_280}]
    assert result["posted"][-1]["position"]["id"] == "b"
    assert result["posted"][-1]["position"]["played"] == 128


def test_a_flush_of_nothing_names_nothing(blank_page: Page) -> None:
    steps = [{"flush": True}, {"push": "a", "samples": 128, "value": 0.1}, {"end": "a"}, {"run": 3}, {"flush": True}]
    result = blank_page.evaluate(PLAYBACK, steps)
    assert [m["flushed"] for m in result["posted"] if "flushed" in m] == [{"id": None, "played": 0}] * 2


def test_after_running_dry_playback_waits_for_a_little_more(blank_page: Page) -> None:
    """One gap instead of a stutter, and none at the end of a response."""
    steps = [
        {"push": "a", "samples": 128, "value": 0.5},
        {"run": 2},
        {"push": "a", "samples": 1_000, "value": 0.5},
        {"run": 2},
        {"push": "a", "samples": 440, "value": 0.5},
        {"run": 12},
        {"push": "a", "samples": 128, "value": 0.5},
        {"end": "a"},
        {"run": 2},
    ]
    result = blank_page.evaluate(PLAYBACK, steps)
    expected = [0.5] * 128 + [0.0] * 384 + [0.5] * 1_440 + [0.0] * (12 * 128 - 1_440) + [0.5] * 128 + [0.0] * 128
    assert result["heard"] == expected


DIALOGUE = """async (steps) => {
    const { Dialogue } = await import("/dialogue.js");
    const dialogue = new Dialogue();
    dialogue.connected = true;
    const seen = [];
    let now = 0;
    for (const step of steps) {
        now += 100;
        if (step.event) dialogue.take(step.event, now);
        if (step.queued) dialogue.queued("r", step.queued);
        if (step.played) dialogue.position("r", step.played[0], step.played[1], now);
        if ("cut" in step) seen.push(dialogue.interrupted("r", step.cut));
        seen.push([dialogue.state, ...dialogue.entries.map(({ who, text, settled, cut }) => [who, text, settled, cut])]);
    }
    return { seen, latency: dialogue.entries.at(-1)?.latency ?? null };
}"""


def delta(text: str) -> dict:
    return {"event": {"type": "response.output_audio_transcript.delta", "response_id": "r", "delta": text}}


HEARD = [
    {"event": {"type": "input_audio_buffer.speech_started", "item_id": "u"}},
    {"event": {"type": "conversation.item.input_audio_transcription.delta", "item_id": "u", "delta": "what is"}},
    {"event": {"type": "input_audio_buffer.speech_stopped", "item_id": "u"}},
    {"event": {"type": "conversation.item.input_audio_transcription.completed", "item_id": "u", "transcript": "What is it?"}},
]
ANSWERED = [
    {"event": {"type": "response.created", "response": {"id": "r"}}},
    {"event": {"type": "response.output_item.added", "response_id": "r", "item": {"id": "a", "type": "message"}}},
    {"queued": 24_000},
    delta("A bell. "),
    {"queued": 24_000},
    delta("It rings."),
]
DONE = {"event": {"type": "response.done", "response": {"id": "r", "status": "completed"}}}


def test_words_are_shown_when_they_are_heard(blank_page: Page) -> None:
    steps = [*HEARD, *ANSWERED, {"played": [50, 1_950]}, DONE, {"played": [1_000, 1_000]}, {"played": [2_000, 0]}]
    result = blank_page.evaluate(DIALOGUE, steps)
    you = ["you", "What is it?", True, False]
    assert [step[0] for step in result["seen"]] == [
        *("hearing", "hearing", "thinking", "thinking"),
        *["thinking"] * 6,
        *("speaking", "speaking", "speaking", "listening"),
    ]
    assert result["seen"][1][1:] == [["you", "what is", False, False]]
    assert [step[2][1] for step in result["seen"][10:]] == ["A bell. ", "A bell. ", "A bell. It rings.", "A bell. It rings."]
    assert result["seen"][-1] == ["listening", you, ["agent", "A bell. It rings.", True, False]]
    # Measured from the end of speech to the first sound, as no ledger came.
    assert result["latency"] == {"ms": 800, "stages": []}


def test_an_interrupted_answer_keeps_what_was_heard(blank_page: Page) -> None:
    cancelled = {"event": {"type": "response.done", "response": {"id": "r", "status": "cancelled"}}}
    retrieved = {"type": "conversation.item.retrieved", "item": {"id": "a", "content": [{"type": "output_audio", "transcript": "A"}]}}
    steps = [*ANSWERED, {"played": [500, 1_500]}, {"cut": 520}, cancelled, {"event": retrieved}]
    result = blank_page.evaluate(DIALOGUE, steps)
    assert result["seen"][-5] == ["speaking", ["agent", "A bell. ", False, False]]
    assert result["seen"][-4] == "a"
    assert result["seen"][-2] == ["listening", ["agent", "A bell. ", True, True]]
    assert result["seen"][-1] == ["listening", ["agent", "A", True, True]]


def test_a_cancelled_answer_nobody_heard_and_a_silent_turn_leave_no_entry(blank_page: Page) -> None:
    cancelled = {"event": {"type": "response.done", "response": {"id": "r", "status": "cancelled"}}}
    silent = {"event": {"type": "conversation.item.input_audio_transcription.completed", "item_id": "u", "transcript": ""}}
    result = blank_page.evaluate(DIALOGUE, [*HEARD[:3], silent, *ANSWERED, cancelled])
    assert result["seen"][-1] == ["listening"]


def test_the_ledger_of_the_server_is_preferred(blank_page: Page) -> None:
    ledger = {"type": "vivavoce.ledger", "response_id": "r", "stages_ms": {"silence": 100, "decision": 50}, "total_ms": 150}
    result = blank_page.evaluate(DIALOGUE, [*HEARD, *ANSWERED, {"event": ledger}, {"played": [50, 1_950]}])
    assert result["latency"] == {"ms": 150, "stages": [["silence", 100], ["decision", 50]]}
