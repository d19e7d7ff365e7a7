import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import Samples
from streaming.batching import completed
from streaming.encoder import FRAME_SAMPLES, BlockPlan, EncoderStation, EncoderStream, hear_silence
from streaming.features import SILENCE, LogMel
from streaming.models.whisper import Silence, Span, Whisper

PLAN = BlockPlan(first=30, block=12, lookahead=8, silence=5)


@pytest.fixture(scope="module")
def station(tiny_whisper: Whisper) -> EncoderStation:
    return EncoderStation(tiny_whisper.encoder, Silence(hear_silence(tiny_whisper.encoder)[0]))


def sound(seconds: float) -> Samples:
    return (np.random.default_rng(5).standard_normal(int(seconds * 16_000)) * 0.1).astype(np.float32)


def committed(stream: EncoderStream) -> list[torch.Tensor]:
    frames = []
    while (block := completed(stream.commit())) is not None:
        frames.append(block)
    return frames


def test_blocks_are_cut_at_fixed_places(tiny_whisper: Whisper, station: EncoderStation) -> None:
    stream, mel = EncoderStream(station, PLAN), LogMel()
    stream.push(mel.push(sound(2.0)))  # 100 frames, of which the last one's windows are not complete
    assert [len(block) for block in committed(stream)] == [30, 12, 12, 12, 12, 12]
    assert stream.committed == 90
    tail = completed(stream.provisional(mel.tail()))
    assert len(tail) == 100 + 1 - 90 + PLAN.silence  # the windows of the last frame reach into one more
    assert stream.committed == 90


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 24_000), max_size=8), looks=st.lists(st.booleans(), min_size=9, max_size=9))
def test_any_split_and_any_look_at_the_tail_commits_the_same(
    tiny_whisper: Whisper, station: EncoderStation, cuts: list[int], looks: list[bool]
) -> None:
    at_once, mel = EncoderStream(station, PLAN), LogMel()
    at_once.push(mel.push(sound(1.5)))
    expected = torch.cat([*committed(at_once), completed(at_once.provisional(mel.tail()))])

    stream, mel, blocks = EncoderStream(station, PLAN), LogMel(), []
    for part, look in zip(np.split(sound(1.5), sorted(cuts)), looks, strict=False):
        stream.push(mel.push(part))
        blocks += committed(stream)
        if look:
            completed(stream.provisional(mel.tail()))
    assert torch.equal(torch.cat([*blocks, completed(stream.provisional(mel.tail()))]), expected)


def test_without_blocks_it_is_the_whole_encoder(tiny_whisper: Whisper, station: EncoderStation) -> None:
    encoder, mel = tiny_whisper.encoder, LogMel()
    features = np.concatenate((mel.push(sound(2.0)), mel.tail()))
    whole = torch.full((3003, 80), SILENCE)
    whole[:2], whole[2 : 2 + len(features)], whole[-1] = 0, torch.from_numpy(features), 0
    with torch.inference_mode():
        expected = encoder(encoder.stem(whole, 0), [Span(1500, 0, encoder.new_cache())])
    stream = EncoderStream(station, BlockPlan(first=1500, silence=1500 - 101))
    stream.push(features)
    frames = completed(stream.provisional(features[:0]))
    assert len(frames) == 1500
    # But for the very last frame, behind which the reference's convolutions see zeros and ours silence.
    torch.testing.assert_close(frames[:1400], expected[:1400], atol=2e-3, rtol=1e-3)


def test_silence_is_heard_as_silence(tiny_whisper: Whisper, station: EncoderStation) -> None:
    stream = EncoderStream(station, BlockPlan(silence=40))
    frames = completed(stream.provisional(np.zeros((0, 80), np.float32)))
    torch.testing.assert_close(frames, hear_silence(tiny_whisper.encoder)[1][:40], atol=1e-4, rtol=1e-4)


def test_streams_do_not_share_what_they_hear(tiny_whisper: Whisper, station: EncoderStation) -> None:
    one, other = (EncoderStream(station, PLAN) for _ in range(2))
    one.push(LogMel().push(sound(1.5)))
    committed(one)
    empty = np.zeros((0, 80), np.float32)
    completed(one.provisional(empty))
    alone = completed(EncoderStream(station, PLAN).provisional(empty))
    assert torch.equal(completed(other.provisional(empty)), alone)


def test_more_than_the_model_holds_is_refused(tiny_whisper: Whisper, station: EncoderStation) -> None:
    stream = EncoderStream(station)
    stream.push(np.zeros((3_000, 80), np.float32))
    committed(stream)
    with pytest.raises(ValueError, match="do not fit"):
        completed(stream.provisional(np.zeros((0, 80), np.float32)))


def test_what_is_held_is_bounded(tiny_whisper: Whisper, station: EncoderStation) -> None:
    stream, mel = EncoderStream(station, PLAN), LogMel()
    for part in np.split(sound(20.0), 20 * 16_000 // FRAME_SAMPLES):
        stream.push(mel.push(part))
        committed(stream)
        assert len(stream._mel) <= 2 + 2 * (PLAN.first + PLAN.lookahead) + 3


@pytest.mark.parametrize("wrong", [{"first": 0}, {"block": 0}, {"lookahead": -1}, {"silence": 0}])
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        BlockPlan(**wrong)
