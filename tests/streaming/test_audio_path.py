"""Sound in the keys and values, on tiny float32 models: any split is the whole, a tail that was tried leaves nothing behind, and whatever
happens to the history the next logits are those of a fresh prefill."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, Prompt
from streaming.engine import Parts
from streaming.events import (
    Adopt,
    CommitTurn,
    ContextMessage,
    DiscardTurn,
    Drop,
    FinishReason,
    Respond,
    ResponseFinished,
    SetHistory,
    Speculate,
    StartTurn,
    TranscriptDone,
    TranscriptProvisional,
)
from streaming.frame_rows import FrameRows
from streaming.replying import Writer

NOISE = np.random.default_rng(1).standard_normal(40_000).astype(np.float32)
NOISE_OF_31_SECONDS = (np.random.default_rng(2).standard_normal(31 * 16_000) * 0.1).astype(np.float32)
EVERY_FRAME = list(range(0, 80_000, 320))
CUTS = st.lists(st.integers(0, 80_000), max_size=30)


@pytest.fixture
def path(hearing_parts: Parts) -> AudioPath:
    path = hearing_parts.writer.template.path
    assert path is not None
    return path


@pytest.fixture
def numbers() -> Iterator[int]:
    return count(-1, -1)


def sound_of(path: AudioPath, numbers: Iterator[int], pcm: np.ndarray, ordinal: int = 1) -> Sound:
    sound = Sound(path.encoder.stream(), numbers, ordinal)
    sound.push(pcm)
    return sound


def rows(sound: Sound) -> Tensor:
    return torch.stack([sound.rows[number] for number in sound.tokens])


# ------------------------------------------------------------------------------------------------------------ a sound


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=12), looks=st.lists(st.booleans(), min_size=13, max_size=13))
def test_rows_are_those_of_the_whole_however_it_comes_and_whenever_its_end_is_tried(
    hearing_parts: Parts, cuts: list[int], looks: list[bool]
) -> None:
    path = hearing_parts.writer.template.path
    assert path is not None
    whole, split = sound_of(path, count(-1, -1), NOISE), sound_of(path, count(-1, -1), NOISE[:0])
    completed(whole.conclude())
    for piece, tried in zip(np.split(NOISE, sorted(cuts)), looks, strict=False):
        split.push(piece)
        before = list(split.committed)
        completed(split.conclude() if tried else split.commit())
        assert split.committed[: len(before)] == before
    completed(split.conclude())
    assert len(split.committed) == len(whole.committed) == 25
    assert len(split.tokens) == 32
    assert torch.equal(rows(split), rows(whole))


def test_a_row_keeps_its_number_and_a_tail_gets_new_ones_when_more_was_heard(path: AudioPath, numbers: Iterator[int]) -> None:
    sound = sound_of(path, numbers, NOISE[:20_000])
    assert sound.due
    assert not sound.concluded
    completed(sound.conclude())
    first = sound.tokens
    completed(sound.conclude())
    assert sound.tokens == first
    sound.push(NOISE[20_000:])
    assert sound.tokens == sound.committed == first[:10]
    completed(sound.conclude())
    assert not set(sound.tokens[10:]) & set(first)
    assert set(sound.rows) == set(sound.tokens)


def test_work_that_is_dropped_half_way_leaves_the_sound_as_it_was(path: AudioPath, numbers: Iterator[int]) -> None:
    sound, plain = (sound_of(path, numbers, NOISE) for _ in range(2))
    for calls in (0, 1, 7, 27):
        work = sound.conclude()
        for _, call in zip(range(calls), work, strict=False):
            call.station.run([call])
        work.close()
    for each in (sound, plain):
        completed(each.conclude())
    assert torch.equal(rows(sound), rows(plain))


def test_sound_that_comes_while_its_end_is_computed_is_in_it(path: AudioPath, numbers: Iterator[int]) -> None:
    sound, plain = sound_of(path, numbers, NOISE[:9_000]), sound_of(path, numbers, NOISE)
    for index, call in enumerate(sound.conclude()):
        if index == 0:
            sound.push(NOISE[9_000:])
        call.station.run([call])
    completed(plain.conclude())
    assert torch.equal(rows(sound), rows(plain))


# ----------------------------------------------------------------------------------------------------------- a prompt


def test_a_message_is_the_rows_of_its_sound_between_their_marks(
    tiny_language_model: LlamaLanguageModel, path: AudioPath, numbers: Iterator[int]
) -> None:
    model = tiny_language_model
    numbered = replace(path, before="Sound {number}: <|im_start|>", after="<|im_end|>!")
    template = ChatTemplate(model, "Hear.", path=numbered)
    sounds = {"a": sound_of(path, numbers, NOISE, 1), "b": sound_of(path, numbers, NOISE[:3_000], 2)}
    for sound in sounds.values():
        completed(sound.conclude())
    history = (ContextMessage("user", "a", None), ContextMessage("assistant", "r", "Yes."), ContextMessage("user", "b", "What?"))
    prompt = template.reply_prompt(history, {"a": "never read"}, 1_000, sounds)
    start, end = model.control("<|im_start|>"), model.control("<|im_end|>")

    def user(sound: Sound) -> list[int]:
        mark = model.encode(f"Sound {sound.ordinal}: ")
        inside = [*mark, start, *sound.tokens, end, *model.encode("!")]
        return [start, *model.encode("user\n"), *inside, end, *model.encode("\n")]

    system = [start, *model.encode("system\nHear."), end, *model.encode("\n")]
    answer = [start, *model.encode("assistant\nYes."), end, *model.encode("\n")]
    assert len(prompt.tokens) == prompt.segments[-1].end
    assert model.decode(prompt.tokens).count("Sound") == 2
    assert prompt.tokens[prompt.segments[0].end : prompt.segments[1].end] == user(sounds["a"])
    assert prompt.tokens[prompt.segments[2].end : prompt.segments[3].end] == user(sounds["b"])
    assert len(prompt.tokens) == len([*system, *answer, *user(sounds["a"]), *user(sounds["b"]), start, *model.encode("assistant\n")])
    assert set(prompt.rows) == {*sounds["a"].tokens, *sounds["b"].tokens}


def test_with_words_the_transcript_follows_the_sound_and_without_a_sound_there_are_words(
    tiny_language_model: LlamaLanguageModel, path: AudioPath, numbers: Iterator[int]
) -> None:
    model = tiny_language_model
    sound = sound_of(path, numbers, NOISE)
    completed(sound.conclude())
    history = (ContextMessage("user", "a", None), ContextMessage("assistant", "r", "Yes."), ContextMessage("user", "b", "And you?"))
    both = ChatTemplate(model, path=replace(path, words=True)).reply_prompt(history, {"a": "Who is it?"}, 1_000, {"a": sound})
    heard = both.tokens[both.segments[0].end : both.segments[1].end]
    assert [token for token in heard if token < 0] == sound.tokens
    assert model.decode(heard) == "user\n<>Who is it?\n"
    assert "And you?" in model.decode(both.tokens)
    deaf = ChatTemplate(model).reply_prompt(history, {"a": "Who is it?"}, 1_000, {"a": sound})
    assert min(deaf.tokens) >= 0


def test_a_turn_that_goes_on_after_a_wrong_start_of_ours_is_one_message(
    tiny_language_model: LlamaLanguageModel, path: AudioPath, numbers: Iterator[int]
) -> None:
    template = ChatTemplate(tiny_language_model, path=path)
    first, second = (sound_of(path, numbers, NOISE, ordinal) for ordinal in (1, 2))
    completed(first.conclude())
    completed(second.commit())
    one, two = ContextMessage("user", "a", None), ContextMessage("user", "b", None)
    sounds = {"a": first, "b": second}
    listening = template.listening_prompt((one,), {}, second, 1_000, sounds).tokens
    assert listening[-25:] == second.committed
    completed(second.conclude())
    prompt = template.reply_prompt((one, two), {}, 1_000, sounds)
    assert prompt.tokens[: len(listening)] == listening
    assert [segment.role for segment in prompt.segments] == ["system", "user", "assistant"]
    assert [token for token in prompt.tokens if token < 0] == [*first.tokens, *second.tokens]


def test_of_a_sound_that_is_longer_than_the_budget_the_end_is_kept_behind_its_mark(
    tiny_language_model: LlamaLanguageModel, path: AudioPath, numbers: Iterator[int]
) -> None:
    template = ChatTemplate(tiny_language_model, "Hear.", path=path)
    sound = sound_of(path, numbers, NOISE)
    completed(sound.conclude())
    prompt = template.reply_prompt((ContextMessage("user", "a", None),), {}, 45, {"a": sound})
    assert len(prompt.tokens) == 45
    heard = [token for token in prompt.tokens if token < 0]
    assert heard == sound.tokens[-len(heard) :]
    assert "user\n<>" in tiny_language_model.decode(prompt.tokens)


# --------------------------------------------------------------------------------------------------------- the engine


@pytest.fixture(scope="module", params=["hearing_parts", "projecting_parts"])
def heard_parts(request: pytest.FixtureRequest) -> Parts:
    """Of a model with an encoder of its own, and of one with a projector behind the recogniser's."""
    parts: Parts = request.getfixturevalue(request.param)
    return parts


