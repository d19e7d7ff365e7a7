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


def test_a_chunk_without_the_end_of_a_word_adds_sound_and_no_text() -> None:
    reply = SpokenText(24_000)
    reply.text = "Tortoises sleep"
    heard = []
    for ready in (
        AudioReady("resp_1", 0, 4_000, 0, (), True),
        AudioReady("resp_1", 4_000, 4_000, 10, (WordMark(10, 6_000),), True),
        AudioReady("resp_1", 8_000, 4_000, 10, (), True),
        AudioReady("resp_1", 12_000, 1_000, 15, (WordMark(15, 13_000),), True),
    ):
        reply.add(ready)
        heard.append((reply.samples, reply.text[: reply.text_end(reply.samples)]))
    assert heard == [(4_000, ""), (8_000, "Tortoises "), (12_000, "Tortoises "), (13_000, "Tortoises sleep")]
    assert [reply.text_end(samples) for samples in (5_999, 6_000, 12_999, 13_000)] == [0, 10, 10, 15]


def test_text_without_sound_goes_with_what_was_said_before(spoken) -> None:
    spoken.text += " 🐢"
    spoken.add(AudioReady("resp_1", 15_000, 0, 16))
    assert [spoken.text_end(samples) for samples in (14_999, 15_000)] == [9, 16]
