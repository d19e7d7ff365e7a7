"""`vivavoce doctor`: all checks of a configuration, and what came of them on the terminal or as JSON."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.config import ServerConfig
from server.doctor.finding import Check, Finding, Outcome, aside, examine
from server.doctor.machine import check_cpu, check_hashes, check_models, check_opus, cpu_flags
from server.doctor.network import check_addresses, check_port, check_turn, check_udp
from server.doctor.tls import check_microphone, check_tls
from server.webrtc.ice import IceOptions
from server.webrtc.opus import library_problem
from streaming.bundle import Places, default_places
from streaming.manifest import Manifest
from streaming.needs import this_machine, usable_cores

__all__ = ["checks_of", "run_doctor", "table_of", "to_json"]

_NETWORK_SECONDS: Final = 30.0
"""Eight STUN servers that are silent, over both versions of IP."""
_QUICK_SECONDS: Final = 15.0
_IMPORT_SECONDS: Final = 60.0
"""PyTorch is imported; from a cold disk that takes long."""
_HASH_SECONDS: Final = 30.0
"""Some gigabytes of weights."""
_STYLES: Final = {Outcome.PASS: "green", Outcome.WARN: "yellow", Outcome.FAIL: "bold red"}


def run_doctor(config: ServerConfig, manifest: Manifest, *, as_json: bool) -> int:
    """Look at everything; the exit status is 1 where something does not work. Raises ConfigError."""
    checks = checks_of(config, config.ice, manifest, default_places())
    console = Console(stderr=True)
    status = console.status("") if console.is_terminal and not as_json else None
    shown: AbstractContextManager[object] = status or nullcontext()
    with shown:
        findings = asyncio.run(examine(checks, (lambda name: status.update(name)) if status else lambda _: None))
    if as_json:
        print(to_json(findings))
    else:
        Console(highlight=False).print(table_of(findings))
    return int(any(finding.outcome is Outcome.FAIL for finding in findings))


def checks_of(config: ServerConfig, ice: IceOptions, manifest: Manifest, places: Places) -> list[Check]:
    """Everything that is looked at, in order."""

    async def cpu() -> list[Finding]:
        return await aside(lambda: check_cpu(cpu_flags(), usable_cores(), _numbers()))

    async def opus() -> list[Finding]:
        return check_opus(library_problem())

    async def models() -> list[Finding]:
        return await aside(lambda: check_models(manifest, places, this_machine(), config.device or manifest.device, config.dtype))

    async def hashes() -> list[Finding]:
        end = time.monotonic() + _HASH_SECONDS
        return await aside(lambda: check_hashes(manifest, places, lambda: time.monotonic() > end))

    async def tls() -> list[Finding]:
        return check_tls(config, datetime.now(UTC))

    async def microphone() -> list[Finding]:
        return check_microphone(config)

    return [
        Check("port", partial(check_port, config), _QUICK_SECONDS),
        Check("TLS", tls, _QUICK_SECONDS),
        Check("microphone", microphone, _QUICK_SECONDS),
        Check("UDP", partial(check_udp, ice, config.limits.max_sessions), _QUICK_SECONDS),
        Check("public address", partial(check_addresses, config, ice), _NETWORK_SECONDS),
        Check("TURN", partial(check_turn, ice), _QUICK_SECONDS),
        Check("Opus", opus, _QUICK_SECONDS),
        Check("CPU", cpu, _IMPORT_SECONDS),
        Check("models", models, _IMPORT_SECONDS),
        Check("hashes", hashes, _HASH_SECONDS + _QUICK_SECONDS),
    ]


def _numbers() -> str:
    """What large models are held in on this CPU."""
    from streaming.models.linear import usual_dtype  # brings PyTorch

    return str(usual_dtype()).removeprefix("torch.")


def table_of(findings: Sequence[Finding]) -> Table:
    """As a person reads it."""
    table = Table("check", "", "found", "what to do")
    for finding in findings:
        style = _STYLES[finding.outcome]
        table.add_row(finding.check, f"[{style}]{finding.outcome}[/]", escape(finding.found), escape(finding.advice))
    return table


def to_json(findings: Sequence[Finding]) -> str:
    """As a program reads it."""
    well = all(finding.outcome is not Outcome.FAIL for finding in findings)
    return json.dumps({"ok": well, "findings": [asdict(finding) for finding in findings]}, indent=1)
