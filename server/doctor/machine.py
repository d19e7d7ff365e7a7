"""Looks at the processor, the models and the room for them."""

from collections.abc import Callable, Set
from pathlib import Path
from typing import Final

from server.doctor.finding import Finding, failed, passed, warned
from streaming.bundle import Places, damage, free_space, is_present, missing_bytes, needed_space
from streaming.fetch import Progress
from streaming.manifest import BundleError, Manifest
from streaming.needs import Machine, check_room, cpu_memory, gpu_memory, size_text

__all__ = ["check_cpu", "check_hashes", "check_models", "check_opus", "cpu_flags"]

_CPUINFO: Final = Path("/proc/cpuinfo")
_SHOWN: Final = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
"""Of the kernel's names those that the models' arithmetic uses."""


def cpu_flags() -> frozenset[str] | None:
    """What the processor can, in the kernel's words; None where it does not say."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def check_cpu(flags: Set[str] | None, cores: int, numbers: str) -> list[Finding]:
    """`numbers` is what large models are held in on this CPU, by `streaming.models.linear.usual_dtype`."""
    counted = f"{cores} core{'' if cores == 1 else 's'}"
    known = [name for flag, name in _SHOWN.items() if flag in (flags or ())]
    told = f"{counted}, {', '.join(known) or 'no AVX2'}" if flags else counted
    findings = []
    if flags and "avx2" not in flags and "fphp" not in flags:  # the second is ARM's
        findings.append(warned("CPU", told, "without AVX2 weights are not packed, so answers are late: take another machine, or a GPU"))
    elif cores < 2:
        findings.append(warned("CPU", told, "the ear, the models and the voice share it: answers are late, with more than one call very"))
    else:
        findings.append(passed("CPU", told))
    meaning = "half the memory of float32" if numbers != "float32" else "it has no arithmetic for bfloat16: twice its memory, and slower"
    return [*findings, passed("numbers", f"large models are held in {numbers} on this CPU: {meaning}")]


def check_opus(problem: str | None) -> list[Finding]:
    """`problem` is why WebRTC's sound can't be decoded here, by `server.webrtc.opus.library_problem`."""
    if problem is None:
        return [passed("Opus", "the codec of WebRTC is there")]
    return [failed("Opus", problem, "install libopus (Debian: libopus0); until then calls go over WebSocket")]


def check_models(manifest: Manifest, places: Places, machine: Machine, device: str, dtype: str) -> list[Finding]:
    """Whether the bundle is here, or can be, and has room."""
    return [_fetched(manifest, places), _room(manifest, machine, device, dtype)]


def _fetched(manifest: Manifest, places: Places) -> Finding:
    missing = [part.name for part in manifest.parts if not is_present(part, places)]
    if not missing:
        return passed("models", f"all {len(manifest.parts)} parts of {manifest.name} are in place")
    needed, free = needed_space(manifest, places), free_space(places)
    told = f"{manifest.name} lacks {', '.join(missing)}: {size_text(missing_bytes(manifest, places))} to fetch"
    if needed > free:
        return failed(
            "models", f"{told}, {size_text(needed)} of disk, {size_text(free)} free", f"make room in {places.cache}, or set VIVAVOCE_CACHE"
        )
    return warned("models", told, f"`vivavoce pull {manifest.name}`; else `vivavoce serve` fetches it")


def _room(manifest: Manifest, machine: Machine, device: str, dtype: str) -> Finding:
    try:
        check_room(manifest, machine, device, dtype)
    except BundleError as error:
        found, _, advice = str(error).rpartition(": ")
        return failed("memory", found, advice)
    wanted = [f"about {size_text(cpu_memory(manifest.needs, machine, dtype))} on the CPU"]
    if of_gpu := gpu_memory(manifest.needs, dtype):
        wanted.append(f"{size_text(of_gpu)} of a GPU")
    gpu = f", a GPU with {size_text(machine.gpu_memory)}" if machine.gpu_memory else ""
    return passed("memory", f"{manifest.name} takes {' or '.join(wanted)}; here are {size_text(machine.memory)}{gpu}")


class _LateError(Exception):
    """The time for hashing is over."""


def check_hashes(manifest: Manifest, places: Places, is_over: Callable[[], bool]) -> list[Finding]:
    """Every file of the parts that are here against its hash, until `is_over()`."""

    def go_on(_progress: Progress) -> None:
        if is_over():
            raise _LateError

    here = [part for part in manifest.parts if is_present(part, places)]
    right = 0
    for part in here:
        try:
            wrong = damage(part, places, go_on)
        except _LateError:
            told = f"{right} of {len(here)} parts hashed, all right; then the time was over"
            return [warned("hashes", told, f"`vivavoce pull {manifest.name} --verify` hashes everything")]
        except OSError as error:
            return [failed("hashes", f"{part.name} can't be read: {error.strerror}", "see whether the disk is well, and who may read it")]
        if wrong is not None:
            return [failed("hashes", f"{part.name} is damaged: {wrong}", f"`vivavoce pull {manifest.name} --verify` fetches it again")]
        right += 1
    return [passed("hashes", f"{right} parts hashed, all right")] if here else []
