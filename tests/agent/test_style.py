"""How a turn was spoken."""

import pytest

from agent.commands import TurnHeard
from agent.style import Spoken, SpokenWatch, TurnStyle, style_of

MS = 16


def watched(*stretches: tuple[int, int]) -> SpokenWatch:
    watch = SpokenWatch()
    for begun, ended in stretches:
        watch.started(begun * MS)
        watch.stopped(ended * MS)
    return watch


def test_pauses_inside_a_turn_count_and_the_silence_around_it_does_not() -> None:
    watch = watched((500, 1_000), (1_150, 2_000), (2_600, 3_000), (3_300, 4_000))
    assert watch.take(200 * MS, 4_500 * MS) == Spoken(speech_ms=2_450, pauses=2, longest_pause_ms=600)
    assert watch.take(4_500 * MS, 9_000 * MS) == Spoken()


def test_speech_that_goes_on_counts_on_both_sides_of_a_commit() -> None:
    watch = watched()
    watch.started(1_000 * MS)
    assert watch.take(0, 2_000 * MS) == Spoken(1_000)
    watch.stopped(2_500 * MS)
    assert watch.take(2_000 * MS, 3_000 * MS) == Spoken(500)


def test_what_begins_after_the_turn_is_the_next_ones() -> None:
    watch = watched((0, 1_000), (2_000, 3_000))
    assert watch.take(0, 1_500 * MS) == Spoken(1_000)
    assert watch.take(1_500 * MS, 4_000 * MS) == Spoken(1_000)


def test_a_pause_without_speech_is_none() -> None:
    watch = SpokenWatch()
    watch.stopped(100)
    assert watch.take(0, 1_000) == Spoken()


@pytest.mark.parametrize(
    ("text", "hesitations"),
    [
        ("Um, I want, uh, two.", ("um", "uh")),
        ("Hmm. Er, ummm... Erm", ("hmm", "er", "ummm", "erm")),
        ("I wan- I want tea", ("wan-",)),
        ("An umbrella, a hammer and a well-known herb. Ha!", ()),
        ("", ()),
    ],
)
def test_hesitations_are_words_of_their_own(text: str, hesitations: tuple[str, ...]) -> None:
    assert style_of(Spoken(1_000), text).hesitations == hesitations


def test_a_pace_is_of_speech_and_of_more_than_a_word_or_two() -> None:
    assert style_of(Spoken(2_000, 1, 900), "I want two teas now") == TurnStyle(2.5, 1, 900, ())
    assert style_of(Spoken(2_000), "Yes please").words_per_second is None
    assert style_of(Spoken(0), "words that the client wrote").words_per_second is None


def test_a_client_is_told_of_a_turn(play) -> None:
    talk = play(wants_sounds=True)
    talk.speech(1_000)
    talk.wait(200)
    talk.speech(1_000)
    talk.wait(600)
    talk.transcript("Um, what is a tortoise?")
    (heard,) = talk.all(TurnHeard)
    assert heard.style.pauses == 1
    assert heard.style.longest_pause_ms == pytest.approx(300, abs=35)
    assert heard.style.hesitations == ("um",)
    assert heard.style.words_per_second == pytest.approx(2.5, abs=0.1)
