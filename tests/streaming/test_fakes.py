"""The scripted engine: what it hears, what it says, what it remembers."""

import json

import numpy as np
import pytest

from streaming.audio import AudioFrame
from streaming.doors import Engine, EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import (
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    Drop,
    EndOfTurnScore,
    EngineEvent,
    FinishReason,
    Listened,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    Usage,
    WordMark,
)
from streaming.fake_voice import split_clauses
from streaming.fakes import ScriptedEngine, ScriptedReply

WINDOW = 512
TOOLS = (ToolSpec("get_weather", "Weather in a city", "{}"), ToolSpec("get_time", "", "{}"))


def opened(engine: ScriptedEngine) -> ScriptedEngine:
    engine.open("s", SessionSpec())
    return engine


def run(engine: Engine) -> list[EngineOutput]:
    """Steps until nothing is left to do."""
    outputs: list[EngineOutput] = []
    while engine.busy():
        outputs.extend(engine.step())
    return outputs


def events(outputs: list[EngineOutput], session: str = "s") -> list[EngineEvent]:
    return [output.event for output in outputs if isinstance(output, SessionEvent) and output.session_id == session]


def sound(windows: int, *, loud: bool) -> np.ndarray:
    return np.full(windows * WINDOW, 0.1 if loud else 0.0, np.float32)


def hear(engine: ScriptedEngine, pcm: np.ndarray, at: int = 0, split: int = 320) -> list[EngineEvent]:
    for start in range(0, len(pcm), split):
        engine.feed("s", AudioFrame(pcm[start : start + split], at + start))
    return events(run(engine))


def respond(engine: ScriptedEngine, options: RespondOptions | None = None, response_id: str = "r") -> list[EngineOutput]:
    engine.order("s", Respond(response_id, options or RespondOptions()))
    return run(engine)


# ------------------------------------------------------------------------------------------------------------ hearing


def turn() -> np.ndarray:
    return np.concatenate((sound(3, loud=False), sound(10, loud=True), sound(20, loud=False)))


def test_a_turn_is_heard_with_its_positions() -> None:
    heard = hear(opened(ScriptedEngine()), turn())
    assert [event for event in heard if not isinstance(event, Listened)] == [
        SpeechStarted(3 * WINDOW, 1.0),
        SpeechStopped(13 * WINDOW, 0.0),
        EndOfTurnScore(19 * WINDOW, 0.95),
    ]
    assert [event.at for event in heard if isinstance(event, Listened)] == [WINDOW * (n + 1) for n in range(33)]


@pytest.mark.parametrize("split", [1, 160, 511, 512, 4_000, 100_000])
def test_any_split_is_heard_alike(split: int) -> None:
    assert hear(opened(ScriptedEngine()), turn(), split=split) == hear(opened(ScriptedEngine()), turn())


def test_a_pause_within_a_turn_starts_speech_again() -> None:
    pcm = np.concatenate((sound(4, loud=True), sound(3, loud=False), sound(4, loud=True), sound(2, loud=False), sound(4, loud=True)))
    heard = [event for event in hear(opened(ScriptedEngine()), pcm) if not isinstance(event, Listened)]
    assert heard == [SpeechStarted(0, 1.0), SpeechStopped(4 * WINDOW, 0.0), SpeechStarted(7 * WINDOW, 1.0)]


def test_scoring_obeys_its_knobs_and_the_session() -> None:
    engine = opened(ScriptedEngine(end_of_turn_ms=320, end_of_turn_probability=0.2))
    assert EndOfTurnScore(23 * WINDOW, 0.2) in hear(engine, turn())
    engine = opened(ScriptedEngine())
    engine.order("s", ConfigureEar(end_of_turn=False))
    assert not any(isinstance(event, EndOfTurnScore) for event in hear(engine, turn()))


def test_words_settle_with_the_speech_heard_and_the_final_text_replaces_them() -> None:
    engine = opened(ScriptedEngine(transcripts=["What is a tortoise?"], heard_word_ms=320))
    engine.order("s", StartTurn("u1", 0))
    deltas = [event.text for event in hear(engine, sound(25, loud=True)) if isinstance(event, TranscriptDelta)]
    assert deltas == ["What", " is"]
    engine.order("s", CommitTurn("u1", 0, 25 * WINDOW))
    assert events(run(engine)) == [TranscriptDone("u1", "What is a tortoise?", 0.9, "en")]


