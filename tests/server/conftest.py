"""A real server on an ephemeral port in the test's own loop, a scripted engine behind it, and a plain client in front."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from agent.commands import (
    Command,
    Cut,
    ErrorRaised,
    InputCommitted,
    ItemAdded,
    OpenPlayout,
    OutputTranscriptDelta,
    PartRef,
    Release,
    ResponseCreated,
    ResponseDone,
    ResponseSnapshot,
    ResponseStatus,
    SessionCreated,
    SessionUpdated,
)
from agent.events import (
    CancelResponse,
    CommitInput,
    CreateItem,
    CreateResponse,
    Event,
    PlaybackProgress,
    RefuseRequest,
    SessionOpened,
    UpdateSession,
)
from agent.settings import SessionSettings
from server.engine_link import EngineLink, LocalEngineLink
from server.limits import Limits
from server.serve import ServeOptions, serve
from server.sessions import ConversationFactory
from streaming.doors import Engine
from streaming.events import Abort, AudioReady, CommitTurn, Respond, RespondOptions, ResponseFinished, TextDelta
from streaming.fakes import ScriptedEngine


class PlainDialogue:
    """The least a conversation can be, for tests of the shell around it: one reply at a time, no turn detection."""

    def __init__(self, session_id: str, _seed: int) -> None:
        self._id = session_id
        self.settings = SessionSettings()
        self.seen: list[Event] = []
        self._part: PartRef | None = None
        self._made = 0
        self._sent = 0
        self._finished = False

    def deadline(self) -> int | None:
        return None

    def handle(self, event: Event, _now: int) -> list[Command]:
        self.seen.append(event)
        match event:
            case SessionOpened(settings):
                self.settings = settings
                return [SessionCreated(self._id, settings)]
            case UpdateSession(_, settings):
                self.settings = settings
                return [SessionUpdated(self._id, settings)]
            case RefuseRequest(event_id, code, message, param):
                return [ErrorRaised(code, message, param, event_id)]
            case CreateItem(_, item):
                return [ItemAdded(item, None)]
            case CommitInput(_, at):
                return [CommitTurn("item_in", 0, at), InputCommitted("item_in", None)]
            case CreateResponse():
                return self._respond(f"resp_{len(self.seen)}")
            case CancelResponse():
                return self._cancel()
        return self._follow(event)

    def _respond(self, response_id: str) -> list[Command]:
        self._part, self._made, self._sent, self._finished = PartRef(response_id, "item_out", 0, 0), 0, 0, False
        wire = self.settings.output_format
        created = ResponseCreated(self._snapshot(ResponseStatus.IN_PROGRESS))
        return [created, OpenPlayout(self._part, wire), Respond(response_id, RespondOptions(rate=wire.rate))]

    def _cancel(self) -> list[Command]:
        assert self._part is not None
        response_id, done = self._part.response_id, ResponseDone(self._snapshot(ResponseStatus.CANCELLED))
        self._part = None  # whatever comes of it still is stale
        return [Cut(response_id), Abort(response_id), done]

    def _follow(self, event: Event) -> list[Command]:
        """The engine's and playout's facts about the reply."""
        if self._part is None:
            return []
        match event:
            case TextDelta(_, text):
                return [OutputTranscriptDelta(self._part, text)]
            case AudioReady(response_id, start, samples):
                self._made = start + samples
                return [Release(response_id, self._made)]
            case PlaybackProgress(_, sent):
                self._sent = sent
            case ResponseFinished():
                self._finished = True
            case _:
                return []
        if not self._finished or self._sent < self._made:
            return []
        self._finished = False
        return [ResponseDone(self._snapshot(ResponseStatus.COMPLETED))]

    def _snapshot(self, status: ResponseStatus) -> ResponseSnapshot:
        assert self._part is not None
        settings = self.settings
        response_id = self._part.response_id
        return ResponseSnapshot(response_id, status, (), "conv", True, settings.output_format, settings.voice, None, None, None)


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    engine: Engine
    dialogues: list[PlainDialogue]
    stop: asyncio.Event
    # Ends when the server has stopped.
    task: "asyncio.Task[None]"

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/realtime?model=pocket"

    async def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async with httpx.AsyncClient(verify=False) as client:
            return await client.get(self.url + path, headers=headers)

    async def post(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        async with httpx.AsyncClient(verify=False) as client:
            return await client.post(self.url + path, content=content, headers=headers)


class Client:
    """Sends dictionaries, keeps what it got."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.got: list[dict[str, object]] = []

    async def send(self, **event: object) -> None:
        await self.connection.send(json.dumps(event))

    async def receive(self) -> dict[str, object]:
        async with asyncio.timeout(10):
            event = json.loads(await self.connection.recv())
        self.got.append(event)
        return event

    async def until(self, kind: str) -> dict[str, object]:
        """Read on to the next event of this type."""
        while (event := await self.receive())["type"] != kind:
            pass
        return event

    async def append(self, pcm: np.ndarray) -> None:
        await self.send(type="input_audio_buffer.append", audio=base64.b64encode(pcm.astype("<i2").tobytes()).decode())

    def kinds(self) -> list[object]:
        """Types received, repeated ones once."""
        kinds = [event["type"] for event in self.got]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]

    def audio(self) -> bytes:
        """All sound received."""
        deltas = [event["delta"] for event in self.got if str(event["type"]).endswith("audio.delta")]
        return b"".join(base64.b64decode(str(delta)) for delta in deltas)


