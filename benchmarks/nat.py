"""The network matrix: which callers reach which servers over WebRTC, and by which way.

    python -m benchmarks.nat [--patience 8] [--json FILE]        as root, with iproute2, nftables and coturn

Every pair calls across network namespaces (`benchmarks.nat_world`, which says what the kinds of routers do): our server with a scripted
engine, configured as docs/operations.md has it, and aiortc as the caller, which asks the server for its STUN and TURN servers as a browser
does. A call that comes up speaks a turn and has to hear the answer. A cell says how it went, as the caller's candidate and the server's
that were used, and the seconds from the answer until the session began; or `no way`, after which the caller tried a WebSocket. In the
end nothing may be left of any call: neither sockets, tasks and sessions in the servers, nor relays in the TURN server.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.nat_world import SIGNALLING, TURN_SECRET, UDP_PORTS, World, missing_networks, world

__all__ = ["CALLERS", "SERVERS", "Cell", "Left", "Matrix", "Server", "measure", "port_of", "serving", "table_of"]

CALLERS: Final = {
    "open": "public address",
    "cone": "full-cone NAT",
    "restricted": "port-restricted NAT",
    "symmetric": "symmetric NAT",
    "blocked": "UDP blocked",
    "six": "IPv6 only",
}
_ROUTERS: Final = {"cone": "cone", "restricted": "restricted", "symmetric": "symmetric", "blocked": "blocked"}
"""Of callers that have one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A row: a host, the settings that reach it, and whether these name a TURN server."""

    host: str
    stun: bool = False
    turn: bool = False
    forwarded: bool = False
    relay_only: bool = False


SERVERS: Final = {
    "public": Server("public"),
    "public, relay only": Server("public", turn=True, relay_only=True),
    "forwarded ports": Server("forwarding", forwarded=True),
    "port-restricted NAT, STUN": Server("restricted-server", stun=True),
    "symmetric NAT, STUN": Server("symmetric-server", stun=True),
    "symmetric NAT, TURN": Server("symmetric-server", turn=True),
}
_SERVER_ROUTERS: Final = {"forwarding": "forwarding", "restricted-server": "restricted", "symmetric-server": "symmetric"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of a call: `answered`, `no way` (then whether a session began over WebSocket) or what else went wrong."""

    outcome: str
    path: str = ""
    seconds: float = 0.0
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """What is left when all calls have ended, and how many there were as the servers counted them."""

    connected: int
    not_connected: int
    sessions: int
    tasks: int
    sockets: int
    relays: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells by server and caller; those of a caller without IPv4 and a server without IPv6 are not there."""

    cells: dict[tuple[str, str], Cell]
    left: Left


def measure(patience: float) -> Matrix:
    """All calls; both sides give a call up after `patience` seconds. Raises RuntimeError where a host can't do its part."""
    with world(["public", "open"], _ROUTERS | _SERVER_ROUTERS, ["six"]) as made, ExitStack() as stack:
        running = {name: stack.enter_context(serving(made, name, patience)) for name in SERVERS}
        cells, tasks, sockets = {}, 0, 0
        for caller in CALLERS:
            told = _call(made, caller, patience)
            cells |= {(server, caller): Cell(**cell) for server, cell in told["cells"].items()}
            tasks, sockets = tasks + told["tasks"], sockets + told["sockets"]
        ends = [_end(server) for server in running.values()]
        total = {name: int(sum(end[name] for end in ends)) for name in ("connected", "not connected", "sessions", "sockets")}
        tasks += sum(len(end["tasks"]) for end in ends)
        sockets += total["sockets"]
        return Matrix(cells, Left(total["connected"], total["not connected"], total["sessions"], tasks, sockets, made.relays_left()))


def table_of(matrix: Matrix) -> Table:
    """The matrix as a person reads it."""
    table = Table("server", *CALLERS.values())
    for server in SERVERS:
        table.add_row(server, *(_shown(matrix.cells.get((server, caller))) for caller in CALLERS))
    return table


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell.outcome == "answered":
        return f"{cell.path}, {cell.seconds:.1f} s"
    if cell.outcome == "no way":
        return f"no way, {'WebSocket' if cell.websocket else 'no WebSocket'}"
    return cell.outcome


def _ice(made: World, server: Server) -> dict[str, Any]:
    """The settings of a row, as `server.webrtc.ice.IceOptions` takes them."""
    turn = [f"turn:{made.turn}:3478?transport={transport}" for transport in ("udp", "tcp")] if server.turn else []
    return {
        "public_addresses": [made.address[server.host]] if server.forwarded else [],
        "ports": UDP_PORTS if server.forwarded else None,
        "stun_servers": [f"stun:{made.turn}"] if server.stun else [],
        "turn_servers": turn,
        "turn_secret": TURN_SECRET if turn else "",
        "relay_only": server.relay_only,
    }


def port_of(name: str) -> int:
    """Where a server listens: two may be on one host."""
    others = [other for other in SERVERS if SERVERS[other].host == SERVERS[name].host]
    return SIGNALLING[others.index(name)]


@contextmanager
def serving(made: World, name: str, patience: float) -> "Iterator[subprocess.Popen[str]]":
    """One of `SERVERS`, running on its host."""
    told = {"role": "server", "port": port_of(name), "connect_seconds": patience, "ice": _ice(made, SERVERS[name])}
    running = made.start(SERVERS[name].host, _peer(told), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert _line(running) == {"ready": True}
        yield running
    finally:
        running.kill()
        running.communicate()


def _call(made: World, caller: str, patience: float) -> dict[str, Any]:
    urls = {
        name: f"http://{f'[{made.six[server.host]}]' if caller == 'six' else made.address[server.host]}:{port_of(name)}"
        for name, server in SERVERS.items()
        if caller != "six" or server.host in made.six
    }
    running = made.start(
        caller, _peer({"role": "caller", "servers": urls, "over_tcp": caller == "blocked", "patience": patience}), stdout=subprocess.PIPE
    )
    try:
        return _line(running)
    finally:
        running.kill()
        running.communicate()


def _end(running: "subprocess.Popen[str]") -> dict[str, Any]:
    assert running.stdin is not None
    print(file=running.stdin, flush=True)
    return _line(running)


def _peer(told: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.nat_peer", json.dumps(told)]


def _line(running: "subprocess.Popen[str]") -> dict[str, Any]:
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise RuntimeError("a host of the network tests ended without a word: its errors are on stderr")
    answer: dict[str, Any] = json.loads(line)
    return answer


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patience", type=float, default=8.0, help="seconds after which either side gives a call up")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if (reason := missing_networks()) is not None:
        sys.exit(reason)
    matrix = measure(options.patience)
    console = Console(width=170)
    console.print(table_of(matrix))
    console.print(f"left of {matrix.left.connected + matrix.left.not_connected} calls: {asdict(matrix.left)}")
    if options.json:
        cells = [{"server": server, "caller": caller, **asdict(cell)} for (server, caller), cell in matrix.cells.items()]
        options.json.write_text(json.dumps({"cells": cells, "left": asdict(matrix.left)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
