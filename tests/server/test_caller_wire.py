"""A server that is full: who has time asks again, who has none is told."""

from http import HTTPStatus

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from server.caller_wire import CallError, again_after, open_connection


@pytest.mark.parametrize(
    ("status", "header", "seconds"), [(503, "0", 0.1), (503, "7", 7), (503, None, 5), (503, "Mon", 5), (401, "1", None)]
)
def test_when_a_server_may_be_asked_again(status: int, header: str | None, seconds: float | None) -> None:
    assert again_after(status, header) == seconds


async def test_a_full_server_is_asked_again() -> None:
    times = 0

    async def full_at_first(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal times
        times += 1
        if times == 3:
            return None
        refusal = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full")
        refusal.headers["Retry-After"] = "0"
        return refusal

    async def keep(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(keep, "127.0.0.1", 0, process_request=full_at_first) as server:
        port = server.sockets[0].getsockname()[1]
        connection = await open_connection(f"ws://127.0.0.1:{port}", None, 60.0)
        await connection.close()
    assert times == 3


async def test_who_has_no_time_is_told() -> None:
    async def full(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, '{"error": {"message": "no room"}}')

    async with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0, process_request=full) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CallError, match="HTTP 503: no room"):
            await open_connection(f"ws://127.0.0.1:{port}", None, 1.0)
