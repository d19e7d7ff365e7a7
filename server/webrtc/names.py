"""Host names of the way to this server, looked up as calls need them. A name server that is dead keeps a thread for as long as the
system waits for it, so each name is asked for once at a time, and its answer is remembered.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Names"]

_PATIENCE_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 30.0
"""A home's address changes about once a day; a name that was not found is asked for again as soon."""

_Question = tuple[str, socket.AddressFamily]


class Names:
    """The names of one server's settings, of which there are few: what is remembered is bounded by them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Question to when it was answered, and the addresses.
        self._known: dict[_Question, tuple[float, list[str]]] = {}
        self._asked: dict[_Question, asyncio.Task[list[str]]] = {}

    async def addresses(self, name: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[str]:
        """Of a name, or of an address itself; none where it is not found in time, or is of another family."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return await self._look_up((name, family))
        own = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return [str(address)] if family in (own, socket.AF_UNSPEC) else []

    async def close(self) -> None:
        """Nobody is asked any more."""
        for task in tuple(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _look_up(self, question: _Question) -> list[str]:
        answered, addresses = self._known.get(question, (-_KEPT_SECONDS, []))
        if self._clock() - answered < _KEPT_SECONDS:
            return addresses
        task = self._asked.get(question)
        if task is None:
            task = self._asked[question] = asyncio.create_task(self._ask(question), name="look-up")
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            return []

    async def _ask(self, question: _Question) -> list[str]:
        name, family = question
        addresses: list[str] = []
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, family=family, type=socket.SOCK_DGRAM)
            addresses = list(dict.fromkeys(str(place[4][0]) for place in found))
        except OSError:
            pass
        finally:
            del self._asked[question]
        self._known[question] = self._clock(), addresses
        return addresses
