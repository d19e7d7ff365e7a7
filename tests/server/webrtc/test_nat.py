"""Calls across network namespaces: every kind of NAT on both sides, TURN, blocked UDP, IPv6. Prints its table with `pytest -s`."""

import pytest
from rich.console import Console

from benchmarks.nat import CALLERS, SERVERS, Left, Matrix, measure, table_of

pytestmark = pytest.mark.networks

PATIENCE = 10.0
"""Seconds: what takes a second on an idle machine; each caller for whom there is no way waits as long."""
NO_WAY = {
    # UDP goes nowhere, and no TURN server takes it over TCP.
    ("public", "blocked"),
    ("forwarded ports", "blocked"),
    ("port-restricted NAT, STUN", "blocked"),
    ("symmetric NAT, STUN", "blocked"),
    # One side's port for the other is not the one that STUN has seen, and the other side's router lets that port only through.
    ("port-restricted NAT, STUN", "symmetric"),
    ("symmetric NAT, STUN", "restricted"),
    ("symmetric NAT, STUN", "symmetric"),
    # A relay's address is IPv4.
    ("public, relay only", "six"),
}


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    measured = measure(PATIENCE)
    Console(width=170).print("\n", table_of(measured), measured.left)
    return measured


def test_who_reaches_whom(matrix) -> None:
    wrong = {where: cell for where, cell in matrix.cells.items() if cell.outcome != ("no way" if where in NO_WAY else "answered")}
    assert wrong == {}
    assert len(matrix.cells) == len(SERVERS) * (len(CALLERS) - 1) + 2  # two of the servers have IPv6


def test_where_there_is_no_way_the_server_gives_up_and_a_websocket_helps(matrix) -> None:
    assert all(matrix.cells[where].websocket for where in NO_WAY)
    assert matrix.left.not_connected == len(NO_WAY)
    assert matrix.left.connected == len(matrix.cells) - len(NO_WAY)


def test_a_server_that_wants_relays_tells_nothing_else(matrix) -> None:
    paths = {cell.path for (server, _), cell in matrix.cells.items() if server == "public, relay only" and cell.path}
    assert {path.rpartition(" ")[2] for path in paths} == {"relay"}


def test_nothing_is_left_of_any_call(matrix) -> None:
    counted = matrix.left
    assert counted == Left(counted.connected, counted.not_connected, sessions=0, tasks=0, sockets=0, relays=0)
