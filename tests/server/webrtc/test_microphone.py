"""The caller's sound out of packets, in virtual time: through every bad network its place is kept, its memory bounded. `pytest -s` prints
the matrix; words that come through are counted by `benchmarks/lossy_calls.py`.
"""

import asyncio

import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from benchmarks.lossy_stream import through
from benchmarks.networks import NETWORKS, Network
from server.webrtc.microphone import Microphone
from server.webrtc.opus import RATE
from server.webrtc.peer import listen

FRAME = RATE // 50
SECONDS = 8


@pytest.fixture
def packets(opus_packets, voice) -> list[bytes]:
    return opus_packets(voice(SECONDS), loss=20)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_matrix(packets, name) -> None:
    network = NETWORKS[name]
    heard = through(packets, network, seed=1)
    tally = heard.tally
    print(f"{name:>24}: {tally}, longest wait {1_000 * heard.wait:.0f} ms")
    assert heard.moved <= FRAME  # a packet is heard where the caller said it
    assert heard.wait <= 0.25
    assert len(packets) * FRAME <= len(heard.pcm) + (len(packets) * FRAME if network.stall > SECONDS else 10 * FRAME)
    if not (network.loss or network.jitter or network.stall):
        assert (tally.lost, tally.dropped, tally.late) == (0, 0, 0)
    if network.loss and network.burst == 1:
        assert len(packets) - tally.received - 13 <= tally.lost <= len(packets) - tally.received  # of the last nobody knows
        assert tally.recovered + tally.concealed > 0.9 * tally.lost
    if network.repeated:
        assert tally.repeated == tally.received - len(packets)
    if 0 < network.stall < 0.5:
        assert (tally.lost, tally.dropped) == (0, 0)


def test_the_wait_is_what_the_network_makes_it(packets) -> None:
    """The jitter buffer's latency: none where packets come in order, however unevenly."""
    assert through(packets, Network(stall_at=1.0, stall=0.4), 1).wait == 0.0
    # A missing one is waited for until three others have been sent, or the next that comes where the third is lost too.
    assert through(packets, Network(loss=0.05), 3).wait <= 0.081


def test_what_is_not_heard_is_not_kept() -> None:
    now = 0.0
    microphone = Microphone(lambda: now)
    for number in range(5_000):
        now += 0.02
        microphone.take(number & 0xFFFF, number * FRAME, b"\xfc\xff\xfe")
    assert len(microphone.drain()) <= 2 * RATE + FRAME
    assert microphone.tally().dropped > 4_000


def test_a_flood_is_dropped() -> None:
    microphone = Microphone(lambda: 1.0)
    heard = 0
    for number in range(5_000):
        microphone.take(number & 0xFFFF, number * FRAME, b"\xfc\xff\xfe")
        heard += len(microphone.drain())
    assert heard <= RATE + FRAME


async def test_what_waits_behind_a_gap_is_heard_when_nothing_follows(packets) -> None:
    microphone = Microphone(asyncio.get_running_loop().time)
    for number in (0, 2):
        microphone.take(number, number * FRAME, packets[number])
    heard = 0
    async with asyncio.timeout(20):
        while heard < 3 * FRAME:
            heard += len(await microphone.hear() or b"") // 2
    assert microphone.tally().lost == 1


# -- what we take the place of in the library


def packet(number: int) -> RtpPacket:
    return RtpPacket(payload_type=111, sequence_number=number, timestamp=number * FRAME, ssrc=1, payload=b"\xfc\xff\xfe")


async def receiver_of(pc: RTCPeerConnection) -> RTCRtpReceiver:
    receiver = pc.addTransceiver("audio").receiver
    codec = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=RATE, channels=2, payloadType=111)
    receiver._RTCRtpReceiver__codecs[111] = codec
    return receiver


async def test_the_library_itself_would_hold_packets_back() -> None:
    """If this fails, aiortc has another jitter buffer, and ours may not be needed any more."""
    pc = RTCPeerConnection()
    receiver = await receiver_of(pc)
    buffer = receiver._RTCRtpReceiver__jitter_buffer
    assert isinstance(buffer, JitterBuffer)
    assert (buffer.capacity, buffer._prefetch) == (16, 4)
    await pc.close()


async def test_in_its_place_ours_hears_the_first_packet_at_once() -> None:
    """If this fails, aiortc does not ask its jitter buffer any more, and no call would hear anything."""
    pc, microphone = RTCPeerConnection(), Microphone(lambda: 0.0)
    receiver = await receiver_of(pc)
    listen(receiver, microphone)
    await receiver._handle_rtp_packet(packet(0), 0)
    assert len(microphone.drain()) == FRAME
    await receiver._handle_rtp_packet(packet(1), 20)
    assert len(microphone.drain()) == FRAME
    await pc.close()


async def test_a_library_without_that_place_is_named() -> None:
    with pytest.raises(RuntimeError, match="aiortc's receiver keeps no jitter buffer"):
        listen(object(), Microphone(lambda: 0.0))


async def test_nothing_is_decoded_a_second_time_by_the_library() -> None:
    pc, microphone = RTCPeerConnection(), Microphone(lambda: 0.0)
    receiver = await receiver_of(pc)
    listen(receiver, microphone)
    buffer = receiver._RTCRtpReceiver__jitter_buffer
    assert [buffer.add(packet(number)) for number in range(20)] == [(False, None)] * 20
    assert len(microphone.drain()) == 20 * FRAME
    await pc.close()
