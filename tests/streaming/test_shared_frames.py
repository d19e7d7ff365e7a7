"""One encoder for two readers, on a tiny Whisper: whoever asks first, and whoever is dropped, each frame is computed once."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.batching import Call, completed
from streaming.encoder import Encode, EncoderStation, SoundStream
from streaming.recogniser import Recogniser
from streaming.shared_frames import SharedFrames, Tail

NOISE = (np.random.default_rng(4).standard_normal(160_000) * 0.1).astype(np.float32)


class CountingStation(EncoderStation):
    """Counts the frames that were asked for and computed."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__(recogniser.model.encoder, recogniser.encoder._silence)
        self.made = 0

    def run(self, calls: Sequence[Call]) -> None:
        self.made += sum(call.rows for call in dict.fromkeys(calls) if isinstance(call, Encode) and call.frames is None)
        super().run(calls)


@pytest.fixture
def station(tiny_recogniser: Recogniser) -> CountingStation:
    return CountingStation(tiny_recogniser)


def frames_of(frames: SharedFrames, tail: Tail) -> torch.Tensor:
    return torch.cat((*frames.blocks, tail.frames))


def test_a_second_reader_costs_nothing(station: CountingStation) -> None:
    frames = SharedFrames(SoundStream(station))
    frames.push(NOISE)
    first = completed(frames.block(0))
    assert first is not None
    tail = completed(frames.tail())
    made = station.made
    assert completed(frames.block(0)) is first
    assert completed(frames.tail()) is tail
    assert completed(frames.block(len(frames.blocks))) is None
    assert station.made == made
    assert (tail.start, tail.samples) == (sum(map(len, frames.blocks)), len(NOISE))


def test_a_call_that_two_wait_for_is_made_once(station: CountingStation) -> None:
    frames = SharedFrames(SoundStream(station))
    frames.push(NOISE[:20_000])
    one, other = frames.tail(), frames.tail()
    calls = [next(one), next(other)]
    assert calls[0] is calls[1]
    station.run(calls)
    assert station.made == calls[0].rows
    found = []
    for work in (one, other):
        with pytest.raises(StopIteration) as stop:
            next(work)
        found.append(stop.value.value)
    assert found[0] is found[1]


@pytest.mark.parametrize("readers", [1, 2])
def test_a_call_that_nobody_waits_for_any_more_is_not_made_for_who_asks_next(station: CountingStation, readers: int) -> None:
    frames = SharedFrames(SoundStream(station))
    frames.push(NOISE[:20_000])
    dropped, *others = (frames.tail() for _ in range(readers))
    calls = [next(work) for work in (dropped, *others)]
    dropped.close()
    frames.push(NOISE[20_000:30_000])
    assert (next(frames.tail()) is calls[0]) == bool(others)


@settings(deadline=None, max_examples=25)
@given(moves=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=5, max_size=60))
def test_readers_that_go_on_in_any_order_and_are_dropped_find_the_frames_of_one_alone(
    tiny_recogniser: Recogniser, moves: list[tuple[int, int]]
) -> None:
    """A move: sound comes, a reader asks, its call is made, or it is dropped."""
    frames, station = SharedFrames(SoundStream(tiny_recogniser.encoder)), tiny_recogniser.encoder
    pushed = 0
    works: list = [None, None, None]
    calls: list = [None, None, None]

    def advance(who: int) -> None:
        calls[who] = next(works[who], None)
        if calls[who] is None:
            works[who] = None

    for move, who in moves:
        if move < 2:
            frames.push(NOISE[pushed : pushed + 17_000])
            pushed = min(len(NOISE), pushed + 17_000)
        elif works[who] is None:
            works[who] = frames.tail() if move % 2 else frames.block(len(frames.blocks))
            advance(who)
        elif move == 2:
            works[who].close()
            works[who] = calls[who] = None
        else:
            station.run([calls[who]])
            advance(who)
    frames.push(NOISE[pushed:])
    alone = SharedFrames(SoundStream(station))
    alone.push(NOISE)
    assert torch.equal(frames_of(frames, completed(frames.tail())), frames_of(alone, completed(alone.tail())))
