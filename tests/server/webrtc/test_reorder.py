"""Packets in any order, with losses: out in order, each once, none kept waiting for long."""

from hypothesis import given
from hypothesis import strategies as st

from server.webrtc.reorder import ReorderBuffer


def pushed(numbers: list[int]) -> tuple[list[list[int]], ReorderBuffer[int]]:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    return [buffer.push(number, number, float(at)) for at, number in enumerate(numbers)], buffer


def test_what_comes_in_order_does_not_wait() -> None:
    assert pushed([65_534, 65_535, 0, 1])[0] == [[65_534], [65_535], [0], [1]]


def test_one_that_comes_late_is_put_in_its_place() -> None:
    out, buffer = pushed([1, 3, 4, 2, 5])
    assert out == [[1], [], [], [2, 3, 4], [5]]
    assert (buffer.lost, buffer.late) == (0, 0)


def test_how_long_each_has_waited() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for number, now in ((1, 0.0), (3, 0.02), (2, 0.05)):
        buffer.push(number, number, now)
    assert [round(wait, 3) for wait in buffer.waits] == [0.0, 0.03]


def test_one_that_does_not_come_is_waited_for_no_longer_than_three_others() -> None:
    out, buffer = pushed([1, 3, 4, 5, 6, 2])
    assert out == [[1], [], [], [], [3, 4, 5, 6], []]
    assert (buffer.lost, buffer.late) == (1, 1)


def test_the_same_packet_twice_is_heard_once() -> None:
    out, buffer = pushed([1, 2, 2, 4, 4, 3])
    assert out == [[1], [2], [], [], [], [3, 4]]
    assert (buffer.late, buffer.repeated) == (0, 2)


def test_the_wait_grows_with_what_comes_late_and_shrinks_when_nothing_does() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for number in [0, *range(2, 9)]:
        buffer.push(number, number, 0.0)
    assert buffer.push(1, 1, 0.0) == []  # seven came first
    assert [len(buffer.push(number, number, 0.0)) for number in range(10, 17)] == [0] * 7
    assert buffer.push(9, 9, 0.0) == list(range(9, 17))
    for number in range(17, 17 + 2_500):
        buffer.push(number, number, 0.0)
    assert [len(buffer.push(number, number, 0.0)) for number in range(2_518, 2_522)] == [0, 0, 0, 4]


def test_however_late_packets_come_the_wait_has_an_end() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for number in [0, *range(2, 40)]:
        buffer.push(number, number, 0.0)
    buffer.push(1, 1, 0.0)
    assert [bool(buffer.push(number, number, 0.0)) for number in range(41, 54)] == [False] * 12 + [True]


def test_another_stream_begins_at_once() -> None:
    out, _ = pushed([10, 11, 13, 40_000, 40_001])
    assert out == [[10], [11], [], [13, 40_000], [40_001]]


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 65_535))
def test_whatever_comes_is_given_once_and_in_order(steps, start) -> None:
    numbers = [(start + at + step) & 0xFFFF for at, step in enumerate(steps)]
    buffer: ReorderBuffer[int] = ReorderBuffer()
    given_out = [packet for number in numbers for packet in buffer.push(number, number, 0.0)] + buffer.flush(0.0)
    assert len(set(given_out)) == len(given_out)
    distances = [(number - given_out[0]) & 0xFFFF for number in given_out]
    assert distances == sorted(distances)
    assert len(given_out) + buffer.late + buffer.repeated == len(numbers)
