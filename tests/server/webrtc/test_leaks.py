"""Fifty calls opened and closed: nothing of them is left."""

import asyncio
import ctypes
import gc
import os
import threading
from collections import Counter
from pathlib import Path

from server.limits import Limits

AT_ONCE = 5
OURS = ("aiortc.", "aioice.", "av.", "server.", "agent.", "pylibsrtp", "OpenSSL.")
MOST_GROWN = 8 << 20
"""Bytes, of the second 50 calls: caches and the C library's arenas have their size by then, and what a call keeps shows fifty times. Seen:
0.4 to 0.7 MB, the audits of the tests in it."""
AUDITED = "server.ledger.Ledger"
"""One of each session is kept by the audit of every test."""


def objects() -> Counter[str]:
    """How many of each class of ours and of the libraries are alive."""
    gc.collect()
    names = (f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter(name for name in names if name.startswith(OURS) and name != AUDITED)


def resident() -> int:
    """Bytes of memory that the process holds, what the C library keeps free for later given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_fifty_calls_leave_nothing(start, caller_of, post) -> None:
    served = await start(limits=Limits(max_sessions=AT_ONCE))

    async def call() -> None:
        one = caller_of()
        try:
            response = await post(served, await one.offer())
            assert response.status_code == 201
            await one.accept(response.text)
            await one.until("session.created")
        finally:
            await one.hang_up()

    async def settled() -> None:
        async with asyncio.timeout(60):
            while "vivavoce_sessions 0.0" not in (await served.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while any(task.get_name().startswith(("rtc_", "sess_", "webrtc")) for task in asyncio.all_tasks()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    await asyncio.gather(*(call() for _ in range(AT_ONCE)))  # what is made once is there
    await settled()
    before = objects(), len(os.listdir("/proc/self/fd")), {thread.name for thread in threading.enumerate()}, len(asyncio.all_tasks())
    served.dialogues.clear()
    memory = 0
    for batch in range(100 // AT_ONCE):
        if batch == 50 // AT_ONCE:
            memory = resident()
        await asyncio.gather(*(call() for _ in range(AT_ONCE)))
        await settled()
        served.dialogues.clear()
    left = objects() - before[0]
    grown = resident() - memory
    print(f"50 calls left {grown / 1_000:.0f} kB of memory")
    assert grown < MOST_GROWN
    assert {kind: count for kind, count in left.items() if count >= 25} == {}
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 2
    assert {thread.name for thread in threading.enumerate() if thread.name.endswith("decoder")} == set()
    assert len(asyncio.all_tasks()) <= before[3] + 1
