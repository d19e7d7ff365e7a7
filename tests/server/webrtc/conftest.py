"""A WebRTC client made of the library the server is made of, over loopback: it says what it is told to say and keeps what it hears."""

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from fractions import Fraction

import httpx
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from benchmarks.lossy_stream import Coding, coded
from benchmarks.networks import GOOD, Network
from benchmarks.relay import UdpRelay
from server.pacing import Metronome

RATE = 48_000
_CANDIDATE = re.compile(r"a=candidate:\S+ \d+ udp \d+ (\S+) (\d+) [^\r]*\r\n")
FRAME = RATE // 50


class Mouth(MediaStreamTrack):
    """A microphone that never stops: what is put into `said`, then silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.said: deque[np.ndarray] = deque()
        self._at = 0
        self._metronome = Metronome()

    def say(self, pcm: np.ndarray) -> None:
        """Sound at 48 kHz, int16."""
        pcm = np.pad(pcm, (0, -len(pcm) % FRAME))
        self.said.extend(np.split(pcm, len(pcm) // FRAME))

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await self._metronome.beat()
        pcm = self.said.popleft() if self.said else np.zeros(FRAME, np.int16)
        frame = AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += FRAME
        return frame


class Caller:
    """One end of a call; `got` are the events, `heard` the mono frames that came."""

    def __init__(self, *, events: bool = True, hears: bool = True) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.mouth = Mouth()
        self.got: list[dict[str, object]] = []
        self.heard: list[np.ndarray] = []
        self.location = ""
        self.headers = httpx.Headers()
        self.answer = ""
        self._arrived = asyncio.Event()
        self._ear: asyncio.Task[None] | None = None
        self.opened = asyncio.Event()
        self.pc.addTransceiver(self.mouth, "sendrecv" if hears else "sendonly")
        self.channel = self.pc.createDataChannel("oai-events") if events else None
        if self.channel is not None:
            self.channel.on("message", self._note)
            self.channel.on("open", self.opened.set)
        self.pc.on("track", self._listen)

    async def offer(self) -> str:
        await self.pc.setLocalDescription()
        return self.pc.localDescription.sdp

    async def accept(self, answer: str) -> None:
        self.answer = answer
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, **event: object) -> None:
        self.channel.send(json.dumps(event))

    async def pause_for(self, milliseconds: int) -> None:
        """A turn ends after so much silence: a machine that is busy with others lets the microphone falter."""
        detection = {"type": "server_vad", "silence_duration_ms": milliseconds}
        self.send(type="session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
        await self.until("session.updated")

    async def receive(self) -> dict[str, object]:
        """The next event."""
        async with asyncio.timeout(20):
            count = len(self.got)
            while len(self.got) == count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.got[count]

    async def until(self, kind: str, begin: int = 0, patience: float = 30) -> dict[str, object]:
        """The first event of this type, from number `begin` on."""
        async with asyncio.timeout(patience):
            while True:
                found = [event for event in self.got[begin:] if event["type"] == kind]
                if found:
                    return found[0]
                self._arrived.clear()
                await self._arrived.wait()

    async def hears(self, samples: int) -> np.ndarray:
        """What has been heard from the first loud frame on, once there is so much of it."""
        async with asyncio.timeout(30):
            while len(sound := self.sound()) < samples:
                self._arrived.clear()
                await self._arrived.wait()
        return sound

    def sound(self) -> np.ndarray:
        loud = next((number for number, frame in enumerate(self.heard) if np.abs(frame).max() > 300), len(self.heard))
        return np.concatenate([np.zeros(0, np.int16), *self.heard[loud:]])

    def kinds(self) -> list[object]:
        return [event["type"] for event in self.got]

    async def closed(self) -> None:
        """Returns when the server has ended the call."""
        async with asyncio.timeout(20):
            while self.pc.connectionState != "closed":  # noqa: ASYNC110 - what is awaited has no event to wait for
                await asyncio.sleep(0.01)

    async def hang_up(self) -> None:
        # Closed while it connects, aioice begins to ask for consent afterwards, and nobody ends that.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while self.pc.connectionState == "connecting":  # noqa: ASYNC110 - what is awaited has no event to wait for
                    await asyncio.sleep(0.01)
        await self.pc.close()
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.gather(self._ear, return_exceptions=True)

    def _note(self, message: str) -> None:
        self.got.append(json.loads(message))
        self._arrived.set()

    def _listen(self, track: MediaStreamTrack) -> None:
        self._ear = asyncio.create_task(self._hear(track))

    async def _hear(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                self.heard.append(frame.to_ndarray().reshape(-1, frame.layout.nb_channels)[:, 0])
                self._arrived.set()
        except MediaStreamError:
            pass


def harmonics(seconds: float) -> np.ndarray:
    """A voice-like sound, int16 (n,) at 48 kHz."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * 140 * k * time + k) / k for k in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    return (sound * 5_000).astype(np.int16)