Start = Callable[..., "asyncio.Future[Served]"]


async def _start(
    stack: AsyncExitStack, engine: Engine | None, link: EngineLink | None, factory: ConversationFactory | None, options: ServeOptions
) -> Served:
    dialogues: list[PlainDialogue] = []

    def plain(session_id: str, seed: int) -> PlainDialogue:
        dialogues.append(PlainDialogue(session_id, seed))
        return dialogues[-1]

    engine = engine or ScriptedEngine()
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    link = link or LocalEngineLink(engine)
    task = asyncio.create_task(serve(options, link, factory or plain, stop=stop, announce=address.set_result))
    await asyncio.wait({task, address}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()

    async def shut() -> None:
        stop.set()
        await asyncio.wait_for(task, 15)

    stack.push_async_callback(shut)
    return Served(address.result(), engine, dialogues, stop, task)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., object]]:
    """`await start(engine, link=..., factory=..., limits=..., api_keys=...)` gives a `Served`; everything is stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start_server(
            engine: Engine | None = None, *, link: EngineLink | None = None, factory: ConversationFactory | None = None, **options: object
        ) -> Served:
            defaults = ServeOptions(port=0, drain_seconds=0.2, limits=Limits())
            return await _start(stack, engine, link, factory, replace(defaults, **options))

        yield start_server


@pytest.fixture
async def dial() -> AsyncIterator[Callable[..., object]]:
    """`await dial(served, ...)` gives a `Client` that has received `session.created`."""
    async with AsyncExitStack() as stack:

        async def dial_server(served: Served, path: str = "", **arguments: object) -> Client:
            connection = await stack.enter_async_context(connect(path or served.ws, max_size=2**20, compression=None, **arguments))
            # Events that a test left unread would hold the closing handshake up.
            stack.callback(connection.transport.abort)
            client = Client(connection)
            await client.receive()
            return client

        yield dial_server


class InTurn:
    """A factory that is the next of several at each start; the last one stays. Being pickled is being started."""

    def __init__(self, *factories: object) -> None:
        self.factories = list(factories)

    def __reduce__(self) -> object:
        factory = self.factories.pop(0) if len(self.factories) > 1 else self.factories[0]
        return factory.__reduce__()


@pytest.fixture
def in_turn() -> type[InTurn]:
    """The class `InTurn`."""
    return InTurn


def tone(milliseconds: int, rate: int = 24_000, amplitude: int = 8_000) -> np.ndarray:
    """A loud tone, int16 (n,): what the scripted engine's ear takes for speech."""
    return (np.sin(np.arange(rate * milliseconds // 1000) * 2 * np.pi * 300 / rate) * amplitude).astype(np.int16)


@pytest.fixture
def speech() -> Callable[..., np.ndarray]:
    """The function `tone`."""
    return tone


@pytest.fixture
def plain() -> ConversationFactory:
    """`PlainDialogue`."""
    return PlainDialogue
