"""Where models run is chosen once, and what is wrong with the choice is said in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file

from streaming import device
from streaming.device import DeviceError, choose_device, choose_dtype, needed_bytes
from streaming.models.ctranslate2 import WeightsError
from streaming.models.linear import usual_dtype
from streaming.transfer import fetched, sent


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch says on a machine with one GPU of which 10 GB are free."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10_000_000_000, 80_000_000_000))


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_with_room_is_taken() -> None:
    assert [str(choose_device(name, 9_000_000_000)) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:0", "cuda:0", "cuda:0", "cpu"]


@pytest.mark.usefixtures("one_gpu")
def test_one_that_is_too_small_is_refused_with_both_figures(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DeviceError, match=r"cuda:0 has 10\.0 GB free and these models need about 18\.0 GB"):
        choose_device("cuda", 18_000_000_000)
    assert choose_device("auto", 18_000_000_000).type == "cpu"
    assert "the models run on the CPU: cuda:0 has 10.0 GB free" in caplog.text


@pytest.mark.usefixtures("one_gpu")
def test_one_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"cuda:1: there are 1 GPUs, the last is cuda:0"):
        choose_device("cuda:1", 0)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="is built without CUDA"):
        choose_device("cuda", 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no NVIDIA GPU"):
        choose_device("cuda", 0)
    assert choose_device("auto", 0) == choose_device("cpu", 0) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", ""])
def test_a_device_nobody_has(name: str) -> None:
    with pytest.raises(DeviceError, match="there is no device"):
        choose_device(name, 0)


CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(params=[(7, 5), (8, 0), (9, 0)])
def ampere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A GPU of this compute capability; whether it computes in bfloat16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    return request.param >= (8, 0)


def test_a_gpu_computes_in_what_it_has_arithmetic_for(ampere: bool) -> None:
    assert choose_dtype("auto", GPU) is None
    assert usual_dtype(GPU) is usual_dtype("cuda:0") is (torch.bfloat16 if ampere else torch.float16)
    assert [choose_dtype(name, GPU) for name in ("float16", "float32")] == [torch.float16, torch.float32]
    if ampere:
        assert choose_dtype("bfloat16", GPU) is torch.bfloat16
    else:
        with pytest.raises(DeviceError, match=r"cuda:0 \(Tesla T4\) has no arithmetic for bfloat16.* --dtype float16 or auto"):
            choose_dtype("bfloat16", GPU)


def test_a_cpu_computes_in_anything_but_float16(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert [choose_dtype(name, CPU) for name in ("auto", "float32")] == [None, torch.float32]
    with pytest.raises(DeviceError, match=r"float16 is for a GPU.* --dtype bfloat16, float32 or auto"):
        choose_dtype("float16", CPU)
    for has, said in ((True, ""), (False, "this CPU has no arithmetic for bfloat16")):
        monkeypatch.setattr(device, "usual_dtype", lambda _, has=has: torch.bfloat16 if has else torch.float32)
        caplog.clear()
        assert choose_dtype("bfloat16", CPU) is torch.bfloat16
        assert said in caplog.text
        assert bool(said) == bool(caplog.text)


def test_a_dtype_nobody_has() -> None:
    with pytest.raises(DeviceError, match="there is no dtype 'int8': give auto, bfloat16, float16, float32"):
        choose_dtype("int8", CPU)


def test_needed_memory_is_counted_from_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_WORKING_BYTES", 0)
    # Float32 on disk, bfloat16 on the device; what else lies in the folder is not loaded.
    (folder := tmp_path / "published").mkdir()
    save_file({"a": torch.zeros(30, 10), "b": torch.zeros(7)}, folder / "model.safetensors")
    (folder / "old.pt").write_bytes(b"x" * 500)
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("a", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (converted := tmp_path / "converted").mkdir()
    (converted / "model.bin").write_bytes(b"x" * 90)
    assert [needed_bytes([path]) for path in (folder, tmp_path / "model.gguf", converted)] == [614, 256, 90]
    assert needed_bytes([folder, converted]) == 704
    assert [needed_bytes([folder, converted], dtype) for dtype in ("auto", "bfloat16", "float16", "float32")] == [704, 704, 704, 1_408]
    # Ultravox's language model lies within; of Qwen2.5-Omni only what hears and writes is loaded.
    (within := folder / "language_model").mkdir()
    save_file({"c": torch.zeros(50)}, within / "model.safetensors")
    assert needed_bytes([folder]) == 614 + 100
    save_file(
        {"thinker.lm_head.weight": torch.zeros(8), "talker.norm": torch.zeros(90), "thinker.visual.a": torch.zeros(90)},
        folder / "model.safetensors",
    )
    assert needed_bytes([folder]) == 16 + 100


@pytest.mark.parametrize("header", [b"", b"[]", b'{"a": 1}', b'{"a": {}}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"model\.safetensors is no safetensors"):
        needed_bytes([tmp_path])


def test_nothing_is_copied_on_a_cpu() -> None:
    numbers = torch.arange(3)
    assert sent(numbers, torch.device("cpu")) is numbers
    assert fetched(numbers) is numbers
