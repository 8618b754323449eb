"""An ONNX graph that is being rewritten: its nodes, and the tensors that will be filled in."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values.")
BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.INT8: 1, TensorProto.UINT8: 1}
CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class Tensor:
    """An initializer: its name, type and shape, and a way to get its elements, in pieces."""

    name: str
    type: int
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return int(np.prod(self.shape)) * BYTES[self.type]


class Graph:
    """Nodes in an order in which they can be computed, and the tensors that they need.

    `weights`: names of the inputs that are weights, and the type that each has in the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.tensors: dict[str, Tensor] = {}
        given = list(model.graph.input)
        self.weights = {
            value.name: value.type.tensor_type.elem_type
            for value in given
            if not value.name.startswith(INPUTS)
        }
        del model.graph.input[:]
        model.graph.input.extend(value for value in given if value.name not in self.weights)

    def users(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each value."""
        found: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    def add(self, tensor: Tensor) -> str:
        """Have a tensor in the graph; returns its name, which no other may have."""
        if tensor.name in self.tensors:
            raise ValueError(f"two tensors are called {tensor.name}")
        self.tensors[tensor.name] = tensor
        return tensor.name

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """Have a small constant in the graph; returns its name."""
        if all(known.name != name for known in self.model.graph.initializer):
            array = np.asarray(values, dtype)
            self.model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def replace(self, old: NodeProto, new: list[NodeProto]) -> None:
        """Put `new` in the place of a node."""
        place = self._place(old)
        self.nodes[place : place + 1] = new

    def before(self, node: NodeProto, new: list[NodeProto]) -> None:
        """Put `new` before a node."""
        place = self._place(node)
        self.nodes[place:place] = new

    def drop(self, node: NodeProto) -> None:
        """Take a node out."""
        del self.nodes[self._place(node)]

    def _place(self, node: NodeProto) -> int:
        return next(place for place, known in enumerate(self.nodes) if known is node)

    def finish(self) -> onnx.ModelProto:
        """The model, without the elements of `tensors`."""
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        if any(node.domain == CONTRIB for node in self.nodes):
            self.model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        self.model.producer_name, self.model.producer_version = "optimum", ""
        return self.model


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    for known in node.attribute:
        if known.name == name:
            return helper.get_attribute_value(known)
    return default
