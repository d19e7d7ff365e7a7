"""The books of a session's replies: what is being made, and what speculation brought and cost."""

import pytest

from server.replies import Replies
from streaming.events import Adopt, Drop, FinishReason, Respond, RespondOptions, ResponseFinished, Say, Speculate, Usage

OPTIONS = RespondOptions()


@pytest.fixture
def told() -> list[tuple[bool, int]]:
    return []


@pytest.fixture
def replies(told) -> Replies:
    return Replies(lambda adopted, wasted: told.append((adopted, wasted)))


def speculate(replies: Replies, response_id: str = "r") -> None:
    replies.ordered(Speculate(response_id, "item", "Hello.", OPTIONS))


def finish(replies: Replies, response_id: str = "r", reason: FinishReason = FinishReason.STOP, tokens: int = 5) -> None:
    replies.finished(ResponseFinished(response_id, reason, None, Usage(9, 3, tokens)))


def test_replies_are_made_until_they_are_finished(replies, told) -> None:
    replies.ordered(Respond("a", OPTIONS))
    replies.ordered(Say("b", "Sorry?", OPTIONS))
    assert replies.count == 2
    finish(replies, "a")
    finish(replies, "b")
    finish(replies, "c")
    assert (replies.count, told) == (0, [])


def test_a_speculation_counts_from_its_adoption_to_its_end(replies, told) -> None:
    speculate(replies)
    assert replies.count == 0
    replies.ordered(Adopt("r"))
    assert replies.count == 1
    finish(replies)
    assert (replies.count, told) == (0, [(True, 0)])


def test_one_that_was_made_whole_is_not_waited_for(replies, told) -> None:
    speculate(replies)
    finish(replies)
    replies.ordered(Adopt("r"))
    assert (replies.count, told) == (0, [(True, 0)])


def test_what_a_dropped_one_had_decoded_is_wasted(replies, told) -> None:
    speculate(replies)
    replies.ordered(Drop("r"))
    assert (replies.count, told) == (0, [])  # the engine says at its end what it cost
    finish(replies, reason=FinishReason.ABORTED, tokens=7)
    finish(replies, reason=FinishReason.ABORTED, tokens=7)
    assert told == [(False, 7)]


def test_so_is_all_of_one_that_had_been_made(replies, told) -> None:
    speculate(replies)
    finish(replies, tokens=12)
    replies.ordered(Drop("r"))
    finish(replies, reason=FinishReason.ABORTED, tokens=12)
    assert told == [(False, 12)]


def test_the_next_is_none_of_the_last(replies, told) -> None:
    speculate(replies, "a")
    replies.ordered(Drop("a"))
    speculate(replies, "b")
    finish(replies, "a", FinishReason.ABORTED, 3)
    replies.ordered(Adopt("b"))
    assert (replies.count, told) == (1, [(False, 3), (True, 0)])


def test_dropped_ones_that_never_end_are_forgotten(replies, told) -> None:
    for number in range(100):
        speculate(replies, f"r{number}")
        replies.ordered(Drop(f"r{number}"))
    assert len(replies._dropped) == 8
    assert told == [(False, 0)] * 92
