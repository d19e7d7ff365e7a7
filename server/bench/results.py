"""A bench's run as JSON: what was found, and on what machine."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_results"]


def write_results(path: Path, load_before: float, found: Mapping[str, object]) -> None:
    """`found` is the run's own; `load_before` is the machine's load average before it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    content = {"cores": cores, "machine": platform.machine(), "load_before": load_before, **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
