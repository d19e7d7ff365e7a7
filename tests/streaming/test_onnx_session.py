"""Sessions of onnxruntime, with the one that is installed, which is built for the CPU."""

import onnxruntime
import pytest

from streaming.models.onnx_session import offers_cuda, session_of


@pytest.fixture
def network(onnx) -> bytes:
    return onnx.model(
        onnx.node("/Mul", "Mul", "input weight", "output"), onnx.weight("weight", 2.0), onnx.value(11, "input"), onnx.value(12, "output")
    )


def test_a_network_runs_on_the_cpu(network: bytes) -> None:
    session = session_of(network, 1)
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.skipif(offers_cuda(), reason="this onnxruntime is built for a GPU")
def test_a_gpu_that_onnxruntime_can_not_use_is_said(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(OSError, match=r"onnxruntime .* could not use CUDA on GPU 1"),
    ):
        session_of(network, 1, 1)


def test_what_onnxruntime_is_told_of_a_gpu(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Session:
        def __init__(self, *_: object, providers: list[object]) -> None:
            asked.extend(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    session_of(network, 1, 3)
    (name, options), last = asked
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (options["device_id"], options["cudnn_conv_algo_search"], options["use_tf32"]) == ("3", "HEURISTIC", "0")