def test_scripted_turns_run_out_into_numbered_ones_and_a_discarded_turn_uses_none() -> None:
    engine = opened(ScriptedEngine(transcripts=["First."]))
    engine.order("s", StartTurn("u0", 0))
    engine.order("s", DiscardTurn(0))
    engine.order("s", CommitTurn("u1", 0, WINDOW))
    engine.order("s", CommitTurn("u2", WINDOW, 2 * WINDOW))
    assert [event.text for event in events(run(engine)) if isinstance(event, TranscriptDone)] == ["First.", "turn 2"]


# ------------------------------------------------------------------------------------------------------------ speaking


def test_clauses_keep_every_character() -> None:
    assert split_clauses("Yes.  It is; a b c d e f g h i") == [
        ["Yes.  "],
        ["It ", "is; "],
        ["a ", "b ", "c ", "d ", "e ", "f ", "g ", "h "],
        ["i"],
    ]
    assert split_clauses("  ") == []


def test_a_reply_in_order_with_exact_words() -> None:
    outputs = respond(opened(ScriptedEngine([ScriptedReply("Yes. It is")])))
    assert [type(output.event if isinstance(output, SessionEvent) else output) for output in outputs] == [
        TextDelta,
        SynthesisedAudio,
        AudioReady,
        TextDelta,
        SynthesisedAudio,
        AudioReady,
        ResponseFinished,
    ]
    assert [event for event in events(outputs) if isinstance(event, AudioReady)] == [
        AudioReady("r", 0, 1440, 5, (WordMark(5, 1440),), True),
        AudioReady("r", 1440, 2880, 10, (WordMark(8, 2880), WordMark(10, 4320)), True),
    ]
    assert events(outputs)[-1] == ResponseFinished("r", FinishReason.STOP, None, Usage(0, 0, 3, 3))
    pcm = np.concatenate([output.pcm for output in outputs if isinstance(output, SynthesisedAudio)])
    assert pcm.dtype == np.int16
    assert len(pcm) == 4320
    expected = 1_600 * np.sin(2 * np.pi * 440 * np.arange(4320) / 24_000)
    assert np.abs(pcm - expected).max() <= 0.5


@pytest.mark.parametrize("words_per_step", [1, 3, 8])
def test_pieces_change_neither_text_nor_sound(words_per_step: int) -> None:
    text = "One two three four five six seven eight nine ten. Eleven twelve!"
    outputs = respond(opened(ScriptedEngine([ScriptedReply(text)], words_per_step=words_per_step)), RespondOptions(rate=8_000))
    assert "".join(event.text for event in events(outputs) if isinstance(event, TextDelta)) == text
    ready = [event for event in events(outputs) if isinstance(event, AudioReady)]
    assert [event.samples for event in ready] == [8 * 480, 2 * 480, 2 * 480]
    assert all(event.text_end == event.words[-1].text_end and event.start + event.samples == event.words[-1].end for event in ready)


def test_a_clause_may_come_in_chunks_of_sound() -> None:
    text = "One two. Three"
    outputs = respond(opened(ScriptedEngine([ScriptedReply(text)], chunk_ms=40)), RespondOptions(rate=8_000))
    whole = respond(opened(ScriptedEngine([ScriptedReply(text)])), RespondOptions(rate=8_000))
    ready = [event for event in events(outputs) if isinstance(event, AudioReady)]
    assert ready == [
        AudioReady("r", 0, 320, 0, (), True),
        AudioReady("r", 320, 320, 4, (WordMark(4, 480),), True),
        AudioReady("r", 640, 320, 9, (WordMark(9, 960),), True),
        AudioReady("r", 960, 320, 9, (), True),
        AudioReady("r", 1_280, 160, 14, (WordMark(14, 1_440),), True),
    ]
    sound, same = (np.concatenate([each.pcm for each in told if isinstance(each, SynthesisedAudio)]) for told in (outputs, whole))
    assert np.array_equal(sound, same)


