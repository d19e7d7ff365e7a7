"""Starting, announcing, draining, and the mistakes a person can make on the command line."""

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.engine_link import LocalEngineLink
from server.limits import Limits
from server.serve import ServeOptions, StartupError, serve
from server.sessions import ConversationFactory
from streaming.fakes import ScriptedEngine, ScriptedReply

_NAMES = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
_OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *_NAMES)
LONG = ScriptedReply(" ".join(["word"] * 400))


class SlowLink(LocalEngineLink):
    """An engine whose models load when the test says so."""

    def __init__(self) -> None:
        super().__init__(ScriptedEngine())
        self.loaded = asyncio.Event()
        self.error: str | None = None

    async def start(self) -> None:
        await self.loaded.wait()
        if self.error is not None:
            raise RuntimeError(self.error)
        await super().start()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def status(url: str) -> tuple[int, str]:
    """`/healthz`, once the port answers."""
    async with asyncio.timeout(10), httpx.AsyncClient() as client:
        while True:
            try:
                response = await client.get(url + "/healthz")
                return response.status_code, response.json()["status"]
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def test_ready_is_said_once_and_only_when_the_models_are_warm() -> None:
    link, stop, said = SlowLink(), asyncio.Event(), []
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    task = asyncio.create_task(serve(ServeOptions(port=port), link, None, stop=stop, announce=said.append))
    assert await status(url) == (503, "server_loading")
    with pytest.raises(InvalidStatus) as caught:
        await connect(url.replace("http", "ws") + "/v1/realtime")
    assert (caught.value.response.status_code, said) == (503, [])
    link.loaded.set()
    async with asyncio.timeout(10):
        while not said:  # noqa: ASYNC110 - what is awaited is a list
            await asyncio.sleep(0.01)
    assert await status(url) == (200, "ok")
    stop.set()
    await task
    assert said == [url]


async def test_models_that_cannot_be_loaded_end_the_server_with_the_reason() -> None:
    link = SlowLink()
    link.error = "model.bin has a wrong hash"
    link.loaded.set()
    with pytest.raises(StartupError, match="wrong hash"):
        await serve(ServeOptions(port=0), link, None, stop=asyncio.Event(), announce=print)


async def test_stopping_while_the_models_load() -> None:
    stop = asyncio.Event()
    stop.set()
    await serve(ServeOptions(port=0), SlowLink(), None, stop=stop, announce=print)


async def refusal(**options: object) -> str:
    with pytest.raises(StartupError) as caught:
        await serve(ServeOptions(**options), SlowLink(), None, stop=asyncio.Event(), announce=print)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        message = await refusal(port=port)
    assert str(port) in message
    assert "--port" in message


async def test_a_public_host_without_keys_is_refused() -> None:
    assert "API key" in await refusal(host="0.0.0.0", port=0)


async def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    assert "no such host" in await refusal(host="no.such.host.invalid", api_keys=["k"])
    assert "cannot listen" in await refusal(host="192.0.2.1", port=0, api_keys=["k"])


async def test_half_a_tls_configuration(tmp_path: Path) -> None:
    assert "is not a file" in await refusal(tls_certificate=tmp_path / "none.pem")
    (tmp_path / "cert.pem").write_text("")
    assert "both" in await refusal(tls_certificate=tmp_path / "cert.pem")


async def test_a_running_reply_is_drained_within_the_bound(start, dial) -> None:
    served = await start(ScriptedEngine([LONG]), drain_seconds=0.3)
    client = await dial(served)
    await client.send(type="response.create")
    await client.until("response.output_audio.delta")
    served.stop.set()
    assert (await client.until("error"))["error"]["code"] == "session_expired"
    with pytest.raises(ConnectionClosed):
        await client.receive()
    assert client.connection.close_code == 1012
    await asyncio.wait_for(asyncio.shield(served.task), 10)


async def test_a_quiet_session_is_closed_at_once(start, dial) -> None:
    served = await start(drain_seconds=60)
    client = await dial(served)
    served.stop.set()
    await client.until("error")
    await client.connection.wait_closed()
    await asyncio.wait_for(asyncio.shield(served.task), 10)


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    subprocess.run([*_OPENSSL, "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=True)
    return certificate, key


async def test_tls(start, self_signed: tuple[Path, Path]) -> None:
    certificate, key = self_signed
    served = await start(tls_certificate=certificate, tls_key=key)
    assert served.url.startswith("https://")
    context = ssl.create_default_context(cafile=certificate)
    async with connect(served.ws, ssl=context) as client:
        assert json.loads(await client.recv())["type"] == "session.created"


def test_under_uvloop_a_deaf_client_is_cut_off(plain: ConversationFactory) -> None:
    """The transport's buffers and its abort are uvloop's in production."""
    uvloop.run(_deaf_client(plain))


async def _deaf_client(factory: ConversationFactory) -> None:
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    options = ServeOptions(port=0, limits=Limits(max_outbox_bytes=100_000, send_timeout=0.3), drain_seconds=0.1)
    engine = ScriptedEngine()
    task = asyncio.create_task(serve(options, LocalEngineLink(engine), factory, stop=stop, announce=address.set_result))
    url = (await address).replace("http", "ws") + "/v1/realtime"
    async with asyncio.timeout(30):
        deaf = await connect(url, compression=None)
        deaf.transport.pause_reading()
        update = json.dumps({"type": "session.update", "session": {"instructions": "x" * 60_000}})
        try:
            while True:
                await asyncio.wait_for(deaf.send(update), 1)
        except (ConnectionClosed, TimeoutError):
            pass
        while engine._sessions:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)
        deaf.transport.abort()
        stop.set()
        await task


_PROGRAM = """
from server.engine_link import LocalEngineLink
from server.serve import ServeOptions, run_server
from streaming.fakes import ScriptedEngine
raise SystemExit(run_server(ServeOptions(port={port}), LocalEngineLink(ScriptedEngine()), None))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_prints_one_line_and_leaves_on_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(port=0)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert line.startswith("vivavoce ready on http://127.0.0.1:")
    assert (out, err, process.returncode) == ("", "", 0)


def test_the_process_says_in_one_line_why_it_cannot_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        program = _PROGRAM.format(port=sock.getsockname()[1])
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.stderr.count("\n"), ended.returncode) == ("", 1, 1)
    assert "in use" in ended.stderr