def entered(dialogue, session: str) -> list[tuple[float, ...] | int]:
    """What stands in the keys and values, rows by what they are rather than by their numbers."""
    held = dialogue.engine._sessions[session]._sounds.held.values()
    by_number = {number: row for sound in held for number, row in sound.rows.items()}
    return [tuple(by_number[token].tolist()) if token < 0 else token for token in dialogue.sequence(session).tokens]


def assert_exact(dialogue, session: str) -> None:
    """The logits behind what is held are those of a fresh prefill of it."""
    held, model = dialogue.sequence(session), dialogue.parts.writer.model
    sounds = dialogue.engine._sessions[session]._sounds.held.values()
    fresh = model.sequence()
    completed(model.sync(fresh, Prompt(list(held.tokens), (), {number: row for sound in sounds for number, row in sound.rows.items()})))
    if held.logits is None:
        completed(model.sync(held, Prompt(list(held.tokens))))
    assert fresh.logits is not None
    torch.testing.assert_close(held.logits, fresh.logits, atol=1e-4, rtol=1e-4)


def said(dialogue, session: str, response_id: str) -> list[str]:
    return [text for event in dialogue.told(session, response_id) if (text := getattr(event, "text", ""))]


@settings(deadline=None, max_examples=5)
@given(cuts=CUTS, seed=st.integers(0, 3))
def test_any_split_of_the_same_sound_enters_the_same_rows(talk, heard_parts: Parts, cuts: list[int], seed: int) -> None:
    whole, split = talk(heard_parts), talk(heard_parts)
    for dialogue, places in ((whole, EVERY_FRAME), (split, cuts)):
        dialogue.open("s")
        dialogue.ask("s", "i", talk.turn(seed), places, "r")
        dialogue.ask("s", "j", talk.turn(seed + 1), places, "q")
        assert_exact(dialogue, "s")
    assert entered(split, "s") == entered(whole, "s")
    assert [isinstance(entry, tuple) for entry in entered(split, "s")].count(True) > 5
    for response_id in "rq":
        assert said(split, "s", response_id) == said(whole, "s", response_id) != []


