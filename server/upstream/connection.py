"""A WebSocket to a realtime service, kept up for as long as its session lives: connect, say hello, move messages, come back.

What the messages mean is `server.upstream.service`'s affair, what follows from them `server.upstream.service_session`'s.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from server.upstream.errors import UpstreamError
from server.upstream.service import Address, Service, ServiceEvent, ServiceReady

__all__ = ["Connection", "ConnectionOptions", "Listener"]

log = logging.getLogger(__name__)

_LONGEST: Final = 4 << 20
"""Bytes of one message of a service: a second of speech in base64 is 64 KiB."""
_MOST_WAITING: Final = 8 << 20
"""Bytes that wait for a service that does not read: two minutes of the caller's sound."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Patience in seconds: for a connection and its settings, and between attempts, twice as long each time."""

    connect: float = 10.0
    backoff: float = 0.25
    longest_backoff: float = 10.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a connection tells, on the event loop: what came, and that it was lost."""

    told: Callable[[ServiceEvent], None]
    lost: Callable[[UpstreamError], None]


class Connection:
    """`run` is its task. `service` is the connection that is up, None while there is none."""

    def __init__(self, address: Address, new_service: Callable[[], Service], listener: Listener, options: ConnectionOptions) -> None:
        self.service: Service | None = None
        self._address = address
        self._new_service = new_service
        self._listener = listener
        self._options = options
        # Messages to be sent, their bytes, and whether there are some.
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        # Whether a connection is wanted: not after a refusal, until somebody wants it again. Set too to come back at once.
        self._wanted = asyncio.Event()
        self._wanted.set()
        # At DEBUG the library notes every header that it sends, and one is the key.
        self._log = logging.getLogger(f"{__name__}.socket")
        self._log.setLevel(logging.INFO)
        self._socket: ClientConnection | None = None
        self._renewing = False

    def want(self) -> None:
        """Somebody is going to need it."""
        self._wanted.set()

    def send(self, messages: Iterable[str]) -> None:
        """Messages for the service that is up."""
        for message in messages:
            self._waiting.append(message)
            self._bytes += len(message)
        self._some.set()
        if self._bytes > _MOST_WAITING:
            self.drop()

    def renew(self) -> None:
        """Another connection, at once: this one can't be given what is wanted."""
        self._renewing = True
        self.drop()

    def drop(self) -> None:
        """Give this connection up."""
        self.service = None
        if self._socket is not None:
            self._socket.transport.abort()

    async def run(self) -> None:
        """Until cancelled."""
        wait = self._options.backoff
        while True:
            await self._wanted.wait()
            try:
                await self._once()
                fault = UpstreamError("its connection was closed", passing=True)
            except UpstreamError as error:
                fault = error
            if self.service is not None:
                wait = self._options.backoff  # it had been up
            self.service, self._socket = None, None
            if not fault.passing:
                self._wanted.clear()
            self._listener.lost(fault)
            if self._renewing:
                self._renewing = False
                continue
            await asyncio.sleep(wait)
            wait = min(self._options.longest_backoff, 2 * wait)

    async def _once(self) -> None:
        """One connection, from its beginning to its end. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._options.connect):
                socket = await connect(
                    self._address.url,
                    additional_headers=self._address.headers,
                    logger=self._log,
                    compression=None,
                    max_size=_LONGEST,
                    open_timeout=None,
                    close_timeout=1.0,
                )
        except TimeoutError:
            raise UpstreamError("it could not be reached in time", passing=True) from None
        except InvalidStatus as error:
            raise _refusal(error.response.status_code) from None
        except (OSError, WebSocketException, InvalidURI, EOFError) as error:
            raise UpstreamError(f"it could not be reached ({type(error).__name__})", passing=True) from error
        self._socket = socket
        self._waiting.clear()
        self._bytes = 0
        service = self._new_service()
        self.send(service.opening())
        writing = asyncio.create_task(self._write(socket))
        try:
            async with asyncio.timeout(self._options.connect) as patience:
                await self._read(socket, service, patience)
        except TimeoutError:
            raise UpstreamError("it did not take the settings in time", passing=True) from None
        except ConnectionClosed as error:
            raise _closed(error) from error
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            socket.transport.abort()

    async def _read(self, socket: ClientConnection, service: Service, patience: asyncio.Timeout) -> None:
        while True:
            message = await socket.recv()
            try:
                text = message if isinstance(message, str) else message.decode()
            except UnicodeDecodeError:
                raise UpstreamError("it sent what is no text") from None
            events = service.read(text)
            self.send(service.take_late())
            for event in events:
                if isinstance(event, ServiceReady):
                    patience.reschedule(None)
                    self.service = service
                self._listener.told(event)

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                await self._some.wait()
                while self._waiting:
                    message = self._waiting.popleft()
                    self._bytes -= len(message)
                    await socket.send(message)
                self._some.clear()
        except ConnectionClosed:
            pass  # the reader says so


def _refusal(status: int) -> UpstreamError:
    reason = {401: "the key was refused", 403: "the key may not do that", 404: "there is no such model or address"}
    return UpstreamError(f"{reason.get(status, 'it refused')} (HTTP {status})", passing=status in (408, 429) or status >= 500)


def _closed(error: ConnectionClosed) -> UpstreamError:
    """Services give their reasons in the close frame (RFC 6455 7.4.1): 1007 and 1008 are about what we asked."""
    frame = error.rcvd
    if error.sent is not None and error.sent.code == 1009:
        return UpstreamError(f"it sent a message of more than {_LONGEST >> 20} MiB")
    if frame is None:
        return UpstreamError("its connection broke", passing=True)
    return UpstreamError(f"it closed the connection ({frame.code}): {frame.reason[:120]}", passing=frame.code not in (1007, 1008))
