"""Whatever fails, fails alone; whatever ends, ends once and leaves nothing behind; whoever asks for much, waits for it himself."""

import gc
import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import Samples
from streaming.batching import Station
from streaming.decoder import LlamaLanguageModel, Prompt, TokenSequence
from streaming.ear import Ears
from streaming.encoder import Encode, EncoderStation
from streaming.engine import Parts
from streaming.events import (
    Abort,
    Adopt,
    CommitTurn,
    ContextMessage,
    DiscardTurn,
    Drop,
    EngineFailed,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SetHistory,
    Speculate,
    SpeechStarted,
    StartTurn,
    TextDelta,
    ToolSpec,
    TranscriptDone,
    TranscriptProvisional,
)
from streaming.recogniser import Recogniser
from streaming.tts import Speech
from streaming.vad import VadState


@dataclass
class Poisoned:
    """The language model, whose batches fail, or give what is no number, for one sequence, and leave such keys and values behind."""

    model: LlamaLanguageModel
    error: Exception | None = None
    victim: TokenSequence | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def sync(self, sequence: TokenSequence, prompt: Prompt) -> object:
        return self._mine(self.model.sync(sequence, prompt))

    def append(self, sequence: TokenSequence, token: int) -> object:
        return self._mine(self.model.append(sequence, token))

    def _mine(self, work):
        for call in work:
            call.station = self
            yield call

    def run(self, calls) -> None:
        if self.error is not None and any(call.sequence is self.victim for call in calls):
            cache = self.victim.cache
            cache.restore([torch.full_like(layer, torch.nan) for layer in cache.snapshot(cache.capacity)])
            raise self.error
        self.model.run(calls)
        for call in calls:
            if call.sequence is self.victim and call.sequence.logits is not None:
                call.sequence.logits.fill_(float("nan"))


@pytest.mark.parametrize("kind", ["tiny_parts", "slotted_parts"])
@pytest.mark.parametrize(
    ("error", "words"), [(None, "not finite"), (MemoryError("no room"), "no room"), (RuntimeError("a kernel broke"), "kernel")]
)
def test_what_fails_for_one_session_fails_alone_and_it_recovers(
    talk, request: pytest.FixtureRequest, kind: str, error: Exception | None, words: str
) -> None:
    parts = request.getfixturevalue(kind)
    writer = parts.writer
    poisoned = Poisoned(writer.model, error)
    dialogue = talk(replace(parts, writer=type(writer)(poisoned, writer.template, writer.sampling)))
    dialogue.open("s", "t")
    for session in ("s", "t"):
        dialogue.engine.order(session, SetHistory((ContextMessage("user", "i", "Hello."),)))
    dialogue.steps()
    poisoned.victim = dialogue.sequence("s")
    for session in ("s", "t"):
        dialogue.engine.order(session, Respond("r", talk.brief))
    dialogue.steps()
    (failed,) = dialogue.told("s", "r")
    assert isinstance(failed, ResponseFinished)
    assert failed.reason is FinishReason.ERROR
    assert words in (failed.error or "")
    (fine,) = [event for event in dialogue.told("t", "r") if isinstance(event, ResponseFinished)]
    assert fine.reason is not FinishReason.ERROR
    poisoned.victim = None
    dialogue.engine.order("s", Respond("again", talk.brief))
    dialogue.steps()
    assert [event for event in dialogue.told("s", "again") if isinstance(event, TextDelta)]


@settings(deadline=None, max_examples=20)
@given(steps=st.lists(st.integers(0, 12), min_size=6, max_size=6), closing=st.booleans(), seed=st.integers(0, 5))
def test_an_abort_or_a_close_at_any_step_ends_each_reply_once_and_hurts_nobody(
    talk, tiny_parts: Parts, steps: list[int], closing: bool, seed: int
) -> None:
    dialogue = talk(tiny_parts)
    dialogue.open("s", "t")
    dialogue.engine.order("t", SetHistory((ContextMessage("user", "i", "Hello."),)))
    dialogue.engine.order("t", Respond("r", talk.brief))
    orders = [
        StartTurn("i", 0), Speculate("p", "i", "Hello.", talk.brief), Drop("p"), CommitTurn("i", 0, 30_000),
        SetHistory((ContextMessage("user", "i", None),)), Respond("r", talk.brief), Abort("r"),
        Say("w", "One two three.", talk.brief), Abort("w"),
        StartTurn("j", 30_000), DiscardTurn(40_000), Abort("r"), Adopt("p"),
    ]  # fmt: skip
    pcm = talk.turn(seed, words=2)
    for number, order in enumerate(orders):
        dialogue.engine.order("s", order)
        dialogue.feed("s", pcm[number * 1_600 : (number + 1) * 1_600])
        dialogue.steps(steps[number % len(steps)])
    if closing:
        dialogue.engine.close("s")
    dialogue.steps()
    ends = [event.response_id for event in dialogue.events["s"] if isinstance(event, ResponseFinished)]
    assert len(ends) == len(set(ends))
    assert closing or set(ends) == {"p", "r", "w"}
    (fine,) = [event for event in dialogue.told("t", "r") if isinstance(event, ResponseFinished)]
    assert fine.reason in (FinishReason.STOP, FinishReason.LENGTH)


