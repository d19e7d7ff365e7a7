"""Cutting a graph: on one written by hand, byte by byte, and through ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest

from streaming.models.onnx_graph import Graph, Node


@pytest.fixture
def whole(onnx) -> bytes:
    """y = (x * two + one) * three, with |x| on the side."""
    return onnx.model(
        onnx.node("/a/Mul", "Mul", "x two", "doubled"),
        onnx.node("/a/Add", "Add", "doubled one", "latent"),
        onnx.node("/b/Mul", "Mul", "latent three", "y"),
        onnx.node("/a/Abs", "Abs", "x", "size"),
        onnx.weight("one", 1.0),
        onnx.weight("two", 2.0),
        onnx.weight("three", 3.0),
        onnx.value(11, "x"),
        onnx.value(12, "y"),
        onnx.value(13, "doubled"),
    )


def run(serialised: bytes, **inputs: float) -> list[float]:
    session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    return [float(output) for output in session.run(None, {name: np.array(value, np.float32) for name, value in inputs.items()})]


def test_the_graph_is_read(whole: bytes) -> None:
    graph = Graph(whole)
    assert [(node.name, node.kind, node.inputs, node.outputs) for node in graph.nodes][:2] == [
        ("/a/Mul", "Mul", ("x", "two"), ("doubled",)),
        ("/a/Add", "Add", ("doubled", "one"), ("latent",)),
    ]
    assert isinstance(graph.nodes[3], Node)
    assert (graph.weights, graph.outputs) == ({"one", "two", "three"}, ("y",))


def test_two_parts_compute_what_the_whole_does(whole: bytes) -> None:
    graph = Graph(whole)
    front, back = graph.part((), ("latent", "size")), graph.part(("latent",), ("y",))
    assert run(whole, x=-5.0) == [-27.0]
    assert run(front, x=-5.0) == [-9.0, 5.0]
    assert run(back, latent=-9.0) == [-27.0]


def test_a_part_has_only_what_it_needs(whole: bytes) -> None:
    back = Graph(Graph(whole).part(("latent",), ("y",)))
    assert [node.name for node in back.nodes] == ["/b/Mul"]
    assert (back.weights, back.outputs) == ({"three"}, ("y",))
    front = Graph(Graph(whole).part((), ("size",)))
    assert ([node.name for node in front.nodes], front.weights) == (["/a/Abs"], frozenset())


def test_the_rest_of_the_model_is_kept(whole: bytes, onnx) -> None:
    part = Graph(whole).part(("latent",), ("y",))
    assert part.startswith(onnx.HEAD + onnx.TAIL)


def test_a_tensor_that_is_not_there_is_named(whole: bytes) -> None:
    with pytest.raises(ValueError, match="computes no hum"):
        Graph(whole).part((), ("hum",))


@pytest.mark.parametrize("bad", [b"\x0f\x01", b"\xff\xff", b"not a model at all"])
def test_what_is_no_model_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        Graph(bad)


@pytest.mark.parametrize("kept", [60, -1])
def test_part_of_a_model_is_refused(whole: bytes, kept: int) -> None:
    with pytest.raises(ValueError, match="not an ONNX model, or not all of it"):
        Graph(whole[:kept])


def test_a_name_that_is_no_text_is_refused(onnx) -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        Graph(onnx.model(onnx.field(1, onnx.field(3, b"\xff"))))
