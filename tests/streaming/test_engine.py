"""The engine on the real pocket models, its lanes inline: what goes in decides what comes out, call by call."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming.audio import AudioFrame, Samples
from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    Abort,
    AudioReady,
    CommitTurn,
    ContextMessage,
    DiscardTurn,
    EngineEvent,
    EngineFailed,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
)
from streaming.load import EngineFiles, load_parts

pytestmark = pytest.mark.models

WEATHER = Path(__file__).parents[1] / "golden" / "weather_question.flac"
TOOL = ToolSpec(
    "get_weather", "Weather in a city", json.dumps({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
)


@pytest.fixture(scope="module")
def models(pocket: EngineFiles) -> Parts:
    return load_parts(pocket)


@dataclass
class Call:
    """One session and everything that came of it."""

    engine: SpeechEngine
    outputs: list[EngineOutput] = field(default_factory=list)
    at: int = 0

    @property
    def events(self) -> list[EngineEvent]:
        return [output.event for output in self.outputs if isinstance(output, SessionEvent)]

    def of(self, kind: type) -> list[EngineEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    def order(self, *orders: object) -> "Call":
        for order in orders:
            self.engine.order("s", order)
        return self

    def steps(self, most: int = 10_000) -> "Call":
        for _ in range(most):
            if not self.engine.busy():
                return self
            self.outputs += self.engine.step()
        return self

    def hear(self, pcm: Samples, piece: int = 320) -> "Call":
        """Feeds sound, and does as the conversation would: a turn starts where speech does."""
        for start in range(0, len(pcm), piece):
            seen = len(self.events)
            self.engine.feed("s", AudioFrame(pcm[start : start + piece], self.at))
            self.at += len(pcm[start : start + piece])
            self.steps()
            for event in self.events[seen:]:
                if isinstance(event, SpeechStarted) and len(self.of(SpeechStarted)) == 1:
                    self.order(StartTurn("item_1", max(0, event.at - 4_800))).steps()
        return self

    def text(self, response_id: str) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta) and event.response_id == response_id)


@pytest.fixture
def call(models: Parts) -> Iterator[Call]:
    engine = SpeechEngine(models, threaded=False)
    engine.open("s", SessionSpec(seed=7))
    yield Call(engine)
    engine.close("s")


@pytest.fixture(scope="module")
def question() -> Samples:
    pcm, rate = soundfile.read(WEATHER, dtype="float32")
    assert rate == 16_000
    silence = np.zeros(8_000, np.float32)
    return np.concatenate((silence, pcm, silence, silence))


def test_a_spoken_question_is_transcribed_and_answered_in_speech(call: Call, question: Samples) -> None:
    call.hear(question)
    stopped = call.of(SpeechStopped)[-1]
    assert isinstance(stopped, SpeechStopped)
    call.order(CommitTurn("item_1", 0, stopped.at + 4_800), SetHistory((ContextMessage("user", "item_1", None),)))
    call.order(Respond("r", RespondOptions(rate=24_000))).steps()

    (done,) = call.of(TranscriptDone)
    assert isinstance(done, TranscriptDone)
    assert done.text == "What is the weather in Paris?"
    told = "".join(event.text for event in call.of(TranscriptDelta) if isinstance(event, TranscriptDelta))
    assert told
    assert done.text.lower().startswith(told.lower())

    clauses = [event for event in call.of(AudioReady) if isinstance(event, AudioReady)]
    assert [clause.start for clause in clauses] == [0, *(clause.start + clause.samples for clause in clauses)][:-1]
    assert clauses[-1].text_end == len(call.text("r"))
    marks = [word for clause in clauses for word in clause.words]
    assert all(before.end <= after.end and before.text_end < after.text_end for before, after in pairwise(marks))
    assert (
        sum(len(output.pcm) for output in call.outputs if isinstance(output, SynthesisedAudio)) == clauses[-1].start + clauses[-1].samples
    )
    finished = call.events[-1]
    assert isinstance(finished, ResponseFinished)
    assert (finished.reason, finished.error) == (FinishReason.STOP, None)


def test_settled_words_are_prefilled_while_the_caller_speaks(call: Call, question: Samples) -> None:
    call.hear(question[:38_000])
    tokens = call.engine._sessions["s"].sequence.tokens
    text = call.engine._tools.writer.model.decode(tokens)
    assert text.endswith("user\nWhat is")


@pytest.mark.parametrize("piece", [160, 4_800, 48_000])
def test_any_split_of_the_sound_gives_the_same_events(models: Parts, question: Samples, piece: int) -> None:
    def heard(size: int) -> list[tuple[str, int | str]]:
        engine = SpeechEngine(models, threaded=False)
        engine.open("s", SessionSpec())
        call = Call(engine).hear(question, size)
        call.order(CommitTurn("item_1", 0, 44_000)).steps()
        # Confidence is left out: how many tokens a bfloat16 run takes at once shows in its fourth decimal.
        found: list[tuple[str, int | str]] = []
        for event in call.events:
            match event:
                case SpeechStarted(at) | SpeechStopped(at):
                    found.append((type(event).__name__, at))
                case TranscriptDone(text=text):
                    found.append(("TranscriptDone", text))
        return found

    assert heard(piece) == heard(320)


def test_an_abort_ends_the_reply_and_nothing_follows(call: Call) -> None:
    call.order(SetHistory((ContextMessage("user", "i", "Tell me a story about a dog."),)), Respond("r", RespondOptions()))
    call.steps(8)
    assert call.text("r")
    call.order(Abort("r")).steps()
    assert call.events[-1] == ResponseFinished("r", FinishReason.ABORTED, None, call.events[-1].usage)  # type: ignore[union-attr]
    seen = len(call.outputs)
    call.order(Abort("r")).steps()
    assert len(call.outputs) == seen


def test_the_model_believes_what_was_heard_and_no_more(call: Call) -> None:
    question = ContextMessage("user", "i", "Tell me about dogs.")
    call.order(SetHistory((question,)), Respond("r1", RespondOptions(audio=False))).steps()
    cut = ContextMessage("assistant", "a", call.text("r1")[:5].strip(), complete=False)
    call.order(SetHistory((question, cut, ContextMessage("user", "j", "And cats?"))), Respond("r2", RespondOptions(audio=False)))
    call.steps(1)
    held = call.engine._tools.writer.model.decode(call.engine._sessions["s"].sequence.tokens)
    assert f"assistant\n{cut.text}\nuser\nAnd cats?\nassistant\n" in held
    assert call.text("r1") not in held
    call.steps()


def test_a_reply_with_its_own_context_leaves_the_conversation_alone(call: Call) -> None:
    call.order(SetHistory((ContextMessage("user", "i", "My name is Ada."),))).steps()
    before = list(call.engine._sessions["s"].sequence.tokens)
    own = (ContextMessage("user", "k", "Say yes."),)
    call.order(Respond("oob", RespondOptions(audio=False, context=own, max_output_tokens=4))).steps()
    assert call.engine._sessions["s"].sequence.tokens == before
    finished = call.events[-1]
    assert isinstance(finished, ResponseFinished)
    assert finished.response_id == "oob"


def test_a_limit_on_tokens_is_kept_and_said(call: Call) -> None:
    history = SetHistory((ContextMessage("user", "i", "Tell me a long story."),))
    call.order(history, Respond("r", RespondOptions(audio=False, max_output_tokens=5))).steps()
    finished = call.events[-1]
    assert isinstance(finished, ResponseFinished)
    assert (finished.reason, finished.usage.output_tokens) == (FinishReason.LENGTH, 5)


def test_a_forced_function_gets_arguments_that_follow_its_schema(call: Call) -> None:
    call.order(SetHistory((ContextMessage("user", "i", "What is the weather in Paris?"),)))
    call.order(Respond("r", RespondOptions(tools=(TOOL,), tool_choice="get_weather"))).steps()
    (ready,) = call.of(ToolCallReady)
    assert isinstance(ready, ToolCallReady)
    arguments = json.loads(ready.arguments)
    assert list(arguments) == ["city"]
    assert "Paris" in arguments["city"]
    finished = call.events[-1]
    assert isinstance(finished, ResponseFinished)
    assert finished.reason is FinishReason.TOOL_CALLS


def test_fixed_words_are_spoken_as_they_are(call: Call) -> None:
    call.order(Say("r", "Are you still there?", RespondOptions(rate=8_000))).steps()
    assert call.text("r") == "Are you still there?"
    assert call.events[-1] == ResponseFinished("r", FinishReason.STOP)


def test_words_from_elsewhere_are_spoken_as_they_come(call: Call) -> None:
    call.order(Say("r", "Are you", RespondOptions(rate=8_000), more=True)).steps()
    spoken = call.of(AudioReady)
    assert spoken[-1].text_end == len("Are you")
    call.order(Say("r", " still there?", RespondOptions(rate=8_000))).steps()
    assert call.text("r") == "Are you still there?"
    last = call.of(AudioReady)[-1]
    assert (last.text_end, last.start > spoken[-1].start) == (len("Are you still there?"), True)
    assert call.events[-1] == ResponseFinished("r", FinishReason.STOP)
    call.order(Say("s", "Once", RespondOptions(), more=True), Abort("s")).steps()
    assert call.events[-1] == ResponseFinished("s", FinishReason.ABORTED)


def test_a_prompt_beyond_the_context_ends_the_reply_not_the_session(call: Call) -> None:
    endless = "word " * 6_000
    call.order(SetHistory((ContextMessage("system", "", endless),)), Respond("r", RespondOptions(audio=False))).steps()
    assert isinstance(call.events[-1], ResponseFinished)
    assert call.events[-1].reason is FinishReason.ERROR
    assert "positions of a session" in (call.events[-1].error or "")
    call.order(SetHistory(()), Say("s2", "Hello.", RespondOptions())).steps()
    assert call.events[-1] == ResponseFinished("s2", FinishReason.STOP)


def test_a_turn_that_is_discarded_is_not_transcribed(call: Call, question: Samples) -> None:
    call.hear(question[:30_000]).order(DiscardTurn(30_000)).steps()
    call.order(CommitTurn("item_2", 0, 3_200)).steps()
    (done,) = call.of(TranscriptDone)
    assert replace(done, speech=0.0) == TranscriptDone("item_2", "", 0.0, "en", 0.0)
    assert done.speech < 0.1


def test_a_session_that_fails_is_told_and_takes_no_other_with_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BufferError("24 windows of sound wait for a pass")

    call.engine.open("other", SessionSpec())
    with monkeypatch.context() as patch:
        patch.setattr("streaming.hearing.Turn.commit", fail)
        call.order(CommitTurn("item_1", 0, 16_000)).steps()
    assert call.events == [EngineFailed("BufferError: 24 windows of sound wait for a pass")]
    call.engine.order("other", Say("r", "Hello.", RespondOptions()))
    call.steps()
    assert call.events[-1] == ResponseFinished("r", FinishReason.STOP)
    call.engine.close("other")


def test_a_session_that_has_closed_is_forgotten(models: Parts) -> None:
    engine = SpeechEngine(models, threaded=False)
    engine.open("s", SessionSpec())
    call = Call(engine).order(SetHistory((ContextMessage("user", "i", "Hello."),)), Respond("r", RespondOptions())).steps(3)
    engine.close("s")
    call.steps()
    assert not engine.busy()
    engine.feed("s", AudioFrame(np.zeros(320, np.float32), 0))
    call.order(Abort("r")).steps()
    assert not engine.busy()
