"""libopus as PyAV's wheel has it: decoding, concealing, and the copy that a packet carries of the one before."""

from fractions import Fraction

import numpy as np
import pytest
from aiortc.codecs.opus import OpusDecoder as LibraryDecoder
from aiortc.jitterbuffer import JitterFrame
from av import AudioFrame, CodecContext

from server.webrtc import opus
from server.webrtc.opus import RATE, OpusDecoder, OpusError, carries_copy, library_problem

FRAME = RATE // 50


def test_a_packet_becomes_what_the_library_makes_of_it(opus_packets, voice) -> None:
    ours, library = OpusDecoder(), LibraryDecoder()
    for number, packet in enumerate(opus_packets(voice(0.6))):
        (frame,) = library.decode(JitterFrame(packet, number * FRAME))
        left = frame.to_ndarray().reshape(-1, 2)[:, 0]
        assert np.abs(ours.decode(packet).astype(int) - left).max() <= 1  # rounded elsewhere


def test_stereo_is_mixed_down() -> None:
    coder = CodecContext.create("libopus", "w")
    coder.sample_rate, coder.format, coder.layout, coder.time_base = RATE, "s16", "stereo", Fraction(1, RATE)
    frame = AudioFrame(format="s16", layout="stereo", samples=FRAME)
    frame.planes[0].update(np.zeros(2 * FRAME, np.int16).tobytes())
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    (packet,) = coder.encode(frame)
    assert OpusDecoder().decode(bytes(packet)).shape == (FRAME,)


def test_what_is_concealed_sounds_on_and_fades(opus_packets, voice) -> None:
    decoder = OpusDecoder()
    for packet in opus_packets(voice(0.4)):
        decoder.decode(packet)
    first, *_, last = [decoder.conceal(FRAME) for _ in range(10)]
    assert (len(first), len(last)) == (FRAME, FRAME)
    assert np.abs(first).max() > 1_000
    assert np.abs(last).max() < np.abs(first).max() / 10


def test_a_copy_is_nearer_to_what_was_lost_than_a_guess(opus_packets, voice) -> None:
    packets = opus_packets(voice(2.0), loss=20)
    with_copy = next(number for number in range(20, 100) if carries_copy(packets[number]))
    whole, copied, guessed = OpusDecoder(), OpusDecoder(), OpusDecoder()
    for packet in packets[: with_copy - 1]:
        for decoder in (whole, copied, guessed):
            decoder.decode(packet)
    lost = whole.decode(packets[with_copy - 1]).astype(float)
    distances = [np.square(made - lost).sum() for made in (copied.recover(packets[with_copy], FRAME), guessed.conceal(FRAME))]
    assert distances[0] < distances[1]


def test_a_packet_without_a_copy_has_none(opus_packets, voice) -> None:
    assert not any(map(carries_copy, opus_packets(voice(0.4))))
    assert not carries_copy(b"")


def test_copies_are_found_where_libopus_finds_them(opus_packets, voice) -> None:
    library = opus._library()
    found = [library.opus_packet_has_lbrr(packet, len(packet)) for packet in opus_packets(voice(4.0), loss=20)]
    assert found == [int(carries_copy(packet)) for packet in opus_packets(voice(4.0), loss=20)]
    assert 0 < sum(found) < len(found)


@pytest.mark.parametrize("nonsense", [b"\xff\xff", bytes(2_000)])
def test_what_is_no_opus_is_an_error(nonsense) -> None:
    with pytest.raises(OpusError, match="no Opus"):
        OpusDecoder().decode(nonsense)


def test_a_system_without_the_library_is_told_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(opus, "_find", lambda: None)
    opus._library.cache_clear()
    assert "install" in (library_problem() or "")
    with pytest.raises(OpusError, match="install"):
        OpusDecoder()
    opus._library.cache_clear()


def test_a_library_that_is_none_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(opus, "_find", lambda: str(tmp_path / "libopus.so"))
    opus._library.cache_clear()
    assert "can't be loaded" in (library_problem() or "")
    opus._library.cache_clear()
