"""One overlap, from its onset to a verdict: scripted evidence, exact positions."""

import pytest

from agent.interruption import Overlap, Verdict
from streaming.events import OverlapKind, OverlapScore

MS = 16
ONSET = 100_000


def after(overlap: Overlap, *, ms: int) -> Verdict:
    return overlap.verdict(ONSET + ms * MS)


def score(kind: OverlapKind, probability: float, ms: int = 256) -> OverlapScore:
    return OverlapScore(ONSET + ms * MS, kind, probability)


def test_words_that_claim_the_floor_count_at_once() -> None:
    overlap = Overlap(ONSET)
    assert after(overlap, ms=320) is Verdict.OPEN
    overlap.scored(score(OverlapKind.SPEECH, 0.95))
    assert after(overlap, ms=320) is Verdict.SPEECH


def test_words_that_are_no_backchannel_count_when_they_are_heard_twice() -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(OverlapKind.SPEECH, 0.8))
    assert after(overlap, ms=384) is Verdict.OPEN
    overlap.scored(score(OverlapKind.BACKCHANNEL, 0.8))
    overlap.scored(score(OverlapKind.SPEECH, 0.8))
    assert after(overlap, ms=544) is Verdict.OPEN
    overlap.scored(score(OverlapKind.SPEECH, 0.8))
    assert after(overlap, ms=576) is Verdict.SPEECH


def test_where_playback_can_be_held_words_that_claim_nothing_are_given_time() -> None:
    overlap = Overlap(ONSET, patient=True)
    overlap.scored(score(OverlapKind.SPEECH, 0.88))
    overlap.scored(score(OverlapKind.SPEECH, 0.88))
    assert after(overlap, ms=864) is Verdict.OPEN
    assert overlap.holds(ONSET + 864 * MS)
    assert after(overlap, ms=896) is Verdict.SPEECH
    short = Overlap(ONSET, patient=True)
    short.scored(score(OverlapKind.SPEECH, 0.88, 576))
    short.scored(score(OverlapKind.SPEECH, 0.88, 704))
    short.stopped(ONSET + 700 * MS)
    assert after(short, ms=1_100) is Verdict.NOTHING


def test_words_that_claim_the_floor_wait_for_nothing() -> None:
    overlap = Overlap(ONSET, patient=True)
    overlap.scored(score(OverlapKind.SPEECH, 0.95))
    assert after(overlap, ms=320) is Verdict.SPEECH


def test_one_unknown_word_counts_once_it_has_lasted() -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(OverlapKind.SPEECH, 0.6))
    assert after(overlap, ms=576) is Verdict.OPEN
    assert after(overlap, ms=608) is Verdict.SPEECH


@pytest.mark.parametrize("kind", [OverlapKind.BACKCHANNEL, OverlapKind.NOISE, OverlapKind.OTHERS, OverlapKind.ECHO])
def test_what_is_not_meant_for_us_ends_without_trace(kind: OverlapKind) -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(kind, 0.9))
    assert after(overlap, ms=900) is Verdict.OPEN
    assert not overlap.lowers
    overlap.stopped(ONSET + 900 * MS)
    assert after(overlap, ms=996) is Verdict.NOTHING


def test_a_backchannel_that_goes_on_is_none() -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(OverlapKind.BACKCHANNEL, 0.8))
    assert after(overlap, ms=1_984) is Verdict.OPEN
    assert after(overlap, ms=2_000) is Verdict.SPEECH


@pytest.mark.parametrize("kind", [OverlapKind.NOISE, OverlapKind.OTHERS, OverlapKind.ECHO])
def test_a_noise_may_last_for_ever(kind: OverlapKind) -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(kind, 0.9))
    assert after(overlap, ms=60_000) is Verdict.OPEN


def test_without_evidence_length_decides() -> None:
    assert after(Overlap(ONSET), ms=384) is Verdict.OPEN
    assert after(Overlap(ONSET), ms=416) is Verdict.SPEECH
    short, long = Overlap(ONSET), Overlap(ONSET)
    short.stopped(ONSET + 200 * MS)
    long.stopped(ONSET + 416 * MS)
    assert after(short, ms=500) is Verdict.OPEN  # evidence may still come
    assert after(short, ms=520) is Verdict.NOTHING
    assert after(long, ms=740) is Verdict.SPEECH


def test_evidence_after_the_end_counts() -> None:
    overlap = Overlap(ONSET)
    overlap.stopped(ONSET + 300 * MS)
    assert after(overlap, ms=396) is Verdict.OPEN
    overlap.scored(score(OverlapKind.SPEECH, 0.95))
    assert after(overlap, ms=396) is Verdict.SPEECH


def test_where_a_short_word_is_meant_for_us_even_yes_counts() -> None:
    overlap = Overlap(ONSET, yields=True)
    assert after(overlap, ms=256) is Verdict.OPEN
    overlap.scored(score(OverlapKind.SPEECH, 0.6))
    assert after(overlap, ms=256) is Verdict.SPEECH
    answered = Overlap(ONSET, yields=True)
    answered.stopped(ONSET + 200 * MS)
    answered.scored(score(OverlapKind.BACKCHANNEL, 0.8))
    assert after(answered, ms=300) is Verdict.SPEECH


def test_an_echo_that_ceases_begins_anew() -> None:
    overlap = Overlap(ONSET)
    overlap.scored(score(OverlapKind.ECHO, 0.9, ms=96))
    assert not overlap.holds(ONSET + 200 * MS)
    overlap.scored(score(OverlapKind.ECHO, 0.1, ms=640))
    assert overlap.onset == ONSET + 640 * MS
    assert overlap.lowers
    assert after(overlap, ms=640 + 384) is Verdict.OPEN
    assert after(overlap, ms=640 + 416) is Verdict.SPEECH


def test_the_least_speech_holds_whatever_is_said() -> None:
    overlap = Overlap(ONSET, least_ms=800)
    overlap.scored(score(OverlapKind.SPEECH, 0.95))
    assert after(overlap, ms=768) is Verdict.OPEN
    assert after(overlap, ms=800) is Verdict.SPEECH
    short = Overlap(ONSET, least_ms=800)
    short.scored(score(OverlapKind.SPEECH, 0.95))
    short.stopped(ONSET + 500 * MS)
    assert after(short, ms=600) is Verdict.NOTHING


def test_where_our_voice_comes_back_sound_alone_holds_nothing() -> None:
    overlap = Overlap(ONSET, echoes=True)
    assert not overlap.lowers
    assert not overlap.holds(ONSET + 256 * MS)
    overlap.scored(score(OverlapKind.SPEECH, 0.6))
    assert overlap.lowers
    assert overlap.holds(ONSET + 256 * MS)


def test_playback_is_held_once_it_is_plainly_speech_and_let_go_when_it_is_not() -> None:
    overlap = Overlap(ONSET)
    assert overlap.lowers
    assert not overlap.holds(ONSET + 96 * MS)
    assert overlap.holds(ONSET + 128 * MS)
    overlap.scored(score(OverlapKind.BACKCHANNEL, 0.8))
    assert not overlap.holds(ONSET + 256 * MS)
    assert not overlap.lowers
