"""What `vivavoce doctor` finds, and how its checks are kept from hanging: each has a time, after which it has failed."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

__all__ = ["Check", "Finding", "Outcome", "aside", "examine", "failed", "passed", "warned"]

_Result = TypeVar("_Result")


class Outcome(StrEnum):
    """`WARN` is what works and will disappoint somebody, `FAIL` what does not work."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it where it is not as it should be."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What is looked at, and how. `seconds` is what it may take."""

    name: str
    run: Callable[[], Awaitable[list[Finding]]]
    seconds: float


def passed(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, Outcome.PASS, found)


def warned(check: str, found: str, advice: str) -> Finding:
    """It works, but."""
    return Finding(check, Outcome.WARN, found, advice)


def failed(check: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, Outcome.FAIL, found, advice)


async def examine(checks: Iterable[Check], report: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Everything that is found, one check after the other. `report` is told the name of each before it begins."""
    findings: list[Finding] = []
    for check in checks:
        report(check.name)
        try:
            async with asyncio.timeout(check.seconds):
                findings += await check.run()
        except TimeoutError:
            findings.append(failed(check.name, f"no result within {check.seconds:.0f} s", "see what holds it up: a disk, a name server?"))
    return findings


async def aside(function: Callable[[], _Result]) -> _Result:
    """The result of a function that may block, on a thread that nobody waits for when the program ends: the loop's own would be."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is the waiter's
            outcome: tuple[_Result | None, BaseException | None] = (None, error)
        else:
            outcome = (result, None)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await done
