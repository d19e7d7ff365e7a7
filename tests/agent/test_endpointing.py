"""The endpointer on scripted evidence: exact positions, no models."""

import pytest

from agent.endpointing import Endpointer, pause_density, semantic_wait_ms
from agent.settings import Eagerness, SemanticVad, ServerVad
from agent.wording import Asked

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


def test_a_sure_end_is_taken_sooner_than_an_open_one():
    sure = first_decision(paused(Endpointer(SemanticVad()), (96, 0.99), (192, 0.99)))[1]
    open_ = first_decision(paused(Endpointer(SemanticVad()), (96, 0.0), (192, 0.0)))[1]
    assert 192 * MS <= sure < open_ <= 2_000 * MS


def test_the_mean_of_the_pause_counts():
    mixed = first_decision(paused(Endpointer(SemanticVad()), (96, 0.01), (192, 0.99)))
    assert mixed == first_decision(paused(Endpointer(SemanticVad()), (96, 0.5), (192, 0.5)))


def test_the_shape_of_the_words_and_what_was_asked_count():
    def wait(words: str, asked: Asked = Asked.NOTHING) -> int:
        endpointer = paused(Endpointer(SemanticVad()), (96, 0.1))
        endpointer.asked = asked
        endpointer.worded(words, STOPPED + 96 * MS)
        return first_decision(endpointer)[1]

    assert max(wait("Is it far?"), wait("It is far.")) < wait("It is far and...")
    assert wait("Yes.", Asked.CHOICE) < wait("Yes.")
    assert wait("My number is 4, 1, 5.") > wait("I have 415.")
    assert wait("4, 1, 5.", Asked.NUMBER) > wait("4, 1, 5.")


def test_a_rising_belief_does_not_end_the_turn_in_the_past():
    endpointer = paused(Endpointer(SemanticVad()), (96, 0.5))
    endpointer.worded("Yes.", STOPPED + 160 * MS)
    endpointer.scored(STOPPED + 704 * MS, 0.99)
    assert endpointer.decide(STOPPED + 704 * MS) == STOPPED + 704 * MS


def test_without_scores_it_waits_as_if_it_knew_nothing():
    assert first_decision(paused(Endpointer(SemanticVad()))) == first_decision(paused(Endpointer(SemanticVad()), (96, 0.5)))


def test_a_score_out_of_a_pause_is_ignored():
    endpointer = Endpointer(SemanticVad())
    endpointer.speech_started(0)
    endpointer.scored(1_000, 0.99)
    endpointer.speech_stopped(STOPPED)
    endpointer.scored(STOPPED - 512, 0.99)
    assert first_decision(endpointer) == first_decision(paused(Endpointer(SemanticVad())))


def test_a_new_setting_holds_for_the_present_pause():
    endpointer = paused(Endpointer(ServerVad(silence_duration_ms=5_000)))
    endpointer.configure(ServerVad(silence_duration_ms=300))
    assert first_decision(endpointer)[1] == 300 * MS


@pytest.mark.parametrize("cost", [300.0, 2_000.0, 12_000.0])
def test_the_wait_falls_as_the_belief_rises(cost):
    waits = [semantic_wait_ms(n / 1_000, cost, 4_000) for n in range(1_001)]
    assert waits == sorted(waits, reverse=True)
    assert (waits[0], waits[-1]) == (4_000, 0)


def test_it_pays_to_wait_until_then_and_not_beyond():
    """The rule of the module's docstring: at the wait it gives the density of pauses has fallen to belief / ((1 - belief) cost)."""
    belief, cost = 0.7, 2_000.0
    wait = semantic_wait_ms(belief, cost, 60_000)
    assert pause_density(wait) == pytest.approx(belief / ((1 - belief) * cost), rel=1e-6)
    assert pause_density(wait - 1) > pause_density(wait) > pause_density(wait + 1)


def test_more_eager_is_never_slower_and_auto_is_medium():
    def waits(eagerness: Eagerness) -> list[int]:
        return [first_decision(paused(Endpointer(SemanticVad(eagerness)), (96, n / 20)))[1] for n in range(21)]

    low, medium, auto, high = (waits(e) for e in (Eagerness.LOW, Eagerness.MEDIUM, Eagerness.AUTO, Eagerness.HIGH))
    assert medium == auto
    assert all(slow >= middle >= fast for slow, middle, fast in zip(low, medium, high, strict=True))
    assert sum(low) > sum(medium) > sum(high)
