import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from streaming.batching import Work
from streaming.encoder import BlockPlan
from streaming.models.ctranslate2 import WeightsError
from streaming.models.low_rank import Adaptation
from streaming.models.whisper import AttentionCache
from streaming.models.whisper_vocabulary import WhisperVocabulary
from streaming.recogniser import Decoding, Recogniser, load_recogniser, looping_tokens

HEARD = 150


def heard(recogniser: Recogniser, seed: int) -> AttentionCache:
    audio = recogniser.model.decoder.new_audio_cache()
    with torch.inference_mode():
        recogniser.model.decoder.listen(torch.randn(HEARD, 16, generator=torch.Generator().manual_seed(seed)), 0, audio)
    return audio


def result(work: Work[Decoding]) -> tuple[Decoding, int]:
    steps = 0
    while True:
        try:
            call = next(work)
        except StopIteration as stop:
            return stop.value, steps
        call.station.run([call])
        steps += 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 5), draft=st.lists(st.integers(0, 59), max_size=60), keep=st.integers(0, 30))
def test_any_draft_gives_what_no_draft_gives(tiny_recogniser: Recogniser, seed: int, draft: list[int], keep: int) -> None:
    audio = heard(tiny_recogniser, seed)
    plain, runs = result(tiny_recogniser.decode(audio, HEARD, "en", ()))
    assert runs == plain.runs
    drafted, _ = result(tiny_recogniser.decode(audio, HEARD, "en", [*plain.tokens[:keep], *draft, *plain.tokens[keep:]]))
    assert drafted.tokens == plain.tokens
    assert drafted.runs <= plain.runs
    assert drafted.log_probability == pytest.approx(plain.log_probability, abs=1e-4)
    assert drafted.no_speech == pytest.approx(plain.no_speech, abs=1e-5)


def test_a_right_draft_takes_one_run(tiny_recogniser: Recogniser) -> None:
    audio = heard(tiny_recogniser, 1)
    plain, _ = result(tiny_recogniser.decode(audio, HEARD, "en", ()))
    assert len(plain.tokens) > 1
    again, steps = result(tiny_recogniser.decode(audio, HEARD, "en", plain.tokens))
    assert (again.tokens, again.runs, steps) == (plain.tokens, 1, 1)


@pytest.mark.parametrize("change", ["replaced", "left out", "put in", "begun later"])
def test_a_draft_that_is_nearly_right_takes_few_runs(tiny_recogniser: Recogniser, change: str) -> None:
    for seed in range(6):
        audio = heard(tiny_recogniser, seed)
        plain = result(tiny_recogniser.decode(audio, HEARD, "en", ()))[0]
        if plain.runs > len(plain.tokens) + 1:
            continue  # it looped: the cut text is no draft of the loop
        tokens = list(plain.tokens)
        draft = {
            "replaced": [*tokens[:2], 58, *tokens[3:]],
            "left out": [*tokens[:2], *tokens[3:]],
            "put in": [*tokens[:2], 58, 57, *tokens[2:]],
            "begun later": tokens[4:],
        }[change]
        again = result(tiny_recogniser.decode(audio, HEARD, "en", draft))[0]
        assert again.tokens == plain.tokens
        assert again.runs <= 4 + 4 * (change == "begun later")


def test_suppressed_tokens_are_never_chosen(tiny_recogniser: Recogniser) -> None:
    for seed in range(6):
        tokens = result(tiny_recogniser.decode(heard(tiny_recogniser, seed), HEARD, "en", ()))[0].tokens
        assert tokens[0] not in (3, 7, 60)
        assert all(token < 60 and token != 7 for token in tokens)


def test_tokens_are_bounded_by_the_sound(tiny_recogniser: Recogniser) -> None:
    for seed in range(6):
        decoding, _ = result(tiny_recogniser.decode(heard(tiny_recogniser, seed), 5, "en", ()))
        assert len(decoding.tokens) <= 13


def test_blocks_are_those_the_weights_were_trained_for(tiny_recogniser: Recogniser) -> None:
    assert tiny_recogniser.plan == BlockPlan()
    model = copy.copy(tiny_recogniser.model)
    model.adaptation = Adaptation("", {}, {"first": 9, "block": 8, "lookahead": 7, "silence": 6}, "")
    assert Recogniser(model, tiny_recogniser._vocabulary).plan == BlockPlan(9, 8, 7, 6)


def test_the_language_matters(tiny_recogniser: Recogniser) -> None:
    said = {result(tiny_recogniser.decode(heard(tiny_recogniser, 2), HEARD, language, ()))[0].log_probability for language in ("en", "de")}
    assert len(said) == 2


@pytest.mark.parametrize(("hint", "language"), [(None, "en"), ("de", "de"), ("en-GB", "en"), ("EN_us", "en"), ("", "en")])
def test_language_hints(tiny_recogniser: Recogniser, hint: str | None, language: str) -> None:
    assert tiny_recogniser.language(hint) == language


@pytest.mark.parametrize("hint", ["xx", "klingon", "startoftranscript", "transcribe"])
def test_an_unknown_language_is_refused(tiny_recogniser: Recogniser, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        tiny_recogniser.language(hint)


def test_a_foreign_vocabulary_is_refused() -> None:
    with pytest.raises(WeightsError, match="startoftranscript"):
        WhisperVocabulary(Tokenizer(WordLevel({"a": 0}, unk_token="a")), 1, (), ())


@pytest.mark.parametrize(
    ("tokens", "repeated"),
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([9, *[4] * 19], 0),
        ([9, *[4] * 20], 19),
        ([9, 8, *[1, 2] * 10], 18),
        ([9, *[1, 2, 3, 4, 5, 6] * 3], 0),
        ([9, *[1, 2, 3, 4, 5, 6] * 4], 18),
        (list(range(40)), 0),
    ],
)
def test_loops(tokens: list[int], repeated: int) -> None:
    assert looping_tokens(tokens) == repeated


def test_a_folder_without_the_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"config\.json: no lists of suppressed tokens"):
        load_recogniser(tmp_path)
