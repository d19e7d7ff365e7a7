"""What is always true of the engine, on tiny float32 models: batched equals alone, any split equals any other, a dropped speculation leaves
no trace, and whatever fails fails alone."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import AudioFrame, Samples
from streaming.batching import completed
from streaming.decoder import Extend, LlamaLanguageModel, Prompt, Segment, TokenSequence
from streaming.doors import EngineLoad, SessionEvent, SynthesisedAudio
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ContextMessage,
    DiscardTurn,
    Drop,
    EngineEvent,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    SpeechStarted,
    StartTurn,
    TextDelta,
    ToolCallReady,
    TranscriptDone,
    TranscriptProvisional,
)

BRIEF = RespondOptions(max_output_tokens=24)


def turn(seed: int, words: int = 3) -> Samples:
    """Bursts of noise with short pauses between them, then a long one."""
    noise = np.random.default_rng(seed)
    parts = [np.zeros(2_048, np.float32)]
    for _ in range(words):
        parts += [(noise.standard_normal(512 * int(noise.integers(8, 40))) * 0.1).astype(np.float32), np.zeros(512 * 5, np.float32)]
    return np.concatenate([*parts, np.zeros(512 * 12, np.float32)])


@dataclass
class Dialogue:
    """One engine and what came of each of its sessions; behaves as the conversation would."""

    parts: Parts
    speculate: bool = False
    engine: SpeechEngine = field(init=False)
    events: dict[str, list[EngineEvent]] = field(default_factory=dict)
    sound: dict[str, list[int]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)
    history: dict[str, tuple[ContextMessage, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = SpeechEngine(self.parts, threaded=False, clock=lambda: 0.0)

    def open(self, *sessions: str) -> None:
        for session in sessions:
            self.engine.open(session, SessionSpec(seed=5))
            self.events[session], self.sound[session], self.at[session], self.history[session] = [], [], 0, ()

    def steps(self, most: int = 100_000) -> None:
        for _ in range(most):
            if not self.engine.busy():
                return
            for output in self.engine.step():
                if isinstance(output, SynthesisedAudio):
                    self.sound[output.session_id] += output.pcm.tolist()
                elif not isinstance(output, EngineLoad):
                    self._take(output)

    def _take(self, output: SessionEvent) -> None:
        session, event = output.session_id, output.event
        self.events[session].append(event)
        if isinstance(event, SpeechStarted) and session in self.prepared:
            self.engine.order(session, Drop(self.prepared.pop(session)))
        if isinstance(event, TranscriptProvisional) and event.text and self.speculate:
            response_id = f"speculation {len(self.events[session])}"
            self.prepared[session] = response_id
            self.engine.order(session, Speculate(response_id, event.item_id, event.text, BRIEF))

    def feed(self, session: str, pcm: Samples) -> None:
        self.engine.feed(session, AudioFrame(pcm, self.at[session]))
        self.at[session] += len(pcm)

    def speak(self, session: str, item: str, pcm: Samples, cuts: list[int]) -> None:
        start = self.at[session]
        self.engine.order(session, StartTurn(item, start))
        for part in np.split(pcm, sorted(cut % len(pcm) for cut in cuts)):
            self.feed(session, part)
            self.steps()

    def commit(self, session: str, item: str, start: int) -> None:
        if (response_id := self.prepared.pop(session, None)) is not None:
            self.engine.order(session, Drop(response_id))
        self.engine.order(session, CommitTurn(item, start, self.at[session]))
        self.history[session] += (ContextMessage("user", item, None),)
        self.engine.order(session, SetHistory(self.history[session]))

    def ask(self, session: str, item: str, pcm: Samples, cuts: list[int], response_id: str) -> None:
        start = self.at[session]
        self.speak(session, item, pcm, cuts)
        self.commit(session, item, start)
        self.engine.order(session, Respond(response_id, BRIEF))
        self.steps()

    def told(self, session: str, response_id: str) -> list[EngineEvent]:
        return [event for event in self.events[session] if getattr(event, "response_id", "") == response_id]

    def transcripts(self, session: str) -> list[str]:
        return [event.text for event in self.events[session] if isinstance(event, TranscriptDone)]

    def sequence(self, session: str) -> TokenSequence:
        return self.engine._sessions[session].sequence


# --------------------------------------------------------------------------------------------------------- the ledger

_TOKENS = st.lists(st.integers(3, 299), min_size=18, max_size=90)
_CHANGES = st.lists(
    st.tuples(st.sampled_from(("sync", "append", "rewind", "evict", "abandon")), _TOKENS, st.integers(0, 200)), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=40)
@given(changes=_CHANGES, shared=st.integers(0, 18))
def test_after_any_history_the_next_logits_are_those_of_a_fresh_prefill(
    tiny_language_model: LlamaLanguageModel, changes: list[tuple[str, list[int], int]], shared: int
) -> None:
    model = tiny_language_model
    sequence = model.sequence()
    alike = [7] * shared
    for change, tokens, number in changes:
        prompt = Prompt([*alike, *tokens], (Segment("system", "", shared),))
        match change:
            case "sync":
                completed(model.sync(sequence, prompt))
            case "append" if len(sequence.tokens) < 200:
                completed(model.append(sequence, tokens[0]))
            case "rewind":
                sequence.rewind(number)
            case "evict":
                sequence.evict()
                assert sequence.cache.bytes == 0
            case "abandon":
                work = model.sync(sequence, prompt)
                for _, call in zip(range(number % 3), work, strict=False):
                    call.station.run([call])
                work.close()
    expected, fresh = model.sequence(), [*sequence.tokens, 9]
    completed(model.sync(expected, Prompt(fresh)))
    completed(model.append(sequence, 9))
    assert sequence.tokens == fresh
    assert expected.logits is not None
    torch.testing.assert_close(sequence.logits, expected.logits, atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(held=st.lists(_TOKENS, min_size=2, max_size=5), new=st.lists(st.integers(1, 12), min_size=5, max_size=5))
def test_a_batch_gives_each_sequence_what_it_gets_alone(
    tiny_language_model: LlamaLanguageModel, held: list[list[int]], new: list[int]
) -> None:
    model = tiny_language_model
    together, alone = ([model.sequence() for _ in held] for _ in range(2))
    for tokens, *pair in zip(held, together, alone, strict=True):
        for sequence in pair:
            completed(model.sync(sequence, Prompt(tokens)))
    calls = [Extend(model, sequence, tokens[:count], scored=True) for sequence, tokens, count in zip(together, held, new, strict=False)]
    model.run(calls)
    for sequence, call, other in zip(together, calls, alone, strict=True):
        model.run([Extend(model, other, call.tokens, scored=True)])
        assert sequence.tokens == other.tokens
        torch.testing.assert_close(sequence.logits, other.logits, atol=1e-4, rtol=1e-4)


def test_instructions_are_computed_once_for_all_sessions(tiny_language_model: LlamaLanguageModel) -> None:
    model, computed = tiny_language_model, []
    for number in range(3):
        prompt = Prompt([*range(100, 140), 5 + number], (Segment("system", "", 40), Segment("user", "i", 41)))
        for call in model.sync(model.sequence(), prompt):
            call.station.run([call])
            computed.append(call.rows)
    assert computed == [40, 1, 1, 1]


# --------------------------------------------------------------------------------------------------------- the engine

_CUTS = st.lists(st.integers(0, 80_000), max_size=30)


@settings(deadline=None, max_examples=5)
@given(cuts=_CUTS, seed=st.integers(0, 3))
def test_any_split_of_the_same_sound_commits_the_same_tokens(tiny_parts: Parts, cuts: list[int], seed: int) -> None:
    whole, split = Dialogue(tiny_parts), Dialogue(tiny_parts)
    for dialogue, places in ((whole, list(range(0, 80_000, 320))), (split, cuts)):
        dialogue.open("s")
        dialogue.ask("s", "i", turn(seed), places, "r")
    assert split.transcripts("s") == whole.transcripts("s")
    assert split.sequence("s").tokens == whole.sequence("s").tokens
    assert split.told("s", "r") == whole.told("s", "r")


@settings(deadline=None, max_examples=4)
@given(count=st.integers(2, 5), cuts=_CUTS, speculate=st.booleans())
def test_together_each_session_gets_what_it_gets_alone(tiny_parts: Parts, count: int, cuts: list[int], speculate: bool) -> None:
    names = [f"s{n}" for n in range(count)]
    together = Dialogue(tiny_parts, speculate)
    together.open(*names)
    pieces = {name: np.split(turn(n), sorted(cut % 20_000 for cut in cuts)) for n, name in enumerate(names)}
    for name in names:
        together.engine.order(name, StartTurn("i", 0))
    for round_of_pieces in zip(*pieces.values(), strict=True):
        for name, piece in zip(names, round_of_pieces, strict=True):
            together.feed(name, piece)
        together.steps()
    for name in names:
        together.commit(name, "i", 0)
        together.engine.order(name, Respond("r", BRIEF))
    together.steps()
    for number, name in enumerate(names):
        alone = Dialogue(tiny_parts)
        alone.open(name)
        alone.ask(name, "i", turn(number), cuts, "r")
        assert together.transcripts(name) == alone.transcripts(name)
        assert together.told(name, "r") == alone.told(name, "r")


@settings(deadline=None, max_examples=4)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=3), cuts=_CUTS)
def test_a_dropped_speculation_leaves_no_trace(tiny_parts: Parts, seeds: list[int], cuts: list[int]) -> None:
    plain, speculating = Dialogue(tiny_parts), Dialogue(tiny_parts, speculate=True)
    for dialogue in (plain, speculating):
        dialogue.open("s")
        for number, seed in enumerate(seeds):
            dialogue.ask("s", f"i{number}", turn(seed), cuts, f"r{number}")
    assert any(getattr(event, "response_id", "").startswith("speculation") for event in speculating.events["s"])
    assert speculating.sequence("s").tokens == plain.sequence("s").tokens
    assert speculating.transcripts("s") == plain.transcripts("s")
    for number in range(len(seeds)):
        assert _made(speculating.told("s", f"r{number}")) == _made(plain.told("s", f"r{number}"))
    assert not [event for event in speculating.events["s"] if isinstance(event, ToolCallReady)]
    ends = [event.response_id for event in speculating.events["s"] if isinstance(event, ResponseFinished)]
    assert len(ends) == len(set(ends))


def _made(events: list[EngineEvent]) -> list[EngineEvent]:
    """What of a reply matters: not how many of its prompt's tokens happened to be held."""
    return [
        replace(event, usage=replace(event.usage, cached_tokens=0)) if isinstance(event, ResponseFinished) else event for event in events
    ]


