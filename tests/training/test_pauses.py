"""Which pauses are learned from, and as what."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from training.end_of_turn import area_under_curve
from training.pauses import Clip, Listener, Pauses, Source

GOLDEN = Path(__file__).parents[1] / "golden"


class Counting:
    """A turn encoder whose one feature is how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def features(self, _: Samples) -> Samples:
        self.asked += 1
        return np.array([self.asked], np.float32)


@pytest.fixture
def source(tmp_path) -> Source:
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "noise.wav", rng.normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"path": "noise.wav", "part": "train", "kind": "noise", "set": "esc10"}))
    return Source(tmp_path, {}, seed=1)


def words(*, tail_ms: int) -> Samples:
    """Two questions of one man with 600 ms of nothing between, cut `tail_ms` after his last word."""
    pcm, _ = soundfile.read(GOLDEN / "seine.flac", dtype="float32")
    loud = np.flatnonzero(np.abs(pcm) > 0.02)
    said = pcm[loud[0] : loud[-1]]
    return np.concatenate((said, np.zeros(600 * 16, np.float32), said, np.zeros(tail_ms * 16, np.float32)))


def heard(source: Source, clip: Clip, **shares: float) -> Pauses:
    return Listener(Counting(), source, shares.get("noisy", 0.0), shares.get("telephone", 0.0)).hear(clip, seed=3)


def test_a_pause_inside_is_a_hold_and_the_last_one_an_end(source):
    pauses = heard(source, Clip("barista", "c1", lambda: words(tail_ms=400), finished=None))
    assert pauses.ends.tolist() == [False, False, True, True]
    assert pauses.sources == ["barista"] * 4
    assert pauses.speakers == ["c1"] * 4
    # Later marks of the Ear were scored too, and are not learned from.
    assert pauses.features[:, 0].tolist()[:2] == [1, 2]


def test_the_end_of_a_recording_cut_at_its_last_word_is_not_learned_from(source):
    pauses = heard(source, Clip("barista", "c1", lambda: words(tail_ms=0), finished=None))
    assert pauses.ends.tolist() == [False, False]


@pytest.mark.parametrize("finished", [True, False])
def test_a_synthetic_caller_says_themself_whether_they_go_on(source, finished):
    pauses = heard(source, Clip("synthetic", "af_sky", lambda: words(tail_ms=0), finished=finished))
    assert pauses.ends.tolist() == [False, False, finished, finished]


def test_noise_and_telephone_change_the_sound_and_not_the_labels(source):
    clip = Clip("barista", "c1", lambda: words(tail_ms=400), finished=None)
    assert heard(source, clip, noisy=1.0, telephone=1.0).ends.tolist() == [False, False, True, True]


def test_without_recordings_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data names the folder"):
        Source(tmp_path, {}, seed=1)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    ends = np.array([True, False, True, False])
    assert area_under_curve(np.array([4.0, 3.0, 2.0, 1.0]), ends) == 0.75
