"""What is always true of the engine, on tiny float32 models: batched equals alone, any split equals any other, a dropped speculation leaves
no trace, and idle memory comes back."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.batching import completed
from streaming.decoder import Extend, LlamaLanguageModel, Prompt, Segment
from streaming.engine import Parts
from streaming.events import (
    Adopt,
    AudioReady,
    CommitTurn,
    ContextMessage,
    Drop,
    EngineEvent,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    SetHistory,
    Speculate,
    StartTurn,
    ToolCallReady,
    TranscriptProvisional,
)

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
def test_any_split_of_the_same_sound_commits_the_same_tokens(talk, tiny_parts: Parts, cuts: list[int], seed: int) -> None:
    whole, split = talk(tiny_parts), talk(tiny_parts)
    for dialogue, places in ((whole, list(range(0, 80_000, 320))), (split, cuts)):
        dialogue.open("s")
        dialogue.ask("s", "i", talk.turn(seed), places, "r")
    assert split.transcripts("s") == whole.transcripts("s")
    assert split.sequence("s").tokens == whole.sequence("s").tokens
    assert split.told("s", "r") == whole.told("s", "r")


@settings(deadline=None, max_examples=4)
@given(count=st.integers(2, 5), cuts=_CUTS, speculate=st.booleans())
def test_together_each_session_gets_what_it_gets_alone(talk, tiny_parts: Parts, count: int, cuts: list[int], speculate: bool) -> None:
    names = [f"s{n}" for n in range(count)]
    together = talk(tiny_parts, speculate)
    together.open(*names)
    pieces = {name: np.split(talk.turn(n), sorted(cut % 20_000 for cut in cuts)) for n, name in enumerate(names)}
    for name in names:
        together.engine.order(name, StartTurn("i", 0))
    for round_of_pieces in zip(*pieces.values(), strict=True):
        for name, piece in zip(names, round_of_pieces, strict=True):
            together.feed(name, piece)
        together.steps()
    for name in names:
        together.commit(name, "i", 0)
        together.engine.order(name, Respond("r", talk.brief))
    together.steps()
    for number, name in enumerate(names):
        alone = talk(tiny_parts)
        alone.open(name)
        alone.ask(name, "i", talk.turn(number), cuts, "r")
        assert together.transcripts(name) == alone.transcripts(name)
        assert together.told(name, "r") == alone.told(name, "r")


@settings(deadline=None, max_examples=4)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=3), cuts=_CUTS)
def test_a_dropped_speculation_leaves_no_trace(talk, tiny_parts: Parts, seeds: list[int], cuts: list[int]) -> None:
    plain, speculating = talk(tiny_parts), talk(tiny_parts, speculate=True)
    for dialogue in (plain, speculating):
        dialogue.open("s")
        for number, seed in enumerate(seeds):
            dialogue.ask("s", f"i{number}", talk.turn(seed), cuts, f"r{number}")
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


def test_an_adopted_speculation_is_the_reply_and_nothing_is_made_again(talk, tiny_parts: Parts) -> None:
    plain = talk(tiny_parts)
    plain.open("s")
    plain.ask("s", "i", talk.turn(1), [], "r")

    early = talk(tiny_parts)
    early.open("s")
    early.speak("s", "i", talk.turn(1), list(range(0, 60_000, 320)))
    words = [event for event in early.events["s"] if isinstance(event, TranscriptProvisional)][-1]
    early.engine.order("s", Speculate("r", "i", words.text, talk.brief))
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


def test_a_speculation_stops_at_its_first_clause(talk, tiny_parts: Parts) -> None:
    dialogue = talk(tiny_parts)
    dialogue.open("s")
    dialogue.speak("s", "i", talk.turn(1), [])
    dialogue.engine.order("s", Speculate("r", "i", "Hello.", RespondOptions(max_output_tokens=300)))
    dialogue.steps()
    assert len([event for event in dialogue.told("s", "r") if isinstance(event, AudioReady)]) == 1
    assert not [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
    dialogue.engine.order("s", Drop("r"))
    dialogue.steps()
    (end,) = [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
    assert end.reason is FinishReason.ABORTED
    assert 0 < end.usage.output_tokens < 300


def test_idle_memory_leaves_and_comes_back(talk, tiny_parts: Parts) -> None:
    dialogue = talk(tiny_parts, kv_bytes=1)
    dialogue.open("s", "t")
    for session in ("s", "t"):
        dialogue.ask(session, "i", talk.turn(2), [], "r")
        dialogue.ask(session, "j", talk.turn(3), [], "q")
    bounded = [_made(dialogue.told("s", reply)) for reply in "rq"]
    free = talk(tiny_parts)
    free.open("s")
    free.ask("s", "i", talk.turn(2), [], "r")
    free.ask("s", "j", talk.turn(3), [], "q")
    assert bounded == [_made(free.told("s", reply)) for reply in "rq"]
    assert sum(dialogue.sequence(session).cache.bytes for session in "st") == 0