def test_rows_enter_while_the_caller_speaks_and_the_tail_only_for_a_reply(talk, hearing_parts: Parts) -> None:
    dialogue = talk(hearing_parts)
    dialogue.open("s")
    dialogue.speak("s", "i", talk.turn(1), EVERY_FRAME)
    sound = dialogue.engine._sessions["s"]._sounds.held["i"]
    listened = list(dialogue.sequence("s").tokens)
    assert len(sound.committed) >= 10
    assert listened[-len(sound.committed) :] == sound.committed == sound.tokens
    dialogue.commit("s", "i", 0)
    dialogue.engine.order("s", Respond("r", dialogue.brief))
    dialogue.steps()
    assert dialogue.sequence("s").tokens[: len(listened)] == listened
    (end,) = [event for event in dialogue.told("s", "r") if isinstance(event, ResponseFinished)]
    assert end.usage.cached_tokens == len(listened)
    marks = dialogue.parts.writer.model.encode(">")
    template = dialogue.parts.writer.template
    closing = len(template._closing["user"]) + len(template._opening["assistant"])
    assert end.usage.input_tokens == len(listened) + len(sound.tokens) - len(sound.committed) + len(marks) + closing


def test_a_reply_does_not_wait_for_words_it_does_not_read(talk, hearing_parts: Parts) -> None:
    for words in (False, True):
        writer = hearing_parts.writer
        assert writer.template.path is not None
        template = ChatTemplate(writer.model, path=replace(writer.template.path, words=words))
        dialogue = talk(replace(hearing_parts, writer=Writer(writer.model, template, writer.sampling)))
        dialogue.open("s")
        dialogue.speak("s", "i", talk.turn(1), [])
        dialogue.commit("s", "i", 0)
        dialogue.engine.order("s", Respond("r", dialogue.brief))
        dialogue.steps()
        order = [type(event) for event in dialogue.events["s"] if isinstance(event, TranscriptDone | ResponseFinished)]
        (text,) = dialogue.transcripts("s")
        assert set(order) == {TranscriptDone, ResponseFinished}
        assert (text in dialogue.parts.writer.model.decode(dialogue.sequence("s").tokens)) == words


