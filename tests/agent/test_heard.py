"""Samples to words: cuts at whole words, and playback between reports."""

import pytest

from agent.heard import SpokenText
from streaming.events import AudioReady, WordMark


@pytest.fixture
def spoken() -> SpokenText:
    """ "One two. Three" in two clauses; the second without word marks."""
    reply = SpokenText(24_000)
    reply.text = "One two. Three"
    reply.add(AudioReady("resp_1", 0, 10_000, 9, (WordMark(4, 4_000), WordMark(9, 10_000)), True))
    reply.add(AudioReady("resp_1", 10_000, 5_000, 14))
    return reply


@pytest.mark.parametrize(
    ("samples", "text"),
    [(0, ""), (3_999, ""), (4_000, "One "), (9_999, "One "), (10_000, "One two. "), (14_999, "One two. "), (15_000, "One two. Three")],
)
def test_a_cut_falls_behind_the_last_whole_word(spoken, samples, text) -> None:
    assert spoken.text[: spoken.text_end(samples)] == text


def test_playback_goes_on_between_reports_but_not_beyond_what_was_sent(spoken) -> None:
    assert spoken.played(16_000) == 0
    spoken.report(9_600, 2_400, now=16_000)
    assert spoken.played(16_000) == 2_400
    assert spoken.played(16_000 + 1_600) == 4_800
    assert spoken.played(160_000) == 9_600


def test_nothing_is_heard_before_playout_says_so(spoken) -> None:
    spoken.report(9_600, 0, now=0)
    assert spoken.played(160_000) == 0


def test_without_sound_there_are_no_words() -> None:
    assert SpokenText(24_000).text_end(100) == 0