# ------------------------------------------------------------------------------------------------------------- ends

LONG = ContextMessage("user", "long", "What is the weather in Paris today? " * 12)


def test_an_abort_at_any_step_of_a_reply_ends_it_once(talk, tiny_parts: Parts) -> None:
    for step in range(60):
        dialogue = talk(tiny_parts)
        dialogue.open("s")
        dialogue.engine.order("s", SetHistory((ContextMessage("user", "i", "Hello."),)))
        dialogue.engine.order("s", Respond("r", talk.brief))
        dialogue.steps(step)
        dialogue.engine.order("s", Abort("r"))
        dialogue.steps()
        assert sum(isinstance(event, ResponseFinished) for event in dialogue.told("s", "r")) == 1


def test_a_session_closed_at_any_step_leaves_nothing_in_memory(talk, tiny_parts: Parts) -> None:
    """Without the garbage collector, which frozen processes run rarely: keys, values and slots are free at once."""
    pcm, step, told = talk.turn(2), 0, False
    gc.disable()
    try:
        while not told:  # the last time the reply has just ended
            dialogue = talk(tiny_parts)
            dialogue.open("s", "t")
            dialogue.steps()
            dialogue.engine.order("s", SetHistory((LONG,)))
            dialogue.engine.order("s", StartTurn("i", 0))
            dialogue.feed("s", pcm)
            dialogue.steps(step // 2)
            dialogue.commit("s", "i", 0)
            dialogue.engine.order("s", StartTurn("j", len(pcm)))
            dialogue.feed("s", pcm)
            dialogue.engine.order("s", Respond("r", talk.brief))
            dialogue.steps(step)
            told = any(isinstance(event, ResponseFinished) for event in dialogue.told("s", "r"))
            session, sequence = weakref.ref(dialogue.engine._sessions["s"]), weakref.ref(dialogue.sequence("s"))
            dialogue.engine.close("s")
            dialogue.steps()
            assert (session(), sequence()) == (None, None), step
            step += 1
    finally:
        gc.enable()


def test_memory_given_up_by_an_idle_session_is_not_filled_again(talk, tiny_parts: Parts) -> None:
    dialogue = talk(tiny_parts, kv_bytes=1)
    dialogue.open("s")
    dialogue.engine.order("s", SetHistory((LONG,)))
    assert dialogue.steps(100) < 100
    assert dialogue.sequence("s").cache.bytes == 0


# ------------------------------------------------------------------------------------------------- a pass taken over


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[Encode]:
    """Every call to the encoder, as it was made."""
    made: list[Encode] = []
    run = EncoderStation.run

    def note(station: EncoderStation, calls: Sequence[Encode]) -> None:
        made.extend(calls)
        run(station, calls)

    monkeypatch.setattr(EncoderStation, "run", note)
    return made


@pytest.mark.parametrize("steps", range(1, 4))
@pytest.mark.parametrize("kind", [EncoderStation, Recogniser])
def test_a_pass_that_fails_after_the_turn_has_ended_costs_no_words(
    talk, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch, steps: int, kind: type[Station]
) -> None:
    failures = []

    def transcript(fails: bool) -> str:
        dialogue = talk(tiny_parts)
        dialogue.open("s")
        dialogue.engine.order("s", StartTurn("i", 0))
        dialogue.feed("s", (np.random.default_rng(1).standard_normal(160_000) * 0.1).astype(np.float32))
        dialogue.steps(steps)
        dialogue.commit("s", "i", 0)
        with monkeypatch.context() as patch:
            if fails:
                run = kind.run

                def fail(*_: object) -> None:
                    patch.setattr(kind, "run", run)
                    failures.append(kind)
                    raise MemoryError("no room")

                patch.setattr(kind, "run", fail)
            dialogue.steps()
        (done,) = [event for event in dialogue.events["s"] if isinstance(event, TranscriptDone)]
        return done.text

    assert transcript(fails=True) == transcript(fails=False)
    assert failures == [kind]


def test_a_pass_that_has_not_begun_when_the_turn_ends_is_not_made(talk, tiny_parts: Parts, encodes: list[Encode]) -> None:
    dialogue = talk(tiny_parts)
    dialogue.open("s", "t")
    dialogue.engine.order("t", SetHistory((LONG,)))
    dialogue.engine.order("t", Respond("r", talk.brief))
    dialogue.engine.order("s", StartTurn("i", 0))
    pcm = talk.turn(1)
    dialogue.feed("s", pcm[:24_000])
    dialogue.steps(2)
    assert not encodes
    dialogue.feed("s", pcm[24_000:40_000])
    dialogue.commit("s", "i", 0)
    dialogue.steps()
    assert len(encodes) == 1


# ------------------------------------------------------------------------------------------------------ what is a share

SCHEMA = {"type": "object", "properties": {name: {"type": "string", "minLength": 90} for name in "abc"}, "required": [*"abc"]}
TOOL = ToolSpec("order", "", json.dumps(SCHEMA))


@pytest.mark.parametrize(
    "options",
    [
        RespondOptions(audio=False, max_output_tokens=300),
        RespondOptions(tools=(TOOL,), tool_choice="required"),
    ],
)
def test_a_reply_that_nobody_hears_does_not_keep_the_engine_from_listening(talk, tiny_parts: Parts, options: RespondOptions) -> None:
    dialogue = talk(tiny_parts)
    dialogue.open("s", "t")
    dialogue.engine.order("t", SetHistory((ContextMessage("user", "i", "Hello."),)))
    dialogue.engine.order("t", Respond("r", options))
    dialogue.steps(4)
    dialogue.engine.order("s", StartTurn("i", 0))
    dialogue.feed("s", talk.turn(1))
    while not any(isinstance(event, TranscriptProvisional) for event in dialogue.events["s"]):
        assert dialogue.steps(1)
    assert not any(isinstance(event, ResponseFinished) for event in dialogue.told("t", "r"))


def test_a_burst_of_one_caller_does_not_deafen_the_others(talk, tiny_parts: Parts) -> None:
    """Sound that comes while 3 s of somebody else's wait is judged with their next window."""

    class Interrupted(type(tiny_parts.vad)):
        rows: ClassVar[list[int]] = []

        def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
            self.rows.append(len(windows))
            if len(self.rows) == 3:
                dialogue.feed("t", np.zeros(512, np.float32))
            return super().step(windows, states)

    dialogue = talk(replace(tiny_parts, vad=Interrupted()))
    dialogue.open("s", "t")
    dialogue.feed("s", np.zeros(48_000, np.float32))
    assert Interrupted.rows[2:5] == [1, 2, 1]


def test_many_frames_that_wait_are_heard_in_as_few_runs(talk, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame asks for the Ears, who come once for all that have asked."""
    runs = []
    judge = Ears.judge
    monkeypatch.setattr(Ears, "judge", lambda ears: (runs.append(ears), judge(ears))[1])

    class Interrupted(type(tiny_parts.vad)):
        fed = False

        def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
            for _ in range(0 if self.fed else 160):
                self.fed = True
                dialogue.feed("t", np.zeros(32, np.float32))
            return super().step(windows, states)

    dialogue = talk(replace(tiny_parts, vad=Interrupted()))
    dialogue.open("s", "t")
    dialogue.feed("s", np.zeros(4 * 512, np.float32))
    assert len(runs) <= 1 + 10 + 1


def test_a_reply_whose_voice_has_failed_ends(talk, tiny_parts: Parts) -> None:
    class Hoarse:
        def speak(self, *_: object, **__: object) -> Iterator[Speech]:
            raise RuntimeError("no breath")

    def end(parts: Parts) -> ResponseFinished:
        dialogue = talk(parts)
        dialogue.open("s")
        dialogue.engine.order("s", SetHistory((ContextMessage("user", "i", "Hello."),)))
        dialogue.engine.order("s", Respond("r", RespondOptions(max_output_tokens=400)))
        dialogue.steps()
        (end,) = [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
        return end

    failed = end(replace(tiny_parts, voice=Hoarse()))
    assert failed.reason is FinishReason.ERROR
    assert "no breath" in (failed.error or "")
    assert failed.usage.output_tokens < end(tiny_parts).usage.output_tokens


def test_a_session_that_cannot_be_heard_is_told_and_the_others_are_heard(talk, tiny_parts: Parts) -> None:
    class Picky(type(tiny_parts.vad)):
        def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
            if windows.max() > 0.9:
                raise RuntimeError("too loud")
            return super().step(windows, states)

    dialogue = talk(replace(tiny_parts, vad=Picky()))
    dialogue.open("s", "t")
    for level, session in ((1.0, "s"), (0.5, "t")):
        dialogue.feed(session, np.full(4_096, level, np.float32))
    dialogue.steps()
    assert dialogue.events["s"] == [EngineFailed("RuntimeError: too loud")]
    assert any(isinstance(event, SpeechStarted) for event in dialogue.events["t"])


def test_a_reply_that_waits_for_words_gets_them_though_the_history_is_set_anew_meanwhile(talk, tiny_parts: Parts) -> None:
    plain, edited = talk(tiny_parts), talk(tiny_parts)
    for dialogue in (plain, edited):
        dialogue.open("s")
        dialogue.speak("s", "i", talk.turn(1), [])
        dialogue.commit("s", "i", 0)
        dialogue.engine.order("s", Respond("r", dialogue.brief))
        if dialogue is edited:
            dialogue.engine.order("s", SetHistory(dialogue.history["s"]))
        dialogue.steps()
    assert edited.told("s", "r") == plain.told("s", "r")
