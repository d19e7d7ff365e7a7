"""Echo suppression between the wire and the engine: positions, time, and what may go wrong. The filter here is a known one."""

from collections.abc import Iterable

import numpy as np
import pytest
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from agent.settings import SessionSettings
from server.auth import EphemeralKeys
from server.echo import EchoSuppressor
from server.limits import Limits
from server.realtime.client_secrets import make_secret
from server.realtime.initial import initial_settings
from server.realtime.websocket import RealtimeEndpoint
from streaming.audio import AudioFrame, Samples
from streaming.echo_canceller import FRAME
from streaming.events import SAMPLE_RATE

RNG = np.random.default_rng(5)


class SubtractingCanceller:
    """Takes away what was played `lag` samples ago; gives it `delay` samples late, as a real one does."""

    delay = 128

    def __init__(self, lag: int = 0) -> None:
        self._heard = np.zeros(self.delay, np.float32)
        self._played = np.zeros(lag, np.float32)

    def push(self, heard: Samples, played: Samples) -> Samples:
        assert len(heard) == len(played) == FRAME
        self._played = np.concatenate((self._played, played))
        echo, self._played = self._played[:FRAME], self._played[FRAME:]
        self._heard = np.concatenate((self._heard, heard - echo))
        clean, self._heard = self._heard[:FRAME], self._heard[FRAME:]
        return clean


