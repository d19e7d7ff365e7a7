"""What is said of processors, and of bundles that are there, missing, damaged or too large."""

import hashlib
from itertools import count
from pathlib import Path

import pytest

from server.doctor.finding import Outcome
from server.doctor.machine import check_cpu, check_hashes, check_models, check_opus, cpu_flags
from streaming.bundle import Places
from streaming.manifest import Manifest, load_manifest
from streaming.needs import Machine

FILES = {"model.gguf": b"weights", "turn.onnx": b"more weights"}
PARTS = """
name = "own"
description = "Weights of mine"
languages = ["en"]
needs = { memory = 1000 }

[parts.mine]
description = "All in one"
version = "1"
licence = "mine"
roles = ["transcript", "language_model", "voice", "end_of_turn"]
sources = [{ kind = "folder", path = "weights", files = [FILES] }]
"""
HERE = Machine(memory=2_000, gpu_memory=0)


@pytest.fixture
def own(tmp_path: Path) -> Manifest:
    (tmp_path / "weights").mkdir()
    for name, content in FILES.items():
        (tmp_path / "weights" / name).write_bytes(content)
    files = ", ".join(
        f'{{ name = "{name}", size = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}" }}' for name, content in FILES.items()
    )
    (tmp_path / "own.toml").write_text(PARTS.replace("FILES", files))
    return load_manifest(str(tmp_path / "own.toml"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "cache")


def outcomes(manifest: Manifest, places: Places, machine: Machine = HERE) -> list[Outcome]:
    return [finding.outcome for finding in check_models(manifest, places, machine, "cpu", "auto")]


def test_processors() -> None:
    (cpu, numbers) = check_cpu({"avx2", "avx512f", "amx_bf16"}, 8, "bfloat16")
    assert (cpu.outcome, cpu.found) == (Outcome.PASS, "8 cores, AVX2, AVX-512, AMX")
    assert "half the memory" in numbers.found
    assert check_cpu({"sse2"}, 8, "float32")[0].outcome is Outcome.WARN
    assert check_cpu({"avx2"}, 1, "float32")[0].outcome is Outcome.WARN
    assert "twice its memory" in check_cpu({"avx2"}, 4, "float32")[1].found
    assert check_cpu({"fphp", "asimd"}, 4, "bfloat16")[0].outcome is Outcome.PASS
    assert check_cpu(None, 4, "float32")[0].found == "4 cores"
    assert cpu_flags() is None or cpu_flags()


def test_the_codec_of_webrtc() -> None:
    assert check_opus(None)[0].outcome is Outcome.PASS
    (missing,) = check_opus("there is no libopus")
    assert (missing.outcome, missing.found) == (Outcome.FAIL, "there is no libopus")


def test_a_bundle_that_is_there(own, places) -> None:
    assert outcomes(own, places) == [Outcome.PASS, Outcome.PASS]
    (hashed,) = check_hashes(own, places, lambda: False)
    assert (hashed.outcome, hashed.found) == (Outcome.PASS, "1 parts hashed, all right")


def test_one_that_is_missing_can_be_fetched(places) -> None:
    (fetched, _) = check_models(load_manifest("pocket"), places, Machine(1 << 40, 0), "cpu", "auto")
    assert fetched.outcome is Outcome.WARN
    assert "vivavoce pull pocket" in fetched.advice


def test_one_for_which_there_is_no_disk(places, monkeypatch) -> None:
    monkeypatch.setattr("server.doctor.machine.free_space", lambda _: 1_000)
    (fetched, _) = check_models(load_manifest("pocket"), places, Machine(1 << 40, 0), "cpu", "auto")
    assert fetched.outcome is Outcome.FAIL
    assert "VIVAVOCE_CACHE" in fetched.advice


def test_one_that_needs_more_memory_than_there_is(own, places) -> None:
    (_, memory) = check_models(own, places, Machine(memory=500, gpu_memory=0), "cpu", "auto")
    assert memory.outcome is Outcome.FAIL
    assert "choose a smaller one" in memory.advice


def test_a_damaged_file_is_found(own, places, tmp_path) -> None:
    (tmp_path / "weights" / "turn.onnx").write_bytes(b"mere weights")
    (hashed,) = check_hashes(own, places, lambda: False)
    assert hashed.outcome is Outcome.FAIL
    assert "turn.onnx" in hashed.found
    assert not places.cache.exists()  # it only looks


def test_hashing_ends_when_its_time_is_over(own, places) -> None:
    looks = count()
    (hashed,) = check_hashes(own, places, lambda: next(looks) > 0)
    assert (hashed.outcome, hashed.found) == (Outcome.WARN, "0 of 1 parts hashed, all right; then the time was over")
