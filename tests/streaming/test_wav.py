"""WAV read from bytes that anybody may have sent."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.wav import WavError, read_wav, wav_bytes

TONE = np.sin(np.arange(2_000) / 7).astype(np.float32) * 0.5


def written(subtype: str, channels: int = 1, rate: int = 16_000, layout: str = "WAV") -> bytes:
    """What soundfile writes: another implementation than ours."""
    file = io.BytesIO()
    soundfile.write(file, np.repeat(TONE[:, None], channels, axis=1), rate, subtype=subtype, format=layout)
    return file.getvalue()


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_U8", 0.01), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 1e-6), ("ULAW", 0.02), ("ALAW", 0.02)],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("layout", ["WAV", "WAVEX"])
def test_codings(subtype: str, tolerance: float, channels: int, layout: str) -> None:
    wav = read_wav(written(subtype, channels, 8_000, layout))
    assert wav.rate == 8_000
    assert wav.samples.dtype == np.float32
    np.testing.assert_allclose(wav.samples, TONE, atol=tolerance)


def test_what_we_write_others_read() -> None:
    pcm = (TONE * 32_767).astype(np.int16)
    read, rate = soundfile.read(io.BytesIO(wav_bytes(pcm, 24_000)), dtype="int16")
    assert rate == 24_000
    assert np.array_equal(read, pcm)
    assert len(read_wav(wav_bytes(pcm, 24_000)).samples) == len(pcm)


def test_sizes_are_not_believed() -> None:
    data = bytearray(written("PCM_16"))
    data[40:44] = struct.pack("<I", 0xFFFF_FFFF)  # written to a pipe
    assert len(read_wav(bytes(data)).samples) == len(TONE)
    assert len(read_wav(bytes(data[:-3])).samples) == len(TONE) - 2  # cut within a sample


def test_no_number_of_a_float_is_kept() -> None:
    data = bytearray(written("FLOAT"))
    data[-8:] = struct.pack("<ff", float("nan"), float("inf"))
    assert read_wav(bytes(data)).samples[-2:].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (b"ID3\x04" + bytes(100), "no WAV"),
        (b"RIFF\0\0\0\0WAVE", "no sound"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100, "no sound"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0\0\0\0\0", "before its format"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0\1\0\1\0", "cut short"),
        (written("PCM_16").replace(struct.pack("<HH", 1, 1), struct.pack("<HH", 1, 0), 1), "0 channels"),
        (written("PCM_16", rate=1_000), "1000 Hz"),
        (written("MS_ADPCM"), "coding"),
        (written("DOUBLE"), "coding"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(WavError, match=words):
        read_wav(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 60))
def test_damaged_bytes_raise_nothing_else(noise: bytes, at: int) -> None:
    data = written("PCM_16")[:400]
    try:
        samples = read_wav(data[:at] + noise + data[at + len(noise) :]).samples
    except WavError:
        return
    assert np.isfinite(samples).all()
