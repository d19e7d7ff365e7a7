"""Stretches of a convolution equal the whole, and how far it reaches is found out."""

from collections.abc import Callable

import numpy as np
import pytest

from streaming.models.frames import FrameNetwork, Frames

EXAMPLE = np.ones((1, 2, 3), np.float32)


def convolution(before: int, after: int, ratio: int = 1) -> Callable[[Frames], Frames]:
    """One channel: for each frame the sum of all channels of those around it, `ratio` times."""

    def compute(frames: Frames) -> Frames:
        padded = np.pad(frames.sum(axis=1), ((0, 0), (before, after)))
        sums = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1).sum(axis=2)
        return np.repeat(sums, ratio, axis=1)[None].astype(np.float32)

    return compute


@pytest.mark.parametrize(("before", "after", "reach"), [(0, 0, 0), (3, 3, 3), (5, 2, 5), (0, 64, 64)])
def test_the_reach_is_found_out(before: int, after: int, reach: int) -> None:
    assert FrameNetwork(convolution(before, after), 1, EXAMPLE).reach == reach
    assert FrameNetwork(convolution(before, after, 4), 4, EXAMPLE).reach == reach


def test_a_network_that_depends_on_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="this one depends on more"):
        FrameNetwork(convolution(65, 0), 1, EXAMPLE)
    with pytest.raises(ValueError, match="this one depends on more"):
        FrameNetwork(lambda frames: np.cumsum(frames, axis=2, dtype=np.float32), 1, EXAMPLE)


def test_a_network_at_rest_reaches_nowhere() -> None:
    assert FrameNetwork(np.zeros_like, 1, EXAMPLE).reach == 0


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 40), (7, 8), (2, 37), (39, 40), (12, 20)])
def test_a_part_is_that_part_of_the_whole(ratio: int, start: int, end: int) -> None:
    compute = convolution(5, 2, ratio)
    network = FrameNetwork(compute, ratio, EXAMPLE)
    frames = np.random.default_rng(1).integers(-9, 9, (1, 2, 40)).astype(np.float32)
    whole = compute(frames)
    assert np.array_equal(network.run(frames, start, end), whole[:, :, start * ratio : end * ratio])
    # Nothing beyond its reach is looked at.
    assert np.array_equal(network.run(frames[:, :, : end + 5], start, end), whole[:, :, start * ratio : end * ratio])


def test_computed_elsewhere_it_reaches_as_far_and_is_not_measured_again() -> None:
    network = FrameNetwork(convolution(3, 2), 1, EXAMPLE)
    moved = network.computed_by(lambda frames: frames + 7.0)
    assert (moved.reach, network.reach) == (3, 3)
    np.testing.assert_array_equal(moved.run(EXAMPLE, 1, 2), EXAMPLE[:, :, 1:2] + 7.0)
