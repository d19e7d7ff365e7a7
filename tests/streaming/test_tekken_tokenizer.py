"""Mistral's `tekken.json` as a tokenizer, beside byte-pair encoding by rank as it is defined."""

import re
from pathlib import Path

import pytest
from by_rank import by_rank
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_tekken
from tokenizers import Tokenizer

from streaming.models.ctranslate2 import WeightsError
from streaming.models.tekken_tokenizer import tekken_tokenizer

PATTERN = r"\s?\w+|\s?[^\s\w]+|\s+"
JOINED = [b"in", b"th", b"he", b"an", b"the", b" th", b" the", b"ing", b"\xc3\xa4", b"nd", b"and", b" a", b" and"]
CONTROL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
PIECES = [*(bytes([byte]) for byte in range(256)), *JOINED]
SIZE = 26 + len(PIECES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    write_tekken(path, CONTROL, JOINED, PATTERN)
    return tekken_tokenizer(path, SIZE)


@given(st.text(alphabet="thein gand\u00e4.!\n", max_size=40))
def test_text_is_split_by_rank(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == [26 + rank for rank in by_rank(re.findall(PATTERN, text), PIECES)]
    assert tokenizer.decode(ids) == text


def test_control_tokens_are_whole_and_known_by_their_names(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("[INST]the[/INST]", add_special_tokens=False).tokens == ["[INST]", "the", "[/INST]"]
    assert tokenizer.token_to_id("</s>") == 2
    assert tokenizer.get_vocab_size() == SIZE


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_what_is_no_vocabulary_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tekken.json").write_text(text)
    with pytest.raises(WeightsError, match=r"tekken\.json"):
        tekken_tokenizer(tmp_path / "tekken.json", SIZE)


def test_a_vocabulary_of_another_model_and_a_bad_pattern_are_named(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json", CONTROL, JOINED, PATTERN)
    with pytest.raises(WeightsError, match="the model 999"):
        tekken_tokenizer(tmp_path / "tekken.json", 999)
    write_tekken(tmp_path / "tekken.json", CONTROL, JOINED, "(")
    with pytest.raises(WeightsError, match=r"is no tekken\.json of this model"):
        tekken_tokenizer(tmp_path / "tekken.json", SIZE)
