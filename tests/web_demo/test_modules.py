"""The page's modules that need no server: resampling, the playback queue, the dialogue, and what is kept of it."""

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
        if ("cut" in step) dialogue.interrupted("r", step.cut);
        seen.push([dialogue.state, ...dialogue.entries.map(({ who, text, settled, cut }) => [who, text, settled, cut])]);
    }
    const last = dialogue.entries.at(-1);
    return { seen, latency: last?.latency ?? null, ahead: last?.ahead, unheard: last?.unheard, items: dialogue.carry() };
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
    assert result["latency"] == {"ms": 800, "stages": [], "prepared": False}


def test_an_interrupted_answer_keeps_what_was_heard(blank_page: Page) -> None:
    """And shows what was not, as far as its words had come."""
    cancelled = {"event": {"type": "response.done", "response": {"id": "r", "status": "cancelled"}}}
    retrieved = {"type": "conversation.item.retrieved", "item": {"id": "a", "content": [{"type": "output_audio", "transcript": "A"}]}}
    before = [*ANSWERED, {"played": [500, 1_500]}]
    assert blank_page.evaluate(DIALOGUE, before)["ahead"] == "It rings."
    result = blank_page.evaluate(DIALOGUE, [*before, {"cut": 520}, cancelled, {"event": retrieved}])
    assert result["seen"][-4] == ["speaking", ["agent", "A bell. ", False, False]]
    assert result["seen"][-2] == ["listening", ["agent", "A bell. ", True, True]]
    assert result["seen"][-1] == ["listening", ["agent", "A", True, True]]
    assert (result["ahead"], result["unheard"]) == ("", " bell. It rings.")
    (item,) = result["items"]
    assert (item["id"], item["role"], item["content"]) == ("a", "assistant", [{"type": "output_text", "text": "A"}])


SERVED = [ANSWERED[0], ANSWERED[1], {"event": {"type": "output_audio_buffer.started", "response_id": "r"}}, delta("A bell. "), DONE]


def test_where_the_server_plays_the_sound_it_says_when_it_is_over(blank_page: Page) -> None:
    stopped = {"event": {"type": "output_audio_buffer.stopped", "response_id": "r"}}
    cleared = {"event": {"type": "output_audio_buffer.cleared", "response_id": "r"}}
    result = blank_page.evaluate(DIALOGUE, [*HEARD, *SERVED, stopped])
    assert [step[0] for step in result["seen"][-6:]] == ["thinking", "thinking", "speaking", "speaking", "speaking", "listening"]
    assert result["seen"][-1][2] == ["agent", "A bell. ", True, False]
    assert result["latency"] == {"ms": 400, "stages": [], "prepared": False}
    result = blank_page.evaluate(DIALOGUE, [*SERVED, cleared])
    assert result["seen"][-1] == ["listening", ["agent", "A bell. ", True, True]]


def test_a_call_of_a_function_is_an_entry_as_it_is_written(blank_page: Page) -> None:
    call = {"id": "f", "type": "function_call", "name": "city_time", "call_id": "c", "arguments": ""}
    output = {"id": "o", "type": "function_call_output", "call_id": "c", "output": "Noon"}
    written = [
        {"type": "conversation.item.added", "item": call},
        {"type": "response.function_call_arguments.delta", "item_id": "f", "delta": '{"city":'},
        {"type": "response.function_call_arguments.done", "item_id": "f", "arguments": '{"city":"Bern"}'},
        {"type": "conversation.item.added", "item": output},
    ]
    result = blank_page.evaluate(DIALOGUE, [{"event": event} for event in written])
    assert [step[1] for step in result["seen"]] == [["tool", "", False, False]] * 3 + [["tool", "Noon", True, False]]
    assert [(item["type"], item.get("arguments"), item.get("output")) for item in result["items"]] == [
        ("function_call", '{"city":"Bern"}', None),
        ("function_call_output", None, "Noon"),
    ]


def test_a_cancelled_answer_nobody_heard_and_a_silent_turn_leave_no_entry(blank_page: Page) -> None:
    cancelled = {"event": {"type": "response.done", "response": {"id": "r", "status": "cancelled"}}}
    silent = {"event": {"type": "conversation.item.input_audio_transcription.completed", "item_id": "u", "transcript": ""}}
    result = blank_page.evaluate(DIALOGUE, [*HEARD[:3], silent, *ANSWERED, cancelled])
    assert result["seen"][-1] == ["listening"]


def test_the_ledger_of_the_server_is_preferred(blank_page: Page) -> None:
    ledger = {
        "type": "vivavoce.ledger",
        "response_id": "r",
        "stages_ms": {"silence": 100, "decision": 50},
        "total_ms": 150,
        "speculated": True,
    }
    result = blank_page.evaluate(DIALOGUE, [*HEARD, *ANSWERED, {"event": ledger}, {"played": [50, 1_950]}])
    stages = [["silence", 100], ["decision", 50]]
    assert result["latency"] == {"ms": 150, "stages": stages, "prepared": True}
    played = {"type": "vivavoce.ledger.played", "response_id": "r", "played_ms": 40, "total_ms": 190, "reported": True}
    result = blank_page.evaluate(DIALOGUE, [*HEARD, *ANSWERED, {"event": ledger}, {"event": played}])
    assert result["latency"] == {"ms": 190, "stages": [*stages, ["played", 40]], "prepared": True}


