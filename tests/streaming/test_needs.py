"""What a bundle needs of a machine, before anything is fetched."""

from dataclasses import replace

import pytest

from streaming.manifest import BundleError, Manifest, Needs, load_manifest
from streaming.needs import Machine, check_room, size_text, this_machine

GB = 10**9
LARGE = Needs(memory=18 * GB, gpu_memory=20 * GB)


@pytest.fixture
def large() -> Manifest:
    return replace(load_manifest("pocket"), name="large", needs=LARGE)


@pytest.mark.parametrize(
    ("device", "machine"),
    [
        ("cpu", Machine(18 * GB, 0)),
        ("auto", Machine(18 * GB, 8 * GB)),
        ("auto", Machine(8 * GB, 24 * GB)),
        ("cuda", Machine(8 * GB, 24 * GB)),
        ("cuda:1", Machine(8 * GB, 20 * GB)),
        ("cpu", Machine(36 * GB, 0, bfloat16=False)),
    ],
)
def test_what_fits_is_not_refused(large: Manifest, device: str, machine: Machine) -> None:
    check_room(large, machine, device)


@pytest.mark.parametrize(
    ("device", "machine", "complaint"),
    [
        (
            "cpu",
            Machine(8 * GB, 80 * GB),
            r"the bundle large needs about 18\.0 GB of memory on the CPU \(here: 8\.0 GB\): choose ",
        ),
        ("cpu", Machine(32 * GB, 0, bfloat16=False), r"36\.0 GB of memory on the CPU \(here: 32\.0 GB\)"),
        ("cuda", Machine(64 * GB, 0), r"a GPU with 20\.0 GB \(here: none\): "),
        ("cuda:0", Machine(64 * GB, 16 * GB), r"a GPU with 20\.0 GB \(here: 16\.0 GB\): "),
        ("auto", Machine(8 * GB, 16 * GB), r"a GPU with 20\.0 GB \(here: 16\.0 GB\) or 18\.0 GB of memory on the CPU \(here: 8\.0 GB\)"),
    ],
)
def test_what_can_not_run_is_refused_with_what_there_is(large: Manifest, device: str, machine: Machine, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        check_room(large, machine, device)


def test_a_bundle_that_says_nothing_runs_anywhere_but_on_a_gpu_that_is_not_there() -> None:
    silent = replace(load_manifest("pocket"), needs=Needs())
    check_room(silent, Machine(1, 0), "cpu")
    check_room(silent, Machine(1, 1), "cuda")
    with pytest.raises(BundleError, match=r"a GPU \(here: none\)"):
        check_room(silent, Machine(1, 0), "cuda")


def test_packed_weights_are_no_larger_where_the_cpu_computes_in_float32() -> None:
    edge = load_manifest("edge")
    check_room(edge, Machine(edge.needs.memory, 0, bfloat16=False), "cpu")


def test_float32_takes_twice_as_much(large: Manifest) -> None:
    check_room(large, Machine(36 * GB, 0), "cpu", "float32")
    check_room(large, Machine(8 * GB, 40 * GB), "cuda", "float32")
    check_room(large, Machine(18 * GB, 0, bfloat16=False), "cpu", "bfloat16")
    with pytest.raises(BundleError, match=r"a GPU with 40\.0 GB \(here: 24\.0 GB\) or 36\.0 GB of memory on the CPU \(here: 32\.0 GB\)"):
        check_room(large, Machine(32 * GB, 24 * GB), "auto", "float32")


def test_this_machine_has_memory() -> None:
    machine = this_machine()
    assert 2**28 < machine.memory < 2**50
    assert machine.gpu_memory >= 0


def test_sizes_read_as_disks_are_sold() -> None:
    assert (size_text(297_012_345), size_text(16_800_000_000)) == ("297 MB", "16.8 GB")