class BrokenCanceller(SubtractingCanceller):
    """Fails in its tenth frame."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 10

    def push(self, heard: Samples, played: Samples) -> Samples:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("no such handle")
        return super().push(heard, played)


def noise(count: int) -> Samples:
    """As 16 bits hold it, so that sums are exact."""
    return (RNG.integers(-3_000, 3_000, count) / 32_768).astype(np.float32)


def pcm(samples: Samples) -> np.ndarray:
    return np.rint(samples * 32_768).astype(np.int16)


def heard_through(stage: EchoSuppressor, sound: Samples, sizes: Iterable[int], late: int = 0) -> tuple[Samples, list[int]]:
    """All that comes out, from position 0 on, and where each frame began; `late` ticks of network."""
    at, out, starts = 0, [], []
    sizes = iter(sizes)
    while at < len(sound):
        piece = sound[at : at + next(sizes)]
        frame = stage.push(AudioFrame(piece, at), at + len(piece) + late)
        at += len(piece)
        if frame is not None:
            assert frame.at == sum(map(len, out))
            starts.append(frame.at)
            out.append(frame.pcm)
    return np.concatenate(out), starts


def always(size: int) -> Iterable[int]:
    while True:
        yield size


def test_without_our_voice_nothing_is_changed_or_held() -> None:
    stage, sound = EchoSuppressor(SubtractingCanceller()), noise(SAMPLE_RATE)
    given, starts = heard_through(stage, sound, always(333))
    assert np.array_equal(given, sound)
    assert starts == [*range(0, SAMPLE_RATE, 333)]


@pytest.mark.parametrize("size", [97, 160, 320, 1_024])
def test_our_voice_is_taken_out_and_positions_stay(size: int) -> None:
    stage, ours, theirs = EchoSuppressor(SubtractingCanceller(lag=400)), noise(SAMPLE_RATE), noise(4 * SAMPLE_RATE)
    for start in range(0, len(ours), 320):
        stage.loudspeaker.play("a", 8_000 + start, pcm(ours[start : start + 320]), SAMPLE_RATE)
    sound, echo = theirs.copy(), 8_000 - 50 + 400  # the network's lateness is known and taken off
    sound[echo : echo + len(ours)] += ours
    given, _ = heard_through(stage, sound, always(size), late=50)
    assert np.allclose(given, theirs[: len(given)], atol=1e-6)
    assert len(given) == len(theirs)  # a second after our voice nothing is held any more
    assert stage.failure is None


def test_while_we_speak_little_is_held_and_a_flush_gives_it() -> None:
    stage, sound = EchoSuppressor(SubtractingCanceller()), noise(SAMPLE_RATE)
    stage.loudspeaker.play("a", 0, np.zeros(SAMPLE_RATE, np.int16), SAMPLE_RATE)
    given, _ = heard_through(stage, sound[:8_010], always(320))
    rest = stage.flush()
    assert 0 < 8_010 - len(given) < 2 * FRAME
    assert rest is not None
    assert rest.at == len(given)
    assert np.allclose(np.concatenate((given, rest.pcm)), sound[:8_010], atol=1e-6)
    after = stage.push(AudioFrame(sound[8_010:], 8_010), SAMPLE_RATE)
    assert after is not None
    assert after.at == 8_010
    assert np.allclose(after.pcm, sound[8_010 : 8_010 + len(after.pcm)], atol=1e-6)


def test_input_that_stood_still_has_another_time_after_it() -> None:
    stage, ours = EchoSuppressor(SubtractingCanceller()), noise(SAMPLE_RATE)
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    stage.push(AudioFrame(quiet, 0), SAMPLE_RATE)
    later = 60 * SAMPLE_RATE  # a minute without appends
    stage.push(AudioFrame(quiet, SAMPLE_RATE), later + SAMPLE_RATE)
    for start in range(0, 2 * SAMPLE_RATE, 320):  # the lag is known a second after the input goes on
        stage.push(AudioFrame(quiet[:320], 2 * SAMPLE_RATE + start), later + SAMPLE_RATE + start + 320)
    stage.loudspeaker.play("a", later + 3 * SAMPLE_RATE, pcm(ours), SAMPLE_RATE)
    given = [
        stage.push(AudioFrame(ours[at : at + 320], 4 * SAMPLE_RATE + at), later + 3 * SAMPLE_RATE + at + 320)
        for at in range(0, 16_000, 320)
    ]
    assert max(float(np.abs(frame.pcm).max()) for frame in given if frame is not None) < 1e-6


def test_a_filter_that_fails_ends_and_the_sound_goes_on() -> None:
    stage, sound = EchoSuppressor(BrokenCanceller()), noise(SAMPLE_RATE)
    stage.loudspeaker.play("a", 0, np.zeros(SAMPLE_RATE, np.int16), SAMPLE_RATE)
    given, _ = heard_through(stage, sound, always(320))
    assert stage.failure == "RuntimeError: no such handle"
    assert np.allclose(given, sound, atol=1e-6)


def test_a_filter_that_makes_it_worse_ends() -> None:
    """It takes away an echo that is not there."""
    stage = EchoSuppressor(SubtractingCanceller())
    stage.loudspeaker.play("a", 0, pcm(noise(10 * SAMPLE_RATE)), SAMPLE_RATE)
    sound = noise(10 * SAMPLE_RATE) * np.float32(0.01)
    given, _ = heard_through(stage, sound, always(320))
    assert stage.failure == "the filter made it worse"
    assert len(given) == len(sound)
    assert np.array_equal(given[6 * SAMPLE_RATE :], sound[6 * SAMPLE_RATE :])


def test_memory_is_bounded() -> None:
    stage = EchoSuppressor(SubtractingCanceller())
    for at in range(0, 60 * SAMPLE_RATE, 320):
        stage.push(AudioFrame(np.zeros(320, np.float32), at), at + 320)
    assert len(stage._raw) < SAMPLE_RATE


class FakeSessions:
    """What a door asks of the sessions."""

    defaults = SessionSettings()
    cancels_echo = True


@pytest.mark.parametrize(("said", "over_websocket"), [("{}", True), ('{"session": {"input_audio_echo_cancellation": null}}', False)])
def test_the_default_is_for_websockets_and_for_those_who_have_not_said(said: str, over_websocket: bool) -> None:
    """A client secret keeps whether anything was said: a browser may take it to WebRTC."""
    keys = EphemeralKeys(lambda: 0.0)
    status, content = make_secret(said.encode(), False, FakeSessions.defaults, Limits(), keys)
    assert status == 200
    headers = [(b"authorization", f"Bearer {content['value']}".encode())]
    scope = {"type": "websocket", "headers": headers, "query_string": b"", "path": "/v1/realtime", "subprotocols": []}
    door = RealtimeEndpoint(FakeSessions(), None, None, keys, None)
    assert door._initial_settings(WebSocket(scope, None, None)).echo_cancellation is over_websocket
    assert not initial_settings(HTTPConnection(scope), keys, FakeSessions.defaults).echo_cancellation
