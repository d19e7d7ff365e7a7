"""How pieces and texts sound."""

from training.pocket.sounds import LONGEST, Sounds


class Letters:
    """Every letter is its own phoneme; stress marks stand in between."""

    def pronounce(self, words: list[str]) -> list[str]:
        return ["ˈ".join(word.lower()) for word in words]


def test_pieces_sound_like_their_letters_and_say_whether_they_begin_a_word() -> None:
    sounds = Sounds(Letters())
    rows = sounds.pieces(["Ġcat", "at", ".", "Ġ", "'s"])
    heard = [[sounds.symbols[number - 1] for number in row.tolist() if number] for row in rows]
    assert heard == [["c", "a", "t"], ["+", "a", "t"], ["+", "."], [], ["+", "'", "s"]]
    assert rows.shape == (5, LONGEST)


def test_texts_sound_like_their_words() -> None:
    sounds = Sounds(Letters())
    assert [sounds.symbols[number - 1] for number in sounds.text("A cat!")] == ["a", "c", "a", "t"]


def test_what_is_too_long_is_cut() -> None:
    assert int((Sounds(Letters()).pieces(["Ġ" + "ab" * LONGEST]) > 0).sum()) == LONGEST
