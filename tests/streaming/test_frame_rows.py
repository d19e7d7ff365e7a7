"""Rows from the recogniser's own frames, on a tiny Whisper: whoever asks when, and however long the turn is."""

import gc
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streaming.audio import Samples
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.engine import Parts
from streaming.frame_rows import FrameRows
from streaming.recogniser import Recogniser
from streaming.transcriber import Transcriber

SECOND = 16_000
NOISE = (np.random.default_rng(4).standard_normal(60 * SECOND) * 0.1).astype(np.float32)
SILENCE = 26
"""Frames that Whisper is given behind the sound: the one that its last features reach into, and half a second of silence."""


class Plain:
    """A projector whose rows are the frames."""

    width = 16

    def stream(self) -> "Plain":
        return self

    def commit(self, frames: Tensor) -> Tensor:
        return frames

    def provisional(self, frames: Tensor) -> Tensor:
        return frames


class Listener:
    """A turn with its words and its rows."""

    def __init__(self, recogniser: Recogniser, rows: FrameRows) -> None:
        self.transcriber = Transcriber(recogniser)
        self.sound = Sound(AudioPath(rows).stream(self.transcriber), count(-1, -1), 1)

    def push(self, pcm: Samples) -> None:
        self.transcriber.push(pcm)
        self.sound.push(pcm)

    def rows(self) -> Tensor:
        completed(self.sound.conclude())
        return torch.stack([self.sound.rows[number] for number in self.sound.tokens])


@pytest.fixture
def plain(tiny_recogniser: Recogniser) -> Listener:
    return Listener(tiny_recogniser, FrameRows(Plain()))


@settings(deadline=None, max_examples=8)
@given(cuts=st.lists(st.integers(0, 6 * SECOND), max_size=8), looks=st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_rows_are_those_of_the_whole_whatever_is_asked_for_when(projecting_parts: Parts, cuts: list[int], looks: list[int]) -> None:
    path = projecting_parts.writer.template.path
    assert path is not None
    assert isinstance(path.encoder, FrameRows)
    recogniser = projecting_parts.recogniser
    assert isinstance(recogniser, Recogniser)
    whole, split = Listener(recogniser, path.encoder), Listener(recogniser, path.encoder)
    whole.push(NOISE[: 6 * SECOND])
    for piece, look in zip(np.split(NOISE[: 6 * SECOND], sorted(cuts)), looks, strict=False):
        split.push(piece)
        before = list(split.sound.committed)
        if look == 1:
            completed(split.transcriber.hypothesise())
        elif look:
            completed(split.sound.commit() if look == 2 else split.sound.conclude())
        assert split.sound.committed[: len(before)] == before
    rows = split.rows()
    assert len(rows) > 8
    assert torch.equal(rows, whole.rows())
    assert completed(split.transcriber.finish()).text == completed(whole.transcriber.finish()).text


def test_a_turn_of_many_windows_has_every_frame_once(plain: Listener, tiny_recogniser: Recogniser) -> None:
    at_once = Listener(tiny_recogniser, FrameRows(Plain()))
    at_once.push(NOISE)
    for start in range(0, len(NOISE), SECOND):
        plain.push(NOISE[start : start + SECOND])
        completed(plain.transcriber.hypothesise() if start % 3 else plain.sound.commit())
    rows = plain.rows()
    assert len(rows) == 60 * 50 + SILENCE
    assert torch.equal(rows, at_once.rows())
    # Up to the middle of what two windows have the first one's, then the next one's.
    window = tiny_recogniser.window()
    window.push(NOISE[26 * SECOND : 54 * SECOND])
    again = completed(window.frames.tail())
    second = torch.cat((*window.frames.blocks, again.frames))
    assert torch.equal(rows[27 * 50 : 53 * 50], second[50:1_350])


def test_a_window_that_ends_in_a_pause_is_heard_to_its_end_with_silence_behind_it(plain: Listener) -> None:
    plain.push(NOISE[: 22 * SECOND])
    plain.transcriber.mark_pause(22 * SECOND)
    plain.push(NOISE[22 * SECOND : 30 * SECOND])
    assert len(plain.rows()) == 30 * 50 + 2 * SILENCE


def test_what_the_next_window_may_repeat_is_not_final(plain: Listener) -> None:
    plain.push(NOISE[: 28 * SECOND])
    completed(plain.sound.conclude())
    assert 24 * 50 <= len(plain.sound.committed) <= 27 * 50
    assert len(plain.sound.tokens) == 28 * 50 + SILENCE


def test_a_sound_that_has_ended_keeps_its_rows_only(plain: Listener) -> None:
    plain.push(NOISE[: 2 * SECOND])
    plain.sound.end()
    tokens = len(plain.rows())
    assert plain.sound._stream is None
    gc.collect()
    assert plain.transcriber._followed() is None  # nobody reads along any more
    assert len(plain.rows()) == tokens == 2 * 50 + SILENCE


def test_a_sound_that_is_given_up_takes_nothing_more(plain: Listener) -> None:
    plain.push(NOISE[: 2 * SECOND])
    plain.sound.give_up()
    plain.push(NOISE[2 * SECOND :])
    gc.collect()
    assert plain.transcriber._followed() is None
    completed(plain.sound.conclude())
    assert not plain.sound.concluded
    assert completed(plain.transcriber.finish()).seconds == 60
