"""Packets with losses: every piece at its place, copies used where there are some, long losses left silent."""

import numpy as np
import pytest

from server.webrtc.opus import RATE, carries_copy
from server.webrtc.opus_stream import OpusStream

FRAME = RATE // 50
WRAP = 1 << 32


def heard(stream: OpusStream, packets: list[bytes], numbers: list[int], begin: int = 0, first: int = 0) -> list[tuple[int, int]]:
    """(start, samples) of every piece, positions from `begin`."""
    pieces = []
    for number in numbers:
        timestamp = (begin + number * FRAME) % WRAP
        pieces += [(at - begin, len(pcm)) for at, pcm in stream.push((first + number) & 0xFFFF, timestamp, packets[number])]
    return pieces


@pytest.fixture
def packets(opus_packets, voice) -> list[bytes]:
    return opus_packets(voice(1.0))


def test_nothing_is_made_up_where_nothing_is_lost(packets) -> None:
    stream = OpusStream()
    assert heard(stream, packets, [0, 1, 2]) == [(0, FRAME), (FRAME, FRAME), (2 * FRAME, FRAME)]
    assert (stream.concealed, stream.recovered) == (0, 0)


def test_a_lost_packet_is_concealed_in_its_place(packets) -> None:
    stream = OpusStream()
    assert heard(stream, packets, [0, 2]) == [(0, FRAME), (FRAME, FRAME), (2 * FRAME, FRAME)]
    assert (stream.concealed, stream.recovered) == (1, 0)


def test_the_last_of_several_is_taken_from_the_copy(opus_packets, voice) -> None:
    packets, stream = opus_packets(voice(2.0), loss=20), OpusStream()
    last = next(number for number in range(20, 100) if carries_copy(packets[number]))
    pieces = heard(stream, packets, [*range(last - 3), last])
    assert pieces[-3:] == [((last - 3) * FRAME, 2 * FRAME), ((last - 1) * FRAME, FRAME), (last * FRAME, FRAME)]
    assert (stream.concealed, stream.recovered) == (2, 1)


def test_of_a_long_loss_only_the_ends_are_made_up(packets) -> None:
    stream = OpusStream()
    assert heard(stream, packets, [0, 41]) == [(0, FRAME), (FRAME, 5 * FRAME), (40 * FRAME, FRAME), (41 * FRAME, FRAME)]
    assert stream.concealed == 6


def test_a_sender_that_pauses_has_lost_nothing(packets) -> None:
    stream = OpusStream()
    stream.push(7, 0, packets[0])
    assert [(at, len(pcm)) for at, pcm in stream.push(8, 20 * FRAME, packets[1])] == [(20 * FRAME, FRAME)]
    assert stream.concealed == 0


def test_numbers_and_timestamps_that_wrap_go_on(packets) -> None:
    stream = OpusStream()
    assert heard(stream, packets, [0, 1, 3], begin=WRAP - FRAME, first=65_535)[-1] == (3 * FRAME, FRAME)
    assert stream.concealed == 1


def test_a_packet_that_is_no_opus_is_counted_and_the_next_is_heard(packets) -> None:
    stream = OpusStream()
    heard(stream, packets, [0])
    assert stream.push(1, FRAME, b"\xff\xff") == []
    assert heard(stream, packets, [2]) == [(2 * FRAME, FRAME)]
    assert stream.damaged == 1


def test_a_jump_back_is_given_as_it_is(packets) -> None:
    stream = OpusStream()
    heard(stream, packets, [5])
    ((at, pcm),) = stream.push(6, 3 * FRAME, packets[6])
    assert (at, len(pcm)) == (3 * FRAME, FRAME)
    assert not np.isnan(pcm).any()
