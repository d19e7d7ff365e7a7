"""What a bundle takes of a machine, compared with what there is before anything is fetched.

What a manifest says is about right, so only what can't be is refused. Once the files are there the engine looks at them
(`streaming.device`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.manifest import BundleError, Manifest, Needs

__all__ = ["Machine", "check_room", "cpu_memory", "gpu_memory", "size_text", "this_machine", "usable_cores"]

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""What a container may use (cgroup v2); "max" where it may use everything."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes, all of it and not what is free: `gpu_memory` is the largest GPU's, 0 without one. `bfloat16` is whether the CPU
    computes in it: one that doesn't holds the weights of large models in float32, twice as large."""

    memory: int
    gpu_memory: int
    bfloat16: bool = True


def this_machine() -> Machine:
    """The machine, or the container, that this runs in."""
    import torch  # takes a second, and is wanted only where something is to be fetched

    from streaming.models.linear import usual_dtype

    return Machine(_memory(), _gpu_memory(), usual_dtype() is torch.bfloat16)


def usable_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_memory(needs: Needs, machine: Machine, dtype: str = "auto") -> int:
    """What a bundle takes with everything on this machine's CPU. Only what is also meant for a GPU has large weights that aren't packed."""
    wide = dtype == "float32" or (dtype == "auto" and not machine.bfloat16)
    return needs.memory * (2 if needs.gpu_memory and wide else 1)


def gpu_memory(needs: Needs, dtype: str = "auto") -> int:
    """What a bundle takes of a GPU, 0 where it has not said."""
    return needs.gpu_memory * (2 if dtype == "float32" else 1)


def check_room(manifest: Manifest, machine: Machine, device: str, dtype: str = "auto") -> None:
    """Refuse a bundle that can't run on `device` of this machine in `dtype` (`streaming.device`). Raises BundleError."""
    needs = manifest.needs
    of_cpu, of_gpu = cpu_memory(needs, machine, dtype), gpu_memory(needs, dtype)
    on_cpu = not device.startswith("cuda")
    fits_cpu = on_cpu and of_cpu <= machine.memory
    fits_gpu = device != "cpu" and machine.gpu_memory > 0 and of_gpu <= machine.gpu_memory
    if fits_cpu or fits_gpu:
        return
    wanted = []
    if device != "cpu":
        here = size_text(machine.gpu_memory) if machine.gpu_memory else "none"
        wanted.append(f"a GPU with {size_text(of_gpu)} (here: {here})" if of_gpu else "a GPU (here: none)")
    if on_cpu:
        wanted.append(f"{size_text(of_cpu)} of memory on the CPU (here: {size_text(machine.memory)})")
    advice = "choose a smaller one (`vivavoce bundles`), or a larger machine"
    raise BundleError(f"the bundle {manifest.name} needs about {' or '.join(wanted)}: {advice}")


def size_text(size: int) -> str:
    """Bytes in decimal units, as disks and downloads are sold: "297 MB", "16.8 GB"."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def _memory() -> int:
    """The machine's memory, or what its container may use of it; where neither is told, more than any."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62
    try:
        return min(whole, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return whole


def _gpu_memory() -> int:
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return 0
    return max(torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count()))
