"""A bench's run as JSON: what was found, and on what machine."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

from streaming.needs import usable_cores

__all__ = ["write_results"]


def write_results(path: Path, load_before: float, found: Mapping[str, object]) -> None:
    """`found` is the run's own; `load_before` is the machine's load average before it."""
    content = {"cores": usable_cores(), "machine": platform.machine(), "load_before": load_before, **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
