"""Input audio: any split gives the same frames, formats change in the middle, and nobody runs far ahead."""

import asyncio

import numpy as np

from agent.settings import AudioEncoding, AudioFormat
from server.ingress import Ingress
from streaming.audio import AudioFrame


class Ear:
    """Keeps what it is fed."""

    def __init__(self) -> None:
        self.frames: list[AudioFrame] = []

    def feed(self, frame: AudioFrame, _now: int) -> None:
        assert frame.at == self.at
        self.frames.append(frame)

    @property
    def at(self) -> int:
        return sum(len(frame.pcm) for frame in self.frames)


def tone(samples: int) -> bytes:
    return (np.sin(np.arange(samples) / 7) * 9000).astype("<i2").tobytes()


async def test_odd_bytes_are_carried_over() -> None:
    whole, split = Ear(), Ear()
    data = tone(24_000)
    ingress = Ingress(AudioFormat(), 30, whole.feed)
    await ingress.append(data, lambda: 0)
    ingress.flush(0)
    ingress = Ingress(AudioFormat(), 30, split.feed)
    for start in range(0, len(data), 333):
        await ingress.append(data[start : start + 333], lambda: 0)
    ingress.flush(0)
    assert ingress.at == whole.at == split.at == 16_000
    joined = [np.concatenate([frame.pcm for frame in ear.frames]) for ear in (whole, split)]
    assert np.array_equal(*joined)


async def test_a_format_change_goes_on_at_the_same_position() -> None:
    ear = Ear()
    ingress = Ingress(AudioFormat(), 30, ear.feed)
    await ingress.append(tone(2_400), lambda: 0)
    ingress.change_format(AudioFormat(AudioEncoding.PCMU, 8_000), 0)
    await ingress.append(b"\xff" * 800, lambda: 0)
    ingress.flush(0)
    assert ingress.at == ear.at == 3_200


async def test_the_same_format_again_changes_nothing() -> None:
    ear = Ear()
    ingress = Ingress(AudioFormat(), 30, ear.feed)
    await ingress.append(tone(10), lambda: 0)
    ingress.change_format(AudioFormat(), 0)
    assert ear.frames == []


async def test_too_far_ahead_waits_for_the_engine() -> None:
    ear = Ear()
    ingress = Ingress(AudioFormat(), 1.0, ear.feed)
    appending = asyncio.create_task(ingress.append(tone(24_000 * 3), lambda: 0))
    for _ in range(100):
        await asyncio.sleep(0)
    first = ear.at
    assert 16_000 < first <= 24_000  # a bound of one second, overrun by one slice at most
    ingress.heard(first)
    for _ in range(100):
        await asyncio.sleep(0)
    assert first + 16_000 < ear.at <= first + 24_000
    ingress.heard(48_000)
    await appending
    ingress.flush(0)
    assert ear.at == 48_000


async def test_a_caller_at_microphone_pace_never_waits() -> None:
    ear = Ear()
    ingress = Ingress(AudioFormat(), 0.1, ear.feed)
    for n in range(50):
        await asyncio.wait_for(ingress.append(tone(2_400), lambda n=n: (n + 1) * 1_600), 5)  # the engine hears nothing at all
    assert ingress.at > 79_000