def test_what_was_said_before_is_not_carried_into_a_new_conversation(blank_page: Page) -> None:
    result = blank_page.evaluate(
        """async () => {
            const { Dialogue } = await import("/dialogue.js");
            const dialogue = new Dialogue();
            const say = (id, text) => dialogue.settle(id, text);
            dialogue.begin();
            say("old", "Before");
            dialogue.begin();
            say("new", "After");
            const carried = dialogue.carry();
            dialogue.take({ type: "conversation.item.added", item: carried[0] }, 0);
            return { said: dialogue.entries.map(({ text }) => text), carried, awaiting: dialogue.awaiting };
        }"""
    )
    assert result["said"] == ["Before", "A new conversation.", "After"]
    assert result["carried"] == [{"id": "new", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "After"}]}]
    assert result["awaiting"] is False


def test_a_recording_has_both_sides_where_they_sounded(blank_page: Page) -> None:
    """A side that stood still has a gap, one that was only late does not; beyond ten minutes the oldest sound goes."""
    result = blank_page.evaluate(
        """async () => {
            const { Recording } = await import("/recording.js");
            const chunk = (value, samples = 960) => new Int16Array(samples).fill(value).buffer;
            const recording = new Recording();
            recording.push("you", chunk(1), 1000);
            recording.push("agent", chunk(2), 1040);
            recording.push("you", chunk(3), 1200);
            recording.push("you", chunk(4), 4000);
            const wav = new DataView(recording.toWav());
            const at = (ms, channel) => wav.getInt16(44 + (ms * 24 * 2 + channel) * 2, true);
            const long = new Recording();
            for (let second = 1; second <= 700; second += 1) long.push("you", chunk(second, 24000), second * 1000);
            return {
                left: [10, 50, 100, 3010].map((ms) => at(ms, 0)), right: [10, 50, 90].map((ms) => at(ms, 1)),
                bytes: wav.byteLength, seconds: recording.seconds, long: [long.seconds, new DataView(long.toWav()).getInt16(44, true)],
            };
        }"""
    )
    assert result["left"] == [1, 3, 0, 4]
    assert result["right"] == [0, 2, 0]
    assert result["seconds"] == 3.04
    assert result["bytes"] == 44 + 4 * 24 * 3_040
    assert result["long"] == [600, 101]


def test_marks_of_the_timeline(blank_page: Page) -> None:
    result = blank_page.evaluate(
        """async () => {
            const { Timeline } = await import("/timeline.js");
            const timeline = new Timeline();
            const guess = (response_id, state) => ({ type: "vivavoce.speculation", response_id, state });
            timeline.level("you", 0.5, 0);
            timeline.take(guess("a", "begun"), 100);
            timeline.take(guess("a", "dropped"), 200);
            timeline.take(guess("b", "begun"), 900);
            timeline.take({ type: "input_audio_buffer.speech_stopped" }, 1000);
            timeline.take(guess("b", "adopted"), 1100);
            timeline.answered("b", 1300);
            timeline.take({ type: "vivavoce.ledger", response_id: "b", total_ms: 420 }, 1310);
            timeline.cut(2000);
            const marks = timeline.marks.map(({ kind, fate, waitedMs }) => [kind, fate ?? waitedMs ?? null]);
            timeline.take({ type: "vivavoce.ledger", response_id: "c", total_ms: 500 }, 99990);
            timeline.answered("c", 100000);
            timeline.level("you", 0.5, 100000);
            return { marks, left: [timeline.marks.length, timeline.levels.you.length, timeline.marks[0].waitedMs] };
        }"""
    )
    assert result["marks"] == [["prepared", "dropped"], ["prepared", "kept"], ["stopped", None], ["answered", 420], ["cut", None]]
    assert result["left"] == [1, 1, 500]


def test_the_tool_takes_whatever_a_model_calls_it_with(blank_page: Page) -> None:
    script = """async (calls) => {
        const { runTool } = await import("/tools.js");
        return calls.map(([name, given]) => runTool(name, given, new Date("2026-01-05T12:00:00Z")));
    }"""
    calls = [
        ["city_time", '{"city":"Tokyo"}'],
        ["city_time", '{"city":"toString"}'],
        ["city_time", "null"],
        ["city_time", "{"],
        ["x", "{}"],
    ]
    said = blank_page.evaluate(script, calls)
    assert said[0] == "Monday 21:00"
    assert said[1].startswith("The city must be one of")
    assert said[2:] == ["The arguments are not JSON.", "The arguments are not JSON.", "There is no function x."]


def test_settings_that_make_no_sense_are_not_read(blank_page: Page) -> None:
    result = blank_page.evaluate(
        """async () => {
            const { loadSettings, sessionOf, withNamedTransport } = await import("/settings.js");
            localStorage.setItem("vivavoce-settings", JSON.stringify({ voice: 7, language: "de", tool: "yes", other: 1 }));
            const kept = loadSettings();
            localStorage.setItem("vivavoce-settings", "{");
            const broken = loadSettings();
            return { kept, broken, named: withNamedTransport(broken, "?transport=websocket").transport,
                wrong: withNamedTransport(broken, "?transport=pigeon").transport, session: sessionOf(kept, false) };
        }"""
    )
    assert result["kept"] == result["broken"] | {"language": "de"}
    assert (result["named"], result["wrong"]) == ("websocket", "auto")
    assert result["session"]["output_modalities"] == ["text"]
    assert "instructions" not in result["session"]
    assert "tools" not in result["session"]
