"""Names are asked for once at a time, and remembered for a while; a name server that is silent keeps nobody."""

import asyncio
import socket

import pytest

import server.webrtc.names
from server.webrtc.names import Names


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system is asked, which a test may make hang or fail by the name."""
    asked: list[str] = []

    async def getaddrinfo(name: str, *_: object, **__: object) -> list[object]:
        asked.append(name)
        if name == "silent.example.org":
            await asyncio.Event().wait()
        if name == "unknown.example.org":
            raise socket.gaierror
        return [(None, None, None, "", (f"203.0.113.{len(asked)}", 0))]

    monkeypatch.setattr(server.webrtc.names, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lambda _, *given, **options: getaddrinfo(*given, **options))
    return asked


async def test_addresses_are_their_own(asked) -> None:
    names = Names()
    assert await names.addresses("203.0.113.7") == ["203.0.113.7"]
    assert await names.addresses("2001:DB8::7", socket.AF_INET6) == ["2001:db8::7"]
    assert await names.addresses("2001:db8::7", socket.AF_INET) == []
    assert asked == []


async def test_a_name_is_remembered_and_asked_for_again(asked) -> None:
    now = [0.0]
    names = Names(lambda: now[0])
    assert await names.addresses("home.example.org") == ["203.0.113.1"]
    assert await names.addresses("home.example.org") == ["203.0.113.1"]
    now[0] = 31.0
    assert await names.addresses("home.example.org") == ["203.0.113.2"]


async def test_one_that_is_unknown_is_remembered_too(asked) -> None:
    names = Names()
    for _ in range(3):
        assert await names.addresses("unknown.example.org") == []
    assert len(asked) == 1


async def test_a_silent_name_server_is_asked_once(asked) -> None:
    names = Names()
    assert await asyncio.gather(*(names.addresses("silent.example.org") for _ in range(5))) == [[]] * 5
    assert await names.addresses("silent.example.org") == []
    assert len(asked) == 1
    await names.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "look-up"] == []