@pytest.fixture
def voice() -> Callable[[float], np.ndarray]:
    """The function `harmonics`."""
    return harmonics


@pytest.fixture
def opus_packets() -> Callable[..., list[bytes]]:
    """`opus_packets(pcm, loss=0)`: as a browser codes its microphone."""
    return lambda pcm, loss=0: coded(pcm, Coding(loss=loss))


async def post_offer(served, offer: str, path: str = "/v1/realtime/calls?model=pocket", **headers: str) -> httpx.Response:
    return await served.post(path, offer.encode(), {"Content-Type": "application/sdp", **headers})


@pytest.fixture
def post() -> Callable[..., object]:
    """`await post(served, offer_sdp)`."""
    return post_offer


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client."""
    async with httpx.AsyncClient() as http:
        yield http


@pytest.fixture
def caller_of() -> type[Caller]:
    """The class `Caller`: whoever makes one hangs up."""
    return Caller


@pytest.fixture
async def caller() -> AsyncIterator[Callable[..., Caller]]:
    """`caller()` gives a `Caller`; all are hung up at the end."""
    async with AsyncExitStack() as stack:

        def make(**options: bool) -> Caller:
            one = Caller(**options)
            stack.push_async_callback(one.hang_up)
            return one

        yield make


@pytest.fixture
async def ring_through(caller: Callable[..., Caller]) -> AsyncIterator[Callable[..., object]]:
    """`await ring_through(served, network, seed=1)` gives a `Caller` whose call is up, and the `UdpRelay` that is its only way."""
    async with AsyncExitStack() as stack:

        async def ring_relayed(served, network: Network = GOOD, seed: int = 1) -> tuple[Caller, UdpRelay]:
            one = caller()
            response = await post_offer(served, _CANDIDATE.sub("", await one.offer()))
            assert response.status_code == 201, response.text
            host, port = next(match.groups() for match in _CANDIDATE.finditer(response.text) if ":" not in match[1])
            relay = await stack.enter_async_context(UdpRelay((host, int(port)), network, seed, host=host))
            lines = (line for line in response.text.splitlines() if not line.startswith("a=candidate:") or f" {host} {port} " in line)
            await one.accept("".join(f"{line.replace(f' {host} {port} ', f' {host} {relay.address[1]} ')}\r\n" for line in lines))
            await one.until("session.created")
            return one, relay

        yield ring_relayed


@pytest.fixture
def ring(caller: Callable[..., Caller]) -> Callable[..., object]:
    """`await ring(served)` gives a `Caller` whose call is up: it has received `session.created`, if it has events."""

    async def ring_server(served, *, path: str = "/v1/realtime/calls?model=pocket", **options: bool) -> Caller:
        one = caller(**options)
        response = await post_offer(served, await one.offer(), path)
        assert response.status_code == 201, response.text
        one.headers, one.location = response.headers, response.headers["Location"]
        await one.accept(response.text)
        if one.channel is not None:
            await one.until("session.created")
        return one

    return ring_server
