"""The part of an ONNX graph that computes some of its tensors from others, without the `onnx` package.

A serialised model is read as protocol buffer fields (https://protobuf.dev/programming-guides/encoding/, onnx.proto3 of
https://github.com/onnx/onnx) and only where it must be: the names of nodes and of what they take and give. `part` writes a model again from
the fields of the first, so that two halves of a graph are two models, each with its own weights and nothing of the other's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Graph", "Node"]

# Field numbers of onnx.proto3.
_MODEL_GRAPH: Final = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND = 1, 2, 3, 4
_TENSOR_NAME: Final = 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_FLOAT_TENSOR: Final = b"\x0a\x02\x08\x01"
"""TypeProto.tensor_type { elem_type: FLOAT }, shape left open."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: its name as exported (PyTorch's module path), its kind ("Conv"), the tensors it takes ("" where an optional one is
    left out) and gives."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: slice


class Graph:
    """A serialised model's graph. Graphs inside nodes (If, Loop) are not looked into."""

    def __init__(self, model: bytes) -> None:
        """Raises ValueError where the bytes are no ONNX model, or not all of one."""
        self._model = model
        # Fields of the model beside its graph: versions, operator sets.
        self._around: list[slice] = []
        # Fields of the graph by their number, each with the name of what it holds, in order; nodes apart.
        self._named: dict[int, list[tuple[str, slice]]] = {_INITIALIZER: [], _INPUT: [], _OUTPUT: [], _VALUE_INFO: []}
        self.nodes: tuple[Node, ...] = ()
        try:
            self._read()
        except (IndexError, UnicodeDecodeError) as error:
            raise ValueError("not an ONNX model, or not all of it") from error

    @property
    def weights(self) -> frozenset[str]:
        """The names of the tensors the model comes with."""
        return frozenset(name for name, _ in self._named[_INITIALIZER])

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the graph gives, in order."""
        return tuple(name for name, _ in self._named[_OUTPUT])

    def part(self, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """The serialised model that computes the tensors `outputs` where `inputs` are given: only the nodes and weights that takes, and
        those of the graph's own inputs that are still needed, after `inputs`. New inputs and outputs are declared as float. Raises
        ValueError for an output that is none of the graph's tensors."""
        by_output = {output: node for node in self.nodes for output in node.outputs}
        if unknown := [name for name in outputs if name not in by_output]:
            raise ValueError(f"the graph computes no {', '.join(unknown)}")
        needed: set[str] = set()
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                if name in by_output and name not in inputs:
                    waiting.extend(by_output[name].inputs)
        nodes = [node for node in self.nodes if not needed.isdisjoint(output for output in node.outputs if output not in inputs)]
        fields = [_field(_NODE, self._model[node.source]) for node in nodes]
        for number in (_INITIALIZER, _VALUE_INFO):
            fields += [_field(number, self._model[at]) for name, at in self._named[number] if name in needed and name not in inputs]
        fields += [_declaration(_INPUT, name) for name in inputs]
        fields += [_field(_INPUT, self._model[at]) for name, at in self._named[_INPUT] if name in needed and name not in inputs]
        fields += [_declaration(_OUTPUT, name) for name in outputs]
        # GraphProto.name, which may not be empty.
        graph = b"".join((_field(2, b"part"), *fields))
        return b"".join((*(self._model[at] for at in self._around), _field(_MODEL_GRAPH, graph)))

    def _read(self) -> None:
        nodes: list[Node] = []
        for number, whole, content in _fields(self._model, slice(0, len(self._model))):
            if number != _MODEL_GRAPH:
                self._around.append(whole)
                continue
            for kind, _, inner in _fields(self._model, content):
                if kind == _NODE:
                    nodes.append(self._node(inner))
                elif kind in self._named:
                    name_field = _TENSOR_NAME if kind == _INITIALIZER else _VALUE_NAME
                    self._named[kind].append(("".join(self._strings(inner, name_field)), inner))
        self.nodes = tuple(nodes)

    def _node(self, at: slice) -> Node:
        name, kind = ("".join(self._strings(at, number)) for number in (_NODE_NAME, _NODE_KIND))
        return Node(name, kind, tuple(self._strings(at, _NODE_INPUT)), tuple(self._strings(at, _NODE_OUTPUT)), at)

    def _strings(self, at: slice, wanted: int) -> list[str]:
        return [self._model[content].decode() for number, _, content in _fields(self._model, at) if number == wanted]


def _declaration(number: int, name: str) -> bytes:
    """A ValueInfoProto of a float tensor."""
    return _field(number, _field(_VALUE_NAME, name.encode()) + _field(_VALUE_TYPE, _FLOAT_TENSOR))


def _fields(data: bytes, within: slice) -> Iterator[tuple[int, slice, slice]]:
    """The fields of the message `data[within]`: number, the whole field, and its content (empty for one that is a number). Raises
    IndexError where the data ends too soon and ValueError for what is no message."""
    at, end = within.start, within.stop
    while at < end:
        begun = at
        key, at = _varint(data, at)
        content = slice(at, at)
        match key & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 2:
                size, at = _varint(data, at)
                content = slice(at, at + size)
                at += size
            case 5:
                at += 4
            case wire:
                raise ValueError(f"not an ONNX model: wire type {wire} at byte {at}")
        if at > end:
            raise IndexError(f"a field of {at - begun} bytes goes over the end")
        yield key >> 3, slice(begun, at), content


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    size, encoded = len(payload), bytearray((number << 3 | 2,))
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + payload
