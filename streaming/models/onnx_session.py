"""Networks in ONNX as sessions of onnxruntime: on the CPU, or on a GPU where the onnxruntime that is installed can (`onnxruntime-gpu`)."""

from typing import Final

import onnxruntime

__all__ = ["offers_cuda", "session_of"]

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"

_GPU_BYTES: Final = 2 << 30
"""What a session may take of a GPU's memory at most: a voice's weights are 0.1 GB, the rest is for its longest piece."""


def offers_cuda() -> bool:
    """Whether the onnxruntime that is installed was built for a GPU. Its libraries may be missing all the same."""
    return _CUDA in onnxruntime.get_available_providers()


def session_of(model: bytes, threads: int, gpu: int | None = None) -> onnxruntime.InferenceSession:
    """A serialised network on the CPU, or on the GPU of that number, where what it has no kernel for stays on the CPU. Raises OSError where
    onnxruntime can't use that GPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads must not burn a core that the language model needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if gpu is None:
        return onnxruntime.InferenceSession(model, options, providers=[_CPU])
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA's libraries from where pip has put them
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model, options, providers=[(_CUDA, _on_gpu(gpu)), _CPU])
    if _CUDA not in session.get_providers():  # it goes on without a word
        raise OSError(f"onnxruntime {onnxruntime.__version__} could not use CUDA on GPU {gpu}: are its CUDA and cuDNN installed?")
    return session


def _on_gpu(gpu: int) -> dict[str, str]:
    """onnxruntime's options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html"""
    return {
        "device_id": str(gpu),
        # No two clauses are equally long, and an exhaustive search would be made anew for each length.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(_GPU_BYTES),
        # The numbers of the CPU, not rounded to 10 bits.
        "use_tf32": "0",
    }
