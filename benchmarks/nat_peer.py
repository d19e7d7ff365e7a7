"""The two ends of `benchmarks.nat`, each a program on a host of a `benchmarks.nat_world`: a server with a scripted engine, and a caller
made of aiortc. Told what to do in JSON as their only argument, they answer in JSON on stdout.
"""

import asyncio
import contextlib
import json
import sys
import time
from typing import Any, Final

import httpx2
import numpy as np
import uvloop
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack
from av import AudioFrame
from websockets.asyncio.client import connect

from agent.conversation import Conversation
from benchmarks.nat_world import udp_sockets
from server.engine_link import LocalEngineLink
from server.limits import Limits
from server.serve import ServeOptions, serve
from server.webrtc.ice import IceOptions
from streaming.fakes import ScriptedEngine, ScriptedReply

KEY: Final = "a-key-of-the-network-tests"
_HEADERS: Final = {"Authorization": f"Bearer {KEY}"}
_RATE: Final = 8_000
"""What aiortc's silent microphone speaks at."""
_SAID_SECONDS: Final = 0.6
_LOUD: Final = 300
_HEARD_FRAMES: Final = 10
"""Frames of the answer that are enough to know that sound comes back."""
_TURN_SECONDS: Final = 15.0
"""For a spoken turn on a busy machine, once the call is up."""


# --------------------------------------------------------------------------------------------------------------- server


async def be_server(port: int, connect_seconds: float, ice: dict[str, Any]) -> None:
    """Serve until a line is read; then say what is left of the calls, once none is."""
    if ice.get("ports"):
        ice["ports"] = tuple(ice["ports"])
    options = ServeOptions(
        "::", port, (KEY,), limits=Limits(max_sessions=64, connect_seconds=connect_seconds), ice=IceOptions(**ice), drain_seconds=0.1
    )
    link = LocalEngineLink(ScriptedEngine([ScriptedReply("One two three four five.")] * 4))
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(options, link, Conversation, stop=stop, announce=lambda _: _tell({"ready": True})))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(connect_seconds + 10):
            while _tasks():  # noqa: ASYNC110 - what is awaited has no event to wait for
                await asyncio.sleep(0.1)
    async with httpx2.AsyncClient() as http:
        metrics = (await http.get(f"http://[::1]:{port}/metrics")).text
    counts = {name: _counted(metrics, f'vivavoce_webrtc_calls_total{{outcome="{name}"}}') for name in ("connected", "not connected")}
    _tell(counts | {"sessions": _counted(metrics, "vivavoce_sessions"), "tasks": _tasks(), "sockets": udp_sockets()})
    stop.set()
    await serving


def _tasks() -> list[str]:
    """Names of tasks that belong to a call."""
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("rtc_", "sess_", "webrtc")))


def _counted(metrics: str, name: str) -> float:
    return next((float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name + " ")), 0.0)


# --------------------------------------------------------------------------------------------------------------- caller


