"""The latency ledger: stages that add up to the whole, whatever happened and in whatever order."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ledger import STAGES, Ledger, TurnLedger, speculation_json
from streaming.events import (
    Adopt,
    AudioReady,
    CommitTurn,
    Drop,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    TranscriptDone,
)

OPTIONS = RespondOptions()


def a_turn(ledger: Ledger) -> TurnLedger | None:
    """Speech up to sample 16,000, received 100 late; the turn is committed 800 samples later."""
    for at in range(320, 17_000, 320):
        ledger.arrived(at, at + 100)
    ledger.fact(SpeechStopped(16_000, 0.1), 17_900)
    ledger.ordered(CommitTurn("item_1", 0, 16_800), 20_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 20_000)
    ledger.fact(TranscriptDone("item_1", "Hi", 0.9, "en"), 21_000)
    ledger.fact(TextDelta("resp_1", "Hello"), 22_000)
    ledger.fact(TextDelta("resp_1", " there."), 22_500)
    ledger.fact(TextDelta("resp_1", " You"), 23_000)
    ledger.fact(AudioReady("resp_1", 0, 4800, 12), 24_000)
    return ledger.sent("resp_1", 24_050)


def test_every_stage_is_measured() -> None:
    turn = a_turn(Ledger())
    assert turn == TurnLedger("item_1", "resp_1", (1_800, 2_100, 1_000, 0, 1_000, 500, 1_500, 50), total=24_050 - 16_100)


def test_the_event_adds_up_in_milliseconds() -> None:
    turn = a_turn(Ledger())
    assert turn is not None
    event = turn.to_json()
    stages = event["stages_ms"]
    assert isinstance(stages, dict)
    assert tuple(stages) == STAGES
    assert sum(stages.values()) == event["total_ms"] == 496.875


def test_an_adopted_speculation_has_no_time_of_its_own() -> None:
    ledger = Ledger()
    ledger.arrived(16_000, 16_000)
    ledger.fact(SpeechStopped(16_000, 0.1), 17_600)
    ledger.fact(TextDelta("resp_1", "Hello."), 18_000)
    ledger.fact(AudioReady("resp_1", 0, 4800, 6), 19_000)
    ledger.ordered(CommitTurn("item_1", 0, 16_800), 20_000)
    ledger.ordered(Adopt("resp_1"), 20_000)
    turn = ledger.sent("resp_1", 20_010)
    assert turn is not None
    assert turn.stages == (1_600, 2_400, 0, 0, 0, 0, 0, 10)
    assert turn.speculated
    assert turn.to_json()["speculated"] is True


def test_what_is_made_after_the_adoption_counts_from_it() -> None:
    ledger = Ledger()
    ledger.arrived(16_000, 16_000)
    ledger.fact(SpeechStopped(16_000, 0.1), 17_600)
    ledger.fact(TextDelta("resp_1", "Hello."), 18_000)
    ledger.ordered(CommitTurn("item_1", 0, 16_800, "Hi"), 20_000)
    ledger.ordered(Adopt("resp_1"), 20_000)
    ledger.fact(AudioReady("resp_1", 0, 4800, 6), 21_000)
    turn = ledger.sent("resp_1", 21_010)
    assert turn is not None
    assert turn.stages == (1_600, 2_400, 0, 0, 0, 0, 1_000, 10)
    assert turn.total == 21_010 - 16_000


def test_nothing_of_a_dropped_speculation_counts() -> None:
    ledger = Ledger()
    ledger.fact(TextDelta("resp_0", "Hello."), 0)
    ledger.ordered(Drop("resp_0"), 10)
    turn = a_turn(ledger)
    assert turn == a_turn(Ledger())
    assert not turn.speculated
    assert not ledger._replies


def test_a_manual_commit_counts_from_its_last_sample() -> None:
    ledger = Ledger()
    ledger.arrived(16_000, 16_500)
    ledger.ordered(CommitTurn("item_1", 0, 16_000), 17_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 18_000)
    turn = ledger.sent("resp_1", 19_000)
    assert turn is not None
    assert turn.total == 2_500


def test_a_manual_commit_counts_from_its_last_sample_whatever_the_ear_heard_before() -> None:
    ledger = Ledger()
    ledger.arrived(8_000, 8_000)
    ledger.arrived(16_000, 16_500)
    ledger.fact(SpeechStopped(8_000, 0.1), 9_600)
    ledger.commit_asked(16_000)
    ledger.ordered(CommitTurn("item_1", 0, 16_000), 17_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 18_000)
    turn = ledger.sent("resp_1", 19_000)
    assert turn is not None
    assert (turn.total, turn.stages[0]) == (2_500, 0)


@pytest.mark.parametrize("start", [8_000, 12_000])
def test_a_pause_of_an_earlier_turn_is_not_this_ones_end(start: int) -> None:
    """That turn was discarded, or cleared by the client."""
    ledger = Ledger()
    ledger.arrived(8_000, 8_000)
    ledger.arrived(32_000, 32_000)
    ledger.fact(SpeechStopped(8_000, 0.1), 9_600)
    ledger.ordered(CommitTurn("item_1", start, 32_000), 33_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 33_000)
    turn = ledger.sent("resp_1", 34_000)
    assert turn is not None
    assert turn.total == 2_000


def test_a_pause_after_which_the_caller_went_on_is_no_end() -> None:
    ledger = Ledger()
    ledger.arrived(8_000, 8_000)
    ledger.arrived(32_000, 32_000)
    ledger.fact(SpeechStopped(8_000, 0.1), 9_600)
    ledger.fact(SpeechStarted(12_000, 0.9), 13_000)
    ledger.ordered(CommitTurn("item_1", 0, 32_000), 33_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 33_000)
    turn = ledger.sent("resp_1", 34_000)
    assert turn is not None
    assert turn.total == 2_000


def called(ledger: Ledger) -> None:
    """A turn that is answered by a call only, 2,000 after its commit."""
    ledger.arrived(16_000, 16_000)
    ledger.ordered(CommitTurn("item_1", 0, 16_000), 17_000)
    ledger.ordered(Respond("resp_1", OPTIONS), 17_000)
    ledger.fact(TranscriptDone("item_1", "Hi", 0.9, "en"), 18_000)
    ledger.fact(ResponseFinished("resp_1", FinishReason.TOOL_CALLS), 19_000)


def test_the_answer_after_a_call_is_the_turns_and_the_tools_time_a_stage() -> None:
    ledger = Ledger()
    called(ledger)
    ledger.ordered(Respond("resp_2", OPTIONS), 25_000)
    ledger.fact(TextDelta("resp_2", "Sunny."), 26_000)
    ledger.fact(AudioReady("resp_2", 0, 4800, 6), 27_000)
    assert ledger.sent("resp_2", 27_100) == TurnLedger("item_1", "resp_2", (0, 1_000, 1_000, 7_000, 1_000, 0, 1_000, 100), 11_100)
    assert not ledger._replies


def test_calls_may_follow_calls() -> None:
    ledger = Ledger()
    called(ledger)
    ledger.ordered(Respond("resp_2", OPTIONS), 25_000)
    ledger.fact(ResponseFinished("resp_2", FinishReason.TOOL_CALLS), 26_000)
    ledger.ordered(Respond("resp_3", OPTIONS), 30_000)
    turn = ledger.sent("resp_3", 31_000)
    assert turn is not None
    assert (turn.stages[STAGES.index("tools")], turn.total) == (12_000, 15_000)


def test_once_the_caller_speaks_again_the_answer_is_to_that() -> None:
    ledger = Ledger()
    called(ledger)
    ledger.arrived(32_000, 32_000)
    ledger.ordered(CommitTurn("item_2", 16_000, 32_000), 33_000)
    ledger.ordered(Respond("resp_2", OPTIONS), 33_000)
    turn = ledger.sent("resp_2", 34_000)
    assert turn is not None
    assert (turn.item_id, turn.total) == ("item_2", 2_000)
    ledger.ordered(Respond("resp_3", OPTIONS), 35_000)
    assert ledger.sent("resp_3", 36_000) is None


def test_what_was_heard_is_told_once_and_only_of_what_was_sent() -> None:
    ledger = Ledger()
    turn = a_turn(ledger)
    assert turn is not None
    assert ledger.heard("resp_2", 25_000, reported=True) is None
    assert ledger.heard("resp_1", 25_010, reported=True) == replace(turn, played=960, reported=True)
    assert ledger.heard("resp_1", 26_000, reported=True) is None


def test_the_event_of_what_was_heard() -> None:
    turn = a_turn(Ledger())
    assert turn is not None
    assert replace(turn, played=960, reported=True).to_json() == {
        "type": "vivavoce.ledger.played",
        "item_id": "item_1",
        "response_id": "resp_1",
        "played_ms": 60.0,
        "total_ms": 556.875,
        "reported": True,
    }


def test_a_reply_that_no_turn_asked_for_has_no_ledger() -> None:
    ledger = Ledger()
    ledger.ordered(Respond("resp_1", OPTIONS), 0)
    assert ledger.sent("resp_1", 10) is None


def test_only_the_first_audio_counts() -> None:
    ledger = Ledger()
    assert a_turn(ledger) is not None
    assert ledger.sent("resp_1", 30_000) is None


def test_what_never_ends_is_forgotten() -> None:
    ledger = Ledger()
    for n in range(10_000):
        ledger.arrived(n, n)
        ledger.ordered(CommitTurn(f"item_{n}", 0, n), n)
        ledger.ordered(Respond(f"resp_{n}", OPTIONS), n)
        ledger.fact(TextDelta(f"resp_{n}", "x"), n)
        if n < 100:
            assert ledger.sent(f"resp_{n}", n) is not None
    assert (len(ledger._arrivals), len(ledger._turns), len(ledger._replies), len(ledger._sent)) == (4_000, 8, 16, 8)


EVENTS = st.sampled_from(["stopped", "transcript", "text", "audio", "commit", "respond", "adopt", "drop"])


@given(st.lists(st.tuples(EVENTS, st.integers(0, 5_000)), max_size=20))
def test_stages_add_up_in_any_order(steps: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    ledger.arrived(1_000, 1_000)
    now = 1_000
    for name, wait in steps:
        now += wait
        match name:
            case "stopped":
                ledger.fact(SpeechStopped(1_000, 0.1), now)
            case "transcript":
                ledger.fact(TranscriptDone("i", "", 1.0, "en"), now)
            case "text":
                ledger.fact(TextDelta("r", "word"), now)
            case "audio":
                ledger.fact(AudioReady("r", 0, 1, 4), now)
            case "commit":
                ledger.ordered(CommitTurn("i", 0, 1_000), now)
            case "adopt":
                ledger.ordered(Adopt("r"), now)
            case "drop":
                ledger.ordered(Drop("r"), now)
            case _:
                ledger.ordered(Respond("r", OPTIONS), now)
    ledger.ordered(CommitTurn("i", 0, 1_000), now)
    ledger.ordered(Respond("r", OPTIONS), now)
    turn = ledger.sent("r", now + 7)
    assert turn is not None
    assert sum(turn.stages) == turn.total == now + 7 - 1_000
    assert min(turn.stages) >= 0


def test_what_becomes_of_a_prepared_answer_is_told() -> None:
    orders = (Speculate("r", "i", "What is", OPTIONS), Drop("r"), Adopt("r"), Respond("r", OPTIONS))
    told = [speculation_json(order) for order in orders]
    assert told[:3] == [{"type": "vivavoce.speculation", "response_id": "r", "state": state} for state in ("begun", "dropped", "adopted")]
    assert told[3] is None
