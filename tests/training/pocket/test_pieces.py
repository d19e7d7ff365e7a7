"""Texts as word pieces, and how they begin a sentence."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from training.pocket.pieces import Speller

PIECES = (
    "Ġwhat",
    "ĠWhat",
    "What",
    "Ġis",
    "ĠParis",
    "Paris",
    "Ġparis",
    "ĠI",
    "I",
    "Ġin",
    "Ġmary's",
    "Ġ",
    ".",
    "?",
    "ĠMary",
    "'",
    "s",
    "Ġnasa",
    "ĠNASA",
)


@pytest.fixture
def speller() -> Speller:
    tokenizer = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(("<unk>", *PIECES))}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(r" ?\w+|[.?']", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Speller(tokenizer)


def pieces(speller: Speller, text: str) -> list[str]:
    return [speller._written[token] for token in speller.tokens(text)]


def test_only_what_begins_a_sentence_loses_its_capital(speller) -> None:
    assert pieces(speller, "What is in Paris? What is I.") == ["Ġwhat", "Ġis", "Ġin", "ĠParis", "?", "Ġwhat", "Ġis", "ĠI", "."]
    assert pieces(speller, "Paris is. I is. NASA is.") == ["ĠParis", "Ġis", ".", "ĠI", "Ġis", ".", "ĠNASA", "Ġis", "."]
    assert pieces(speller, "") == []


def test_capitals_come_back_where_a_sentence_begins(speller) -> None:
    table = speller.table([speller.tokens("What is Paris.")], 0)
    at = table.written.index("Ġwhat")
    names = [speller._written[number] for number in (table.first[at], table.behind_stop[at])]
    assert names == ["What", "ĠWhat"]
    paris, stop = table.written.index("ĠParis"), table.written.index(".")
    assert speller._written[table.first[paris]] == "Paris"
    assert table.stops[stop]
    assert not table.stops[at]
    assert table.tokens[stop] == table.first[stop] == table.behind_stop[stop]


def test_the_commonest_words_are_pieces_though_no_text_has_them(speller) -> None:
    assert speller.table([], 2).written == ("Ġwhat", "Ġis")


def test_names_have_capitals(speller) -> None:
    assert [speller.cased(word) for word in ("i", "i'm", "mary", "what", "unknown")] == ["I", "I'm", "Mary", "what", "unknown"]
