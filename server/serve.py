"""Running the server: the port, the engine, the ready line, the signals, the drain."""

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvicorn
import uvloop

from agent.settings import SessionSettings
from server.agents.agent import Agent
from server.agents.errors import AgentError
from server.agents.team import open_team
from server.app import AppParts, make_app
from server.auth import AccessPolicy, EphemeralKeys, is_loopback_host
from server.engine_link import EngineLink
from server.limits import Limits
from server.metrics import Metrics
from server.realtime.transport import RealtimeProtocol
from server.sessions import ConversationFactory, Sessions, SessionsOptions
from server.webrtc.calls import Calls
from server.webrtc.ice import IceOptions
from streaming import echo_canceller

__all__ = ["ServeOptions", "StartupError", "listen", "run_server", "serve"]

log = logging.getLogger(__name__)

_PING_SECONDS: Final = 20.0
_PONG_SECONDS: Final = 30.0
"""A client whose network vanished without a word is noticed within these two."""
_CLOSE_SECONDS: Final = 5
"""How long connections may take to close once every session has ended."""


class StartupError(Exception):
    """The server can't start; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve. `port` 0 takes any free one. `drain_seconds` is what a running reply gets at shutdown. `voices` and `languages` are the
    model's, as clients are told of them."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    defaults: SessionSettings = field(default_factory=SessionSettings)
    models: Sequence[str] = ("pocket",)
    voices: Sequence[str] = ()
    languages: Sequence[str] = ()
    record: Path | None = None
    agent: Agent | None = None
    ice: IceOptions = field(default_factory=IceOptions)
    drain_seconds: float = 10.0
    cancels_echo: bool = False


def run_server(options: ServeOptions, link: EngineLink, new_conversation: ConversationFactory) -> int:
    """Serve until SIGINT or SIGTERM; a second one doesn't wait for running replies. Returns the exit code. Prints one line when ready,
    and one on stderr if the server can't start."""
    try:
        uvloop.run(_serve_until_signal(options, link, new_conversation))
    except (AgentError, StartupError) as error:
        print(f"vivavoce: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 130
    return 0


async def _serve_until_signal(options: ServeOptions, link: EngineLink, new_conversation: ConversationFactory) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    serving = asyncio.current_task()
    assert serving is not None

    def on_signal() -> None:
        if stop.is_set():
            serving.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await serve(options, link, new_conversation, stop=stop, announce=_say_ready)


def _say_ready(url: str) -> None:
    # The modules that are here now stay. Looking through all of them for garbage takes a tenth of a second, in which no frame leaves.
    gc.collect()
    gc.freeze()
    print(f"vivavoce ready on {url}", flush=True)


async def serve(
    options: ServeOptions,
    link: EngineLink,
    new_conversation: ConversationFactory,
    *,
    stop: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    """Serve until `stop` is set. `announce` gets the address once the models are warm. Raises StartupError, AgentError."""
    _check(options)
    async with contextlib.AsyncExitStack() as stack:
        sock = stack.enter_context(listen(options.host, options.port))
        team = None if options.agent is None else await stack.enter_async_context(open_team(options.agent, options.defaults))
        metrics = Metrics()
        sessions = Sessions(
            link, new_conversation, SessionsOptions(options.limits, options.defaults, options.record, team, options.cancels_echo), metrics
        )
        calls = Calls(sessions, options.limits, metrics, options.ice)
        server = _Server(_uvicorn_config(options, sessions, calls, metrics))
        serving = asyncio.create_task(server.serve([sock]), name="http")
        try:
            await _run(link, sessions, _url(options, sock), stop, announce, serving, options.drain_seconds)
        finally:
            await calls.close()
            server.should_exit = True
            await serving
            await link.stop()


async def _run(
    link: EngineLink,
    sessions: Sessions,
    url: str,
    stop: asyncio.Event,
    announce: Callable[[str], None],
    serving: asyncio.Task[None],
    drain_seconds: float,
) -> None:
    """Load, announce, wait, drain; whatever ends first, nothing is left running."""
    starting = asyncio.create_task(_start(link), name="engine-start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({starting, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                starting.result()
            except RuntimeError as error:
                raise StartupError(f"the models could not be loaded: {error}") from error
            sessions.ready = True
            announce(url)
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        await sessions.drain(drain_seconds)
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _start(link: EngineLink) -> None:
    """Load what takes long: no call is to wait for it."""
    if echo_canceller.available():
        try:
            await asyncio.to_thread(echo_canceller.load)
        except Exception:
            log.exception("echo cancellation is installed and can't be loaded")
    await link.start()


class _Server(uvicorn.Server):
    """uvicorn's server, leaving the signals to us: sessions are drained before connections are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """uvicorn reports every refused handshake as a fault of the application; the metrics count them, and the client has been told why."""
    return not record.getMessage().startswith("ASGI callable returned without completing handshake")


def _uvicorn_config(options: ServeOptions, sessions: Sessions, calls: Calls, metrics: Metrics) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    ephemeral = EphemeralKeys(time.time)
    policy = AccessPolicy(options.api_keys, options.allowed_origins, ephemeral)
    parts = AppParts(
        sessions=sessions,
        calls=calls,
        policy=policy,
        ephemeral=ephemeral,
        metrics=metrics,
        limits=options.limits,
        origins=options.allowed_origins,
        models=options.models,
        voices=options.voices,
        languages=options.languages,
    )
    return uvicorn.Config(
        make_app(parts),
        ws=RealtimeProtocol,
        ws_max_size=options.limits.max_frame_bytes,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PONG_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )


def _check(options: ServeOptions) -> None:
    if not options.api_keys and not is_loopback_host(options.host):
        raise StartupError(f"{options.host} can be reached from outside: set an API key, or serve on 127.0.0.1")
    for name, path in (("certificate", options.tls_certificate), ("key", options.tls_key)):
        if path is not None and not path.is_file():
            raise StartupError(f"the TLS {name} {path} is not a file")
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise StartupError("TLS needs both a certificate and a key")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, before any model is loaded: a port in use is known at once. Raises StartupError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartupError(f"no such host: {host}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is in use: stop the program that holds it, or choose another with --port"
            raise StartupError(message) from error
        raise StartupError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock


def _url(options: ServeOptions, sock: socket.socket) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "https" if options.tls_certificate else "http"
    return f"{scheme}://{host}:{sock.getsockname()[1]}"