@settings(deadline=None, max_examples=4)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=3), cuts=CUTS)
def test_a_dropped_speculation_leaves_no_trace(talk, heard_parts: Parts, seeds: list[int], cuts: list[int]) -> None:
    plain, speculating = talk(heard_parts), talk(heard_parts, speculate=True)
    for dialogue in (plain, speculating):
        dialogue.open("s")
        for number, seed in enumerate(seeds):
            dialogue.ask("s", f"i{number}", talk.turn(seed), cuts, f"r{number}")
        assert_exact(dialogue, "s")
    assert any(getattr(event, "response_id", "").startswith("speculation") for event in speculating.events["s"])
    assert entered(speculating, "s") == entered(plain, "s")
    for number in range(len(seeds)):
        assert said(speculating, "s", f"r{number}") == said(plain, "s", f"r{number}")


def test_a_turn_that_goes_on_after_a_speculation_is_as_if_none_had_been(talk, heard_parts: Parts) -> None:
    plain, tried = talk(heard_parts), talk(heard_parts)
    for dialogue in (plain, tried):
        dialogue.open("s")
        dialogue.speak("s", "i", talk.turn(1), [])
        if dialogue is tried:
            dialogue.engine.order("s", Speculate("early", "i", "words", dialogue.brief))
            dialogue.steps()
            assert len(dialogue.sequence("s").tokens) > len(dialogue.engine._sessions["s"]._sounds.held["i"].tokens)
            dialogue.engine.order("s", Drop("early"))
        for piece in np.array_split(talk.turn(2), 50):
            dialogue.feed("s", piece)
            dialogue.steps()
        dialogue.commit("s", "i", 0)
        dialogue.engine.order("s", Respond("r", dialogue.brief))
        dialogue.steps()
        assert_exact(dialogue, "s")
    assert entered(tried, "s") == entered(plain, "s")
    assert said(tried, "s", "r") == said(plain, "s", "r")


