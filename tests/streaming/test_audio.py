"""Coding against the standard library's `audioop`, resampling against soxr and against itself under other splits."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import (
    Pcm16Decoder,
    Samples,
    StreamResampler,
    WireDecoder,
    decode_alaw,
    decode_pcm16,
    decode_ulaw,
    encode_alaw,
    encode_pcm16,
    encode_ulaw,
    resample_clause,
    to_pcm16,
    to_samples,
)

IN_RATES = [(rate, 16_000) for rate in (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)]
OUT_RATES = [(source, target) for source in (16_000, 22_050, 24_000) for target in (8_000, 24_000)]
RATES = sorted({*IN_RATES, *OUT_RATES})
CHANGED = [pair for pair in RATES if pair[0] != pair[1]]
EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32_768, 32_768).astype(np.int16)


# ---------------------------------------------------------------------------------------------------------- coding


@pytest.fixture(scope="module")
def audioop():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("audioop", reason="audioop left the standard library in Python 3.13")


def test_ulaw_equals_audioop_on_every_code_and_sample(audioop):
    assert decode_ulaw(EVERY_CODE).tobytes() == audioop.ulaw2lin(EVERY_CODE, 2)
    assert encode_ulaw(EVERY_SAMPLE) == audioop.lin2ulaw(EVERY_SAMPLE.tobytes(), 2)


def test_alaw_equals_audioop_on_every_code_and_sample(audioop):
    assert decode_alaw(EVERY_CODE).tobytes() == audioop.alaw2lin(EVERY_CODE, 2)
    assert encode_alaw(EVERY_SAMPLE) == audioop.lin2alaw(EVERY_SAMPLE.tobytes(), 2)


def test_g711_codes_survive_a_round_trip():
    assert encode_alaw(decode_alaw(EVERY_CODE)) == EVERY_CODE
    # mu-law has two zeros (0x7F and 0xFF); both decode to 0, which encodes as 0xFF.
    assert encode_ulaw(decode_ulaw(EVERY_CODE)) == EVERY_CODE.replace(b"\x7f", b"\xff")


def test_pcm16_is_little_endian_and_survives_a_round_trip():
    assert decode_pcm16(b"\x01\x00\x00\x80").tolist() == [1, -32_768]
    assert encode_pcm16(np.array([1, -32_768], np.int16)) == b"\x01\x00\x00\x80"
    assert np.array_equal(to_pcm16(to_samples(EVERY_SAMPLE)), EVERY_SAMPLE)


def test_pcm16_refuses_half_a_sample_in_one_shot():
    with pytest.raises(ValueError, match="3 bytes"):
        decode_pcm16(b"abc")


def test_to_pcm16_clips():
    assert to_pcm16(np.array([1.0, 2.0, -1.0, -2.0, 0.0], np.float32)).tolist() == [32_767, 32_767, -32_768, -32_768, 0]


@given(st.binary(max_size=64), st.lists(st.integers(0, 64), max_size=8))
def test_pcm16_decoder_gives_the_same_samples_for_any_split(data, cuts):
    decoder = Pcm16Decoder()
    bounds = sorted({0, len(data), *(c for c in cuts if c < len(data))})
    got = [s for start, stop in pairwise(bounds) for s in decoder.push(data[start:stop]).tolist()]
    assert got == decode_pcm16(data[: len(data) & ~1]).tolist()


def test_pcm16_decoder_forgets_half_a_sample_on_flush():
    decoder = Pcm16Decoder()
    assert decoder.push(b"\x01").tolist() == []
    assert decoder.flush().tolist() == []
    assert decoder.push(b"\x02\x00").tolist() == [2]


# ------------------------------------------------------------------------------------------------------ resampling


def noise(count: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype(np.float32)


def tone(frequency: float, rate: int, seconds: float = 0.5) -> Samples:
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def streamed(samples: Samples, source: int, target: int, cuts: list[int] | None = None) -> Samples:
    resampler = StreamResampler(source, target)
    bounds = sorted({0, len(samples), *(c % (len(samples) + 1) for c in cuts or [])})
    return np.concatenate([*(resampler.push(samples[a:b]) for a, b in pairwise(bounds)), resampler.flush()])


def level_db(samples: Samples, edge: int) -> float:
    """Level of the middle against a full-scale sine, in dB."""
    return float(10 * np.log10(2 * np.mean(samples[edge:-edge].astype(np.float64) ** 2) + 1e-20))


@pytest.mark.parametrize(("source", "target"), RATES)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 5_000), max_size=12))
def test_any_split_gives_bit_identical_output(source, target, cuts):
    samples = noise(4_321)
    assert np.array_equal(streamed(samples, source, target, cuts), streamed(samples, source, target))


@pytest.mark.parametrize(("source", "target"), RATES)
def test_single_samples_give_the_same_as_a_whole(source, target):
    samples = noise(700)
    assert np.array_equal(streamed(samples, source, target, list(range(700))), streamed(samples, source, target))


@pytest.mark.parametrize(("source", "target"), RATES)
def test_length_is_that_of_the_same_time(source, target):
    for count in (0, 1, 2, 3, 441, 1_000):
        assert len(streamed(noise(count), source, target)) == -(-count * target // source)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_at_most_5_ms_are_held_back(source, target):
    resampler, pushed, got = StreamResampler(source, target), 0, 0
    for _ in range(60):
        pushed += source // 90
        got += len(resampler.push(noise(source // 90)))
        assert got * source >= (pushed - source // 200) * target


@pytest.mark.parametrize(("source", "target"), CHANGED)
def test_passband_equals_soxr_in_level_and_position(source, target):
    # Up to 3.4 kHz for telephone rates and 7.4 kHz otherwise, against a band-limited mix of tones, sample by sample.
    top = 3_400 if min(source, target) == 8_000 else 7_400
    samples = sum((tone(f, source) for f in np.linspace(100, top, 7)), np.zeros(source // 2, np.float32)) / 8
    got, reference = streamed(samples, source, target), soxr.resample(samples, source, target, "VHQ")
    edge = target // 50
    count = min(len(got), len(reference)) - edge
    assert np.abs(got[edge:count] - reference[edge:count]).max() < 2e-3  # -54 dB


@pytest.mark.parametrize(("source", "target"), [pair for pair in CHANGED if pair[0] > pair[1]])
def test_what_would_alias_is_gone(source, target):
    for frequency in np.linspace(target / 2 + 50, source / 2 - 100, 9):
        assert level_db(streamed(tone(frequency, source), source, target), target // 50) < -60


@pytest.mark.parametrize(("source", "target"), [pair for pair in CHANGED if pair[0] < pair[1]])
def test_images_are_gone(source, target):
    frequency = source * 0.4
    got = streamed(tone(frequency, source), source, target)
    spectrum = np.abs(np.fft.rfft(got * np.hanning(len(got))))
    above = spectrum[int(len(spectrum) * (source / 2 + 200) / (target / 2)) :]
    assert above.max() < spectrum.max() * 1e-3  # -60 dB


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_constant_passes_exactly(source, target):
    got = streamed(np.full(source // 10, 0.25, np.float32), source, target)
    edge = target // 150
    assert np.abs(got[edge:-edge] - 0.25).max() < 1e-6


def test_flush_and_reset_begin_anew():
    resampler = StreamResampler(8_000, 16_000)
    first = np.concatenate((resampler.push(noise(333)), resampler.flush()))
    second = np.concatenate((resampler.push(noise(333)), resampler.flush()))
    resampler.push(noise(50, seed=1))
    resampler.reset()
    third = np.concatenate((resampler.push(noise(333)), resampler.flush()))
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


@pytest.mark.parametrize(("source", "target"), [(0, 16_000), (16_000, -1), (15_999, 16_000)])
def test_impossible_rates_are_refused(source, target):
    with pytest.raises(ValueError, match=str(source)):
        StreamResampler(source, target)


def test_a_clause_keeps_its_length_and_place():
    got = resample_clause(tone(440, 22_050), 22_050, 24_000)
    assert got.dtype == np.float32
    assert abs(len(got) - 12_000) <= 1
    assert np.abs(got[500:-500] - tone(440, 24_000)[500 : len(got) - 500]).max() < 1e-3
    same = noise(10)
    assert resample_clause(same, 8_000, 8_000) is same


# ------------------------------------------------------------------------------------------------------ wire input


@pytest.mark.parametrize(("encoding", "rate"), [("pcm16", 24_000), ("pcm16", 16_000), ("pcmu", 8_000), ("pcma", 8_000), ("pcm16", 44_100)])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 6_000), max_size=8))
def test_frames_are_contiguous_and_do_not_depend_on_the_split(encoding, rate, cuts):
    pcm = to_pcm16(noise(3_000))
    data = {"pcm16": encode_pcm16, "pcmu": encode_ulaw, "pcma": encode_alaw}[encoding](pcm)
    decoder = WireDecoder(encoding, rate, at=1_000)
    bounds = sorted({0, len(data), *(c % len(data) for c in cuts)})
    frames = [f for f in (*(decoder.push(data[a:b]) for a, b in pairwise(bounds)), decoder.flush()) if f is not None]
    assert frames[0].at == 1_000
    assert all(b.at == a.at + len(a.pcm) for a, b in pairwise(frames))
    assert decoder.at == frames[-1].at + len(frames[-1].pcm) == 1_000 + -(-3_000 * 16_000 // rate)
    whole = WireDecoder(encoding, rate)
    rest = [f.pcm for f in (whole.push(data), whole.flush()) if f is not None]
    assert np.array_equal(np.concatenate([f.pcm for f in frames]), np.concatenate(rest))


def test_wire_decoder_completes_nothing_from_half_a_sample_and_can_skip():
    decoder = WireDecoder("pcm16", 16_000)
    assert decoder.push(b"\x01") is None
    decoder.reset(at=500)
    frame = decoder.push(b"\x00\x40")
    assert frame is not None
    assert (frame.at, frame.pcm.tolist()) == (500, [0.5])


def test_wire_decoder_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="opus"):
        WireDecoder("opus", 48_000)
