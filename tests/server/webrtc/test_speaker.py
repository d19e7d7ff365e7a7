"""Our voice as Opus packets: one a frame, at its place, and nothing kept that is too old."""

import numpy as np
import pytest
from aiortc.codecs.opus import OpusDecoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError

from server.webrtc.speaker import SpeakerTrack

FRAME = 960


async def test_each_frame_becomes_a_packet_that_sounds_like_it(speech) -> None:
    track, decoder = SpeakerTrack(), OpusDecoder()
    sound = speech(400, rate=48_000)
    heard = []
    for number in range(20):
        track.play(sound[number * FRAME : (number + 1) * FRAME].tobytes())
        packet = await track.recv()
        assert packet.pts == number * FRAME
        (frame,) = decoder.decode(JitterFrame(bytes(packet), packet.pts))
        heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])
    delay = 312  # Opus's look-ahead at 48 kHz
    decoded = np.concatenate(heard)[delay:].astype(float)
    settled = slice(4_800, None)  # the first frames of a coder are its worst
    assert np.corrcoef(decoded[settled], sound[: len(decoded)][settled])[0, 1] > 0.95


async def test_a_frame_that_is_not_full_ends_in_silence() -> None:
    track = SpeakerTrack()
    track.play(b"")
    assert bytes(await track.recv())


async def test_what_nobody_asks_for_is_thrown_away() -> None:
    track = SpeakerTrack()
    for _ in range(10):
        track.play(b"")
    assert [(await track.recv()).pts for _ in range(2)] == [0, FRAME]
    track.stop()
    with pytest.raises(MediaStreamError):
        await track.recv()