def test_an_adopted_speculation_is_the_reply_and_its_sound_is_not_computed_again(talk, heard_parts: Parts) -> None:
    plain, early = talk(heard_parts), talk(heard_parts)
    plain.open("s")
    plain.ask("s", "i", talk.turn(1), [], "r")
    early.open("s")
    early.speak("s", "i", talk.turn(1), [])
    words = [event for event in early.events["s"] if isinstance(event, TranscriptProvisional)][-1]
    early.engine.order("s", Speculate("r", "i", words.text, early.brief))
    early.steps()
    tokens = early.engine._sessions["s"]._sounds.held["i"].tokens
    early.engine.order("s", CommitTurn("i", 0, early.at["s"], words.text))
    early.engine.order("s", SetHistory((ContextMessage("user", "i", words.text),)))
    early.engine.order("s", Adopt("r"))
    early.steps()
    assert early.engine._sessions["s"]._sounds.held["i"].tokens == tokens
    assert said(early, "s", "r") == said(plain, "s", "r")
    assert entered(early, "s") == entered(plain, "s")


def test_a_cut_reply_and_an_edited_history_are_exact(talk, heard_parts: Parts) -> None:
    dialogue = talk(heard_parts)
    dialogue.open("s")
    dialogue.ask("s", "i", talk.turn(1), [], "r")
    spoken = "".join(said(dialogue, "s", "r"))
    first = dialogue.engine._sessions["s"]._sounds.held["i"].tokens
    dialogue.history["s"] += (ContextMessage("assistant", "a", spoken[: len(spoken) // 2], complete=False),)
    dialogue.engine.order("s", SetHistory(dialogue.history["s"]))
    dialogue.ask("s", "j", talk.turn(2), [], "q")
    held = dialogue.sequence("s").tokens
    second = dialogue.engine._sessions["s"]._sounds.held["j"].tokens
    assert [token for token in held if token < 0] == [*first, *second]
    assert_exact(dialogue, "s")
    dialogue.history["s"] = dialogue.history["s"][1:]  # the client deletes the first turn
    dialogue.engine.order("s", SetHistory(dialogue.history["s"]))
    dialogue.steps()
    assert [token for token in dialogue.sequence("s").tokens if token < 0] == second
    assert set(dialogue.engine._sessions["s"]._sounds.held) == {"j"}
    assert_exact(dialogue, "s")


def test_given_up_memory_comes_back_from_the_rows(talk, heard_parts: Parts) -> None:
    bounded, free = talk(heard_parts, kv_bytes=1), talk(heard_parts)
    for dialogue in (bounded, free):
        dialogue.open("s")
        for item, response_id in (("i", "r"), ("j", "q")):
            dialogue.ask("s", item, talk.turn(2), [], response_id)
    assert bounded.sequence("s").cache.bytes == 0
    for response_id in "rq":
        assert said(bounded, "s", response_id) == said(free, "s", response_id)


def test_a_sound_that_cannot_be_heard_is_told_in_words_and_no_other_suffers(
    talk, hearing_parts: Parts, monkeypatch: pytest.MonkeyPatch, path: AudioPath
) -> None:
    dialogue = talk(hearing_parts)
    dialogue.open("s")
    dialogue.ask("s", "i", talk.turn(1), [], "r")
    monkeypatch.setattr(path.encoder, "failing", True)
    dialogue.ask("s", "j", talk.turn(2), [], "q")
    ends = [event for event in dialogue.events["s"] if isinstance(event, ResponseFinished)]
    assert [end.reason for end in ends] == [FinishReason.LENGTH, FinishReason.LENGTH]
    sounds = dialogue.engine._sessions["s"]._sounds.held
    assert [token for token in dialogue.sequence("s").tokens if token < 0] == sounds["i"].tokens
    assert dialogue.transcripts("s")[1] in dialogue.parts.writer.model.decode(dialogue.sequence("s").tokens)


def test_sessions_together_hear_what_they_hear_alone(talk, heard_parts: Parts) -> None:
    names = ("a", "b", "c")
    together = talk(heard_parts)
    together.open(*names)
    for number, name in enumerate(names):
        together.engine.order(name, StartTurn("i", 0))
        together.feed(name, talk.turn(number))
    together.steps()
    for name in names:
        together.commit(name, "i", 0)
        together.engine.order(name, Respond("r", together.brief))
    together.steps()
    for number, name in enumerate(names):
        alone = talk(heard_parts)
        alone.open(name)
        alone.ask(name, "i", talk.turn(number), [], "r")
        assert entered(together, name) == entered(alone, name)
        assert said(together, name, "r") == said(alone, name, "r")


def test_a_discarded_turn_is_forgotten(talk, heard_parts: Parts) -> None:
    dialogue = talk(heard_parts)
    dialogue.open("s")
    dialogue.speak("s", "i", talk.turn(1), [])
    dialogue.engine.order("s", DiscardTurn(dialogue.at["s"]))
    dialogue.engine.order("s", SetHistory(()))
    dialogue.steps()
    assert not dialogue.engine._sessions["s"]._sounds.held
    assert min(dialogue.sequence("s").tokens) >= 0


def test_sounds_that_no_prompt_could_hold_are_told_in_words(talk, hearing_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    dialogue = talk(hearing_parts)
    dialogue.open("s")
    monkeypatch.setattr(dialogue.parts.writer.model, "_context", 600)
    sounds = dialogue.engine._sessions
    for number in range(14):
        dialogue.ask("s", f"i{number}", talk.turn(number, words=6), [], f"r{number}")
        assert_exact(dialogue, "s")
    held = sounds["s"]._sounds.held
    assert sum(len(sound.rows) for sound in held.values()) <= 600
    assert list(held)[-1] == "i13"
    assert "i0" not in held


# ------------------------------------------------------------------------------------------- a projector in the engine


def test_a_long_turn_is_told_whole_by_the_rows_of_all_its_windows(talk, projecting_parts: Parts) -> None:
    pcm = np.concatenate([talk.turn(1)[:2_048], NOISE_OF_31_SECONDS, np.zeros(512 * 12, np.float32)])
    dialogues = [talk(projecting_parts), talk(projecting_parts)]
    for dialogue, cuts in zip(dialogues, (range(0, len(pcm), 8_000), range(0, len(pcm), 50_001)), strict=True):
        dialogue.open("s")
        dialogue.ask("s", "i", pcm, list(cuts), "r")
        assert_exact(dialogue, "s")
    sound = dialogues[0].engine._sessions["s"]._sounds.held["i"]
    assert len(sound.tokens) > 100
    assert [token for token in dialogues[0].sequence("s").tokens if token < 0] == sound.tokens
    assert sound._stream is None  # what it took to hear it is given back
    assert entered(dialogues[1], "s") == entered(dialogues[0], "s")


class Deaf:
    """A projector that hears nothing in any frames."""

    width = 32

    def stream(self) -> "Deaf":
        return self

    def commit(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(0, 32)

    def provisional(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(0, 32)


def test_a_sound_without_rows_is_told_in_words_once_they_are_there(talk, projecting_parts: Parts) -> None:
    writer = projecting_parts.writer
    template = ChatTemplate(writer.model, path=AudioPath(FrameRows(Deaf())))
    dialogue = talk(replace(projecting_parts, writer=Writer(writer.model, template, writer.sampling)))
    dialogue.open("s")
    dialogue.ask("s", "i", talk.turn(1), [], "r")
    (text,) = dialogue.transcripts("s")
    assert text
    assert text in writer.model.decode(dialogue.sequence("s").tokens)
    assert said(dialogue, "s", "r")


def test_a_conversation_that_another_engine_takes_up_is_told_in_words_and_goes_on_in_rows(talk, heard_parts: Parts) -> None:
    dialogue = talk(heard_parts)
    dialogue.open("s")
    dialogue.history["s"] = (ContextMessage("user", "old", "What is it?"), ContextMessage("assistant", "a", "The best time."))
    dialogue.engine.order("s", SetHistory(dialogue.history["s"]))
    dialogue.ask("s", "i", talk.turn(1), [], "r")
    sound = dialogue.engine._sessions["s"]._sounds.held["i"]
    assert "What is it?" in dialogue.parts.writer.model.decode(dialogue.sequence("s").tokens)
    assert [token for token in dialogue.sequence("s").tokens if token < 0] == sound.tokens
    assert_exact(dialogue, "s")