def test_an_adopted_speculation_is_the_reply_and_nothing_is_made_again(tiny_parts: Parts) -> None:
    plain = Dialogue(tiny_parts)
    plain.open("s")
    plain.ask("s", "i", turn(1), [], "r")

    early = Dialogue(tiny_parts)
    early.open("s")
    early.speak("s", "i", turn(1), list(range(0, 60_000, 320)))
    words = [event for event in early.events["s"] if isinstance(event, TranscriptProvisional)][-1]
    early.engine.order("s", Speculate("r", "i", words.text, BRIEF))
    early.steps()
    before = list(early.events["s"])
    assert any(isinstance(event, AudioReady) for event in early.told("s", "r"))
    early.engine.order("s", CommitTurn("i", 0, early.at["s"], words.text))
    early.engine.order("s", SetHistory((ContextMessage("user", "i", words.text),)))
    early.engine.order("s", Adopt("r"))
    early.steps()
    assert early.events["s"][: len(before)] == before
    assert not early.transcripts("s")
    assert _made(early.told("s", "r")) == _made(plain.told("s", "r"))
    assert early.sound == plain.sound


def test_a_speculation_stops_at_its_first_clause(tiny_parts: Parts) -> None:
    dialogue = Dialogue(tiny_parts)
    dialogue.open("s")
    dialogue.speak("s", "i", turn(1), [])
    dialogue.engine.order("s", Speculate("r", "i", "Hello.", RespondOptions(max_output_tokens=300)))
    dialogue.steps()
    assert len([event for event in dialogue.told("s", "r") if isinstance(event, AudioReady)]) == 1
    assert not [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
    dialogue.engine.order("s", Drop("r"))
    dialogue.steps()
    (end,) = [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
    assert end.reason is FinishReason.ABORTED
    assert 0 < end.usage.output_tokens < 300


def test_idle_memory_leaves_and_comes_back(tiny_parts: Parts) -> None:
    dialogue = Dialogue(tiny_parts)
    dialogue.engine = SpeechEngine(tiny_parts, threaded=False, clock=lambda: 0.0, kv_bytes=1)
    dialogue.open("s", "t")
    for session in ("s", "t"):
        dialogue.ask(session, "i", turn(2), [], "r")
        dialogue.ask(session, "j", turn(3), [], "q")
    bounded = [_made(dialogue.told("s", reply)) for reply in "rq"]
    free = Dialogue(tiny_parts)
    free.open("s")
    free.ask("s", "i", turn(2), [], "r")
    free.ask("s", "j", turn(3), [], "q")
    assert bounded == [_made(free.told("s", reply)) for reply in "rq"]
    assert sum(dialogue.sequence(session).cache.bytes for session in "st") == 0


# -------------------------------------------------------------------------------------------------------- what fails


@dataclass
class Poisoned:
    """The language model, whose batches fail, or give what is no number, for one sequence."""

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
            raise self.error
        self.model.run(calls)
        for call in calls:
            if call.sequence is self.victim and call.sequence.logits is not None:
                call.sequence.logits.fill_(float("nan"))


@pytest.mark.parametrize(
    ("error", "words"), [(None, "not finite"), (MemoryError("no room"), "no room"), (RuntimeError("a kernel broke"), "kernel")]
)
def test_what_fails_for_one_session_fails_for_it_alone_and_it_recovers(tiny_parts: Parts, error: Exception | None, words: str) -> None:
    model = tiny_parts.writer.model
    assert isinstance(model, LlamaLanguageModel)
    poisoned = Poisoned(model, error)
    writer = tiny_parts.writer
    parts = replace(tiny_parts, writer=type(writer)(poisoned, writer.template, writer.sampling))
    dialogue = Dialogue(parts)
    dialogue.open("s", "t")
    for session in ("s", "t"):
        dialogue.engine.order(session, SetHistory((ContextMessage("user", "i", "Hello."),)))
    dialogue.steps()
    poisoned.victim = dialogue.sequence("s")
    for session in ("s", "t"):
        dialogue.engine.order(session, Respond("r", BRIEF))
    dialogue.steps()
    (failed,) = dialogue.told("s", "r")
    assert isinstance(failed, ResponseFinished)
    assert failed.reason is FinishReason.ERROR
    assert words in (failed.error or "")
    (fine,) = [event for event in dialogue.told("t", "r") if isinstance(event, ResponseFinished)]
    assert fine.reason is not FinishReason.ERROR
    poisoned.victim = None
    dialogue.engine.order("s", Respond("again", BRIEF))
    dialogue.steps()
    assert [event for event in dialogue.told("s", "again") if isinstance(event, TextDelta)]


@settings(deadline=None, max_examples=20)
@given(steps=st.lists(st.integers(0, 12), min_size=6, max_size=6), closing=st.booleans(), seed=st.integers(0, 5))
def test_an_abort_or_a_close_at_any_step_ends_each_reply_once_and_hurts_nobody(
    tiny_parts: Parts, steps: list[int], closing: bool, seed: int
) -> None:
    dialogue = Dialogue(tiny_parts)
    dialogue.open("s", "t")
    dialogue.engine.order("t", SetHistory((ContextMessage("user", "i", "Hello."),)))
    dialogue.engine.order("t", Respond("r", BRIEF))
    orders = [
        StartTurn("i", 0), Speculate("p", "i", "Hello.", BRIEF), Drop("p"), CommitTurn("i", 0, 30_000),
        SetHistory((ContextMessage("user", "i", None),)), Respond("r", BRIEF), Abort("r"), Say("w", "One two three.", BRIEF), Abort("w"),
        StartTurn("j", 30_000), DiscardTurn(40_000), Abort("r"), Adopt("p"),
    ]  # fmt: skip
    pcm = turn(seed, words=2)
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
