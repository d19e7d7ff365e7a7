"""Checks that hang, and what is printed of findings."""

import asyncio
import io
import json
import threading

import pytest
from rich.console import Console

from server.doctor.command import table_of, to_json
from server.doctor.finding import Check, Finding, Outcome, aside, examine, failed, passed, warned


async def well() -> list[Finding]:
    return [passed("well", "it is")]


async def test_a_check_that_hangs_has_failed_and_the_others_are_made() -> None:
    async def hangs() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    told: list[str] = []
    findings = await examine([Check("slow", hangs, 0.05), Check("well", well, 5)], told.append)
    assert told == ["slow", "well"]
    assert [(finding.check, finding.outcome) for finding in findings] == [("slow", Outcome.FAIL), ("well", Outcome.PASS)]
    assert "no result within" in findings[0].found


async def test_a_call_that_blocks_holds_nobody_up() -> None:
    held = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await aside(held.wait)
    held.set()


async def test_what_comes_of_a_call_aside() -> None:
    assert await aside(lambda: 7) == 7
    with pytest.raises(OSError, match="no"):
        await aside(lambda: (_ for _ in ()).throw(OSError("no")))


def test_findings_are_shown_to_people_and_to_programs() -> None:
    findings = [passed("a", "[x] is well"), warned("b", "so so", "wait"), failed("c", "broken", "mend it")]
    console = Console(width=120, file=io.StringIO())
    console.print(table_of(findings))
    text = console.file.getvalue()
    for words in ("[x] is well", "pass", "warn", "fail", "mend it"):
        assert words in text
    shown = json.loads(to_json(findings))
    assert not shown["ok"]
    assert shown["findings"][2] == {"check": "c", "outcome": "fail", "found": "broken", "advice": "mend it"}
    assert json.loads(to_json(findings[:2]))["ok"]
