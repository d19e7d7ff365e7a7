"""The memory that a bundle takes while it serves: server and engine together, at rest and with one call.

    python -m benchmarks.footprint [--bundle pocket] [--question FILE] [--turns 3] [--json FILE]

Starts `vivavoce serve`, asks a recorded question so many times in one call, and adds up what Linux counts for the server and all the
processes below it (`Pss` of `/proc/PID/smaps_rollup`: what several share counts once). `most` is the largest of what was seen, a look every
0.2 s; what lasted less than that is not seen. The second table is how it is made up after the call, a line a process.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from server.caller import call
from server.caller_audio import load_recording

_QUESTION: Final = Path(__file__).parent.parent / "tests" / "golden" / "weather_question.flac"
_LOOK_SECONDS: Final = 0.2
_PROC: Final = Path("/proc")


def tree(root: int) -> list[int]:
    """A process and all below it, by what `/proc/PID/stat` says of parents."""
    parents = {}
    for path in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def memory_of(process: int) -> int:
    """Bytes that are this process's, its share of what others have too; 0 where it has ended."""
    with suppress(OSError):
        for line in (_PROC / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1_024
    return 0


def name_of(process: int) -> str:
    """How it was started, without its folder."""
    with suppress(OSError):
        words = (_PROC / str(process) / "cmdline").read_text().split("\0")
        return " ".join(words[1:4])
    return "?"


def total(root: int) -> int:
    """Bytes of a process and all below it."""
    return sum(memory_of(process) for process in tree(root))


async def watch(root: int, seen: list[int]) -> None:
    """Looks until it is cancelled."""
    while True:
        seen.append(await asyncio.to_thread(total, root))
        await asyncio.sleep(_LOOK_SECONDS)


async def measure(bundle: str, question: Path, turns: int) -> Iterator[tuple[str, int]]:
    """What is told, and bytes."""
    command = (sys.executable, "-m", "server", "serve", "--bundle", bundle, "--port", "0")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        ready = (await process.stdout.readline()).decode().split()
        if not ready:
            raise SystemExit("the server did not start: `vivavoce serve` says why")
        seen: list[int] = []
        rest = total(process.pid)
        looking = asyncio.create_task(watch(process.pid, seen))
        async with call(f"{ready[-1]}/v1/realtime") as caller:
            for _ in range(turns):
                async for _ in caller.speak(load_recording(question)):
                    pass
            within = total(process.pid)
        looking.cancel()
        after = [(name_of(each), memory_of(each)) for each in tree(process.pid)]
        return iter([("at rest", rest), ("most, in a call", max([within, *seen])), ("at its end", within), *after])
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="pocket")
    parser.add_argument("--question", type=Path, default=_QUESTION)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = list(asyncio.run(measure(options.bundle, options.question, options.turns)))
    print(f"{options.bundle}: MB of server and engine, one call of {options.turns} turns")
    for number, (name, size) in enumerate(rows):
        print(f"{'' if number < 3 else '  '}{name}: {size / 1e6:.0f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"bundle": options.bundle, "turns": options.turns, "bytes": dict(rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