def test_one_step_makes_one_piece_and_an_abort_finds_the_reply_in_the_middle() -> None:
    engine = opened(ScriptedEngine([ScriptedReply("one two three four. five")], words_per_step=2))
    engine.order("s", Respond("r", RespondOptions()))
    assert [event.text for event in events(engine.step()) if isinstance(event, TextDelta)] == ["one two "]
    engine.order("s", Abort("r"))
    assert events(engine.step()) == [ResponseFinished("r", FinishReason.ABORTED, None, Usage(0, 0, 2, 2))]
    assert not engine.busy()
    engine.order("s", Abort("r"))
    assert engine.step() == []


def test_a_stalled_reply_waits_for_its_abort() -> None:
    engine = opened(ScriptedEngine([ScriptedReply("one two three", stall_after=2)]))
    outputs = respond(engine)
    assert events(outputs) == [TextDelta("r", "one two ")]
    engine.order("s", Abort("r"))
    assert events(run(engine))[-1].reason is FinishReason.ABORTED


def test_text_only_replies_make_no_sound() -> None:
    outputs = respond(opened(ScriptedEngine([ScriptedReply("Yes. It is.")])), RespondOptions(audio=False))
    assert events(outputs) == [
        TextDelta("r", "Yes. "),
        TextDelta("r", "It is."),
        ResponseFinished("r", FinishReason.STOP, None, Usage(0, 0, 3)),
    ]
    assert len(outputs) == 3


def test_the_token_limit_cuts_and_speaks_what_is_left() -> None:
    outputs = events(
        respond(opened(ScriptedEngine([ScriptedReply("one two three.", (("get_time", "{}"),))])), RespondOptions(max_output_tokens=2))
    )
    assert outputs[:2] == [TextDelta("r", "one two "), AudioReady("r", 0, 2880, 8, (WordMark(4, 1440), WordMark(8, 2880)), True)]
    assert outputs[2:] == [ResponseFinished("r", FinishReason.LENGTH, None, Usage(0, 0, 2, 2))]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ["Wait.", ("get_time", "{}"), ("get_weather", '{"city": "Bern"}'), FinishReason.TOOL_CALLS]),
        ("none", ["Wait.", FinishReason.STOP]),
        ("required", [("get_time", "{}"), ("get_weather", '{"city": "Bern"}'), FinishReason.TOOL_CALLS]),
        ("get_weather", [("get_weather", '{"city": "Bern"}'), FinishReason.TOOL_CALLS]),
        ("other", [("other", "{}"), FinishReason.TOOL_CALLS]),
    ],
)
def test_tool_choice(choice: str, expected: list[object]) -> None:
    reply = ScriptedReply("Wait.", (("get_time", "{}"), ("get_weather", json.dumps({"city": "Bern"}))))
    outputs = respond(opened(ScriptedEngine([reply])), RespondOptions(audio=False, tools=TOOLS, tool_choice=choice))
    seen: list[object] = []
    for event in events(outputs):
        match event:
            case TextDelta(_, text):
                seen.append(text)
            case ToolCallReady(_, index, name, arguments):
                assert index == sum(isinstance(each, tuple) for each in seen)
                seen.append((name, arguments))
            case ResponseFinished(_, reason):
                seen.append(reason)
    assert seen == expected


def test_required_without_a_scripted_call_takes_the_first_tool() -> None:
    outputs = events(respond(opened(ScriptedEngine()), RespondOptions(tools=TOOLS, tool_choice="required")))
    assert outputs[0] == ToolCallReady("r", 0, "get_weather", "{}")


def test_a_failing_reply_ends_in_error() -> None:
    outputs = events(respond(opened(ScriptedEngine([ScriptedReply("Well", error="out of memory")]))))
    assert outputs[-1] == ResponseFinished("r", FinishReason.ERROR, "out of memory", Usage(0, 0, 1, 1))