class _Speaker(AudioStreamTrack):
    """A microphone into which a tone is spoken from `speak()` on."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0

    def speak(self) -> None:
        self._left = round(_SAID_SECONDS * 50)

    async def recv(self) -> AudioFrame:
        frame = await super().recv()
        assert isinstance(frame, AudioFrame)
        if self._left:
            self._left -= 1
            tone = np.sin(2 * np.pi * 300 / _RATE * np.arange(frame.samples)) * 8_000
            frame.planes[0].update(tone.astype(np.int16).tobytes())
        return frame


class _Call:
    """One call, from the offer to what came of it."""

    def __init__(self, url: str, over_tcp: bool, patience: float) -> None:
        self._url = url
        self._over_tcp = over_tcp
        self._patience = patience
        self._microphone = _Speaker()
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._heard = asyncio.Event()
        self._ear: asyncio.Task[None] | None = None

    async def run(self) -> dict[str, object]:
        """The cell of the table, in JSON's terms."""
        async with httpx2.AsyncClient(headers=_HEADERS, timeout=self._patience) as http:
            told = (await http.get(f"{self._url}/v1/realtime/ice_servers")).json()
            pc = RTCPeerConnection(RTCConfiguration([usable for server in told["iceServers"] for usable in self._usable(server)]))
            try:
                return await self._call(pc, http)
            finally:
                await pc.close()
                if self._ear is not None:
                    self._ear.cancel()
                    await asyncio.gather(self._ear, return_exceptions=True)

    def _usable(self, server: dict[str, Any]) -> list[RTCIceServer]:
        """What a browser makes of it by itself: aiortc tries one TURN server only, and does not take it for a STUN server too."""
        urls = [url for url in server["urls"] if not self._over_tcp or url.endswith("=tcp")] or server["urls"]
        seen = [RTCIceServer(url.replace("turn:", "stun:").partition("?")[0]) for url in urls[:1] if url.startswith("turn:")]
        return [RTCIceServer(urls, server.get("username"), server.get("credential")), *seen]

    async def _call(self, pc: RTCPeerConnection, http: httpx2.AsyncClient) -> dict[str, object]:
        pc.addTransceiver(self._microphone, "sendrecv")
        pc.on("track", self._listen)
        channel = pc.createDataChannel("oai-events")
        channel.on("message", lambda text: self._events.put_nowait(json.loads(text)["type"]))
        await pc.setLocalDescription()
        response = await http.post(
            f"{self._url}/v1/realtime/calls", content=pc.localDescription.sdp, headers={"Content-Type": "application/sdp"}
        )
        if response.status_code != 201:
            return {"outcome": f"{response.status_code} {response.json()['error']['code']}"}
        began = time.monotonic()
        await pc.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        try:
            async with asyncio.timeout(self._patience):
                await self._until("session.created")
        except TimeoutError:
            return {"outcome": "no way", "seconds": time.monotonic() - began, "websocket": await self._falls_back()}
        seconds = time.monotonic() - began
        (pair,) = pc.sctp.transport.transport._connection._nominated.values()
        path = f"{pair.local_candidate.type} to {pair.remote_candidate.type}"
        return {"outcome": await self._turn(), "seconds": seconds, "path": path}

    async def _turn(self) -> str:
        """Something is said and answered: sound goes both ways."""
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                self._microphone.speak()
                await self._until("input_audio_buffer.speech_started")
                await self._until("response.done")
                await self._heard.wait()
        except TimeoutError:
            return "connected, but not answered"
        return "answered"

    async def _until(self, kind: str) -> None:
        while await self._events.get() != kind:
            pass

    async def _falls_back(self) -> bool:
        """Whether a session begins over WebSocket instead."""
        async with asyncio.timeout(self._patience):
            address = self._url.replace("http", "ws", 1) + "/v1/realtime"
            async with connect(address, additional_headers=_HEADERS, compression=None) as socket:
                return bool(json.loads(await socket.recv())["type"] == "session.created")

    def _listen(self, track: MediaStreamTrack) -> None:
        self._ear = asyncio.create_task(self._hear(track))

    async def _hear(self, track: MediaStreamTrack) -> None:
        loud = 0
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                loud += int(np.abs(frame.to_ndarray()).max()) > _LOUD
                if loud >= _HEARD_FRAMES:
                    self._heard.set()


async def be_caller(servers: dict[str, str], over_tcp: bool, patience: float) -> None:
    """Call all servers at once; says what came of each."""
    cells = await asyncio.gather(*(_Call(url, over_tcp, patience).run() for url in servers.values()))
    _tell({"cells": dict(zip(servers, cells, strict=True)), "tasks": len(asyncio.all_tasks()) - 1, "sockets": udp_sockets()})


def _tell(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """The program."""
    told = json.loads(sys.argv[1])
    uvloop.run({"server": be_server, "caller": be_caller}[told.pop("role")](**told))


if __name__ == "__main__":
    main()
