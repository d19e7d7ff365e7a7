"""The endpointer on scripted evidence: exact positions, no models."""

import pytest

from agent.endpointing import Endpointer, semantic_wait_ms
from agent.settings import Eagerness, SemanticVad, ServerVad

MS = 16  # samples
STOPPED = 41_984


def paused(endpointer: Endpointer, *scores: tuple[int, float]) -> Endpointer:
    """In a pause since STOPPED, with these (ms of silence, probability)."""
    endpointer.speech_started(4_608)
    endpointer.speech_stopped(STOPPED)
    for ms, probability in scores:
        endpointer.scored(STOPPED + ms * MS, probability)
    return endpointer


def first_decision(endpointer: Endpointer) -> tuple[int, int] | None:
    """(position heard, commit position) relative to STOPPED, hearing a window at a time for 10 s."""
    for heard in range(STOPPED, STOPPED + 160_000, 512):
        end = endpointer.decide(heard)
        if end is not None:
            return heard - STOPPED, end - STOPPED
    return None


@pytest.mark.parametrize("silence", [0, 100, 200, 500, 510, 2_000])
def test_server_vad_is_obeyed_to_the_sample(silence):
    heard, end = first_decision(paused(Endpointer(ServerVad(silence_duration_ms=silence)), (96, 0.99), (192, 0.99)))
    assert end == silence * MS
    assert end <= heard < end + 512


def test_nothing_ends_while_there_is_speech_or_before_any():
    endpointer = Endpointer(ServerVad())
    assert endpointer.decide(1_000_000) is None
    endpointer.speech_started(4_608)
    assert endpointer.decide(1_000_000) is None


def test_going_on_cancels_the_pause():
    endpointer = paused(Endpointer(SemanticVad()), (96, 0.99))
    endpointer.speech_started(STOPPED + 2_000)
    assert first_decision(endpointer) is None
    endpointer.speech_stopped(STOPPED + 20_000)
    assert endpointer.decide(STOPPED + 200_000) is not None


def test_the_scores_of_an_earlier_pause_do_not_count():
    fresh = paused(Endpointer(SemanticVad()), (96, 0.1))
    again = paused(paused(Endpointer(SemanticVad()), (96, 0.99), (192, 0.99)), (96, 0.1))
    assert first_decision(again) == first_decision(fresh)


def test_a_turn_is_decided_once():
    endpointer = paused(Endpointer(SemanticVad()), (96, 0.99))
    assert first_decision(endpointer) is not None
    assert first_decision(endpointer) is None


def test_a_manual_commit_leaves_nothing_to_decide():
    endpointer = paused(Endpointer(SemanticVad()), (96, 0.99))
    endpointer.reset()
    assert first_decision(endpointer) is None
    endpointer.scored(STOPPED + 3_072, 0.99)
    assert first_decision(endpointer) is None


def test_a_sure_end_is_taken_after_192_ms_and_an_open_one_after_864():
    assert first_decision(paused(Endpointer(SemanticVad()), (96, 0.99), (192, 0.99)))[1] == 192 * MS
    assert first_decision(paused(Endpointer(SemanticVad()), (96, 0.0), (192, 0.0)))[1] == 864 * MS


def test_the_mean_of_the_pause_counts():
    assert first_decision(paused(Endpointer(SemanticVad()), (96, 0.0), (192, 1.0)))[1] == 640 * MS


def test_a_rising_belief_does_not_end_the_turn_in_the_past():
    endpointer = paused(Endpointer(SemanticVad()), (96, 0.8))
    endpointer.scored(STOPPED + 704 * MS, 0.99)
    assert endpointer.decide(STOPPED + 704 * MS) == STOPPED + 704 * MS


def test_without_scores_it_waits_as_if_it_knew_nothing():
    assert first_decision(paused(Endpointer(SemanticVad())))[1] == 640 * MS


def test_a_score_out_of_a_pause_is_ignored():
    endpointer = Endpointer(SemanticVad())
    endpointer.speech_started(0)
    endpointer.scored(1_000, 0.99)
    endpointer.speech_stopped(STOPPED)
    endpointer.scored(STOPPED - 512, 0.99)
    assert first_decision(endpointer)[1] == 640 * MS


def test_a_new_setting_holds_for_the_present_pause():
    endpointer = paused(Endpointer(ServerVad(silence_duration_ms=5_000)))
    endpointer.configure(ServerVad(silence_duration_ms=300))
    assert first_decision(endpointer)[1] == 300 * MS


@pytest.mark.parametrize("eagerness", list(Eagerness))
def test_the_wait_falls_as_the_belief_rises_and_keeps_within_the_protocol(eagerness):
    waits = [semantic_wait_ms(eagerness, n / 1_000) for n in range(1_001)]
    longest = {Eagerness.LOW: 8_000, Eagerness.MEDIUM: 4_000, Eagerness.AUTO: 4_000, Eagerness.HIGH: 2_000}[eagerness]
    assert waits == sorted(waits, reverse=True)
    assert longest >= waits[0] > waits[-1] > 0


def test_more_eager_is_never_slower_and_auto_is_medium():
    for n in range(101):
        low, medium, auto, high = (semantic_wait_ms(e, n / 100) for e in (Eagerness.LOW, Eagerness.MEDIUM, Eagerness.AUTO, Eagerness.HIGH))
        assert low > medium == auto > high