def test_say_speaks_fixed_words_and_uses_no_script() -> None:
    engine = opened(ScriptedEngine([ScriptedReply("Scripted.")]))
    engine.order("s", Say("g", "Hello there.", RespondOptions()))
    said = events(run(engine))
    assert said[0] == TextDelta("g", "Hello there.")
    assert engine.contexts == []
    assert TextDelta("r", "Scripted.") in events(respond(engine))


def test_say_goes_on_where_more_is_to_come() -> None:
    engine = opened(ScriptedEngine())
    engine.order("s", Say("g", "Well, ", RespondOptions(), more=True))
    said = events(run(engine))
    assert (said[0], engine.busy()) == (TextDelta("g", "Well, "), False)
    engine.order("s", Say("g", "here it is.", RespondOptions()))
    said += events(run(engine))
    marks = [word for event in said if isinstance(event, AudioReady) for word in event.words]
    assert [mark.text_end for mark in marks] == [6, 11, 14, 17]
    assert isinstance(said[-1], ResponseFinished)


# ------------------------------------------------------------------------------------------------------ what it was told


def test_contexts_hold_the_history_with_transcripts_filled_in() -> None:
    engine = opened(ScriptedEngine(transcripts=["Good morning."]))
    engine.order("s", CommitTurn("u1", 0, WINDOW))
    engine.order("s", SetHistory((ContextMessage("system", "i", "Be brief."), ContextMessage("user", "u1", None))))
    outputs = events(respond(engine))
    assert engine.contexts == [(ContextMessage("system", "i", "Be brief."), ContextMessage("user", "u1", "Good morning."))]
    assert outputs[-1] == ResponseFinished("r", FinishReason.STOP, None, Usage(4, 0, 4, 4))
    respond(engine, RespondOptions(context=()), "r2")
    assert engine.contexts[1] == ()


def test_replies_may_depend_on_what_the_model_is_told() -> None:
    engine = opened(ScriptedEngine(lambda context: ScriptedReply(f"I heard {context[-1].text}")))
    engine.order("s", SetHistory((ContextMessage("user", "u1", "a bell"),)))
    assert "".join(event.text for event in events(respond(engine)) if isinstance(event, TextDelta)) == "I heard a bell"


def test_a_speculation_leaves_a_trace_only_when_adopted() -> None:
    engine = opened(ScriptedEngine([ScriptedReply("Kept.")]))
    engine.order("s", Speculate("a", "i", "Hello.", RespondOptions()))
    engine.order("s", Drop("a"))
    engine.order("s", Adopt("a"))
    engine.order("s", Speculate("b", "i", "Hello.", RespondOptions()))
    assert run(engine) == []
    assert engine.contexts == []
    engine.order("s", Adopt("b"))
    assert TextDelta("b", "Kept.") in events(run(engine))


def test_sessions_take_turns_and_each_has_its_own_script() -> None:
    engine = ScriptedEngine([ScriptedReply("one two three four")], words_per_step=1)
    for session in ("s", "t"):
        engine.open(session, SessionSpec())
        engine.order(session, Respond("r", RespondOptions(audio=False)))
    outputs = run(engine)
    assert [output.session_id for output in outputs][:4] == ["s", "t", "s", "t"]
    assert events(outputs, "s") == events(outputs, "t")


def test_a_closed_session_is_ignored() -> None:
    engine = opened(ScriptedEngine(words_per_step=1))
    engine.order("s", Respond("r", RespondOptions()))
    engine.step()
    engine.close("s")
    engine.feed("s", AudioFrame(sound(2, loud=True), 0))
    engine.order("s", Respond("r2", RespondOptions()))
    assert run(engine) == []


def test_what_is_remembered_is_bounded() -> None:
    engine = opened(ScriptedEngine())
    for number in range(1_100):
        respond(engine, RespondOptions(audio=False), f"r{number}")
    assert (len(engine.contexts), len(engine.orders)) == (1_000, 1_000)
    assert engine.orders[-1] == ("s", Respond("r1099", RespondOptions(audio=False)))


def test_a_knob_must_be_positive() -> None:
    for knob in ("words_per_step", "chunk_ms"):
        with pytest.raises(ValueError, match="must be positive"):
            ScriptedEngine(**{knob: 0})
