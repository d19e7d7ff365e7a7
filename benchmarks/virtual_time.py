"""Asyncio without waiting: time leaps to the next deadline whenever every task waits. For code that sleeps and does no other I/O."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

__all__ = ["run_in_leaps"]

_T = TypeVar("_T")


class _Leaping(selectors.SelectSelector):
    """Does not wait: the time it was to wait for has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing ever comes from outside."""
        if timeout is None:
            raise RuntimeError("everything waits for ever")
        self.now += max(0.0, timeout)
        return []


def run_in_leaps(main: Coroutine[object, object, _T]) -> _T:
    """Run `main` in a loop of its own whose time leaps to the next deadline whenever every task waits."""
    selector = _Leaping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
