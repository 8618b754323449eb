"""A graph in half precision, with float32 where half has not the range or the digits."""

import re

import numpy as np
import onnx
from graph import Graph
from onnx import NodeProto, TensorProto, helper, numpy_helper

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = 65504.0
# Squares and means of norms do not fit into half, nor does what cosines and sines are scaled with.
ALWAYS = r"norm|rotary"
# What Gemma adds up over its layers exceeds 65504, and so do BitNet's squared activations.
BY_MODEL = {
    "gemma": r"^/model/(layers\.\d+/|embed_tokens/)?(Add|Mul)[^/]*$",
    "bitnet": r"/mlp/(?!.*proj)",
}


def keep(model_type: str) -> re.Pattern[str]:
    """What the names of nodes look like that stay in float32."""
    special = [names for start, names in BY_MODEL.items() if model_type.startswith(start)]
    return re.compile("|".join([ALWAYS, *special]))


def angles(graph: Graph, types: dict[str, int]) -> list[NodeProto]:
    """Every node on the way to a cosine or a sine, both included.

    Half precision has 11 bits: at position 640 it is off by a quarter of a radian, and beyond 2048
    neighbours fall together. Names do not find these nodes: onnxruntime puts in a Transpose of its
    own, and the choice of LongRoPE's frequencies stands outside of the module that rotates.
    """
    makers = {name: node for node in graph.nodes for name in node.output}
    found: dict[int, NodeProto] = {}
    left = [node for node in graph.nodes if node.op_type in ("Cos", "Sin")]
    while left:
        node = left.pop()
        if id(node) not in found:
            found[id(node)] = node
            floats = (name for name in node.input if types.get(name) == FLOAT)
            left += [makers[name] for name in floats if name in makers]
    return list(found.values())


def to_half(graph: Graph, model_type: str) -> None:
    """Turn everything to float16 but `angles` and what `keep` names, with casts in between.

    The cache's inputs and outputs become float16; logits stay float32, as every program takes them.
    """
    kept = keep(model_type)
    model = graph.model
    types = _types(graph)
    constants = {known.name: known for known in model.graph.initializer}
    for value in [*model.graph.input, *model.graph.output]:
        if types.get(value.name) == FLOAT and value.name != "logits":
            value.type.tensor_type.elem_type = FLOAT16

    # What type each float value has from now on: what its producer computes in.
    now: dict[str, int] = {value.name: FLOAT16 for value in model.graph.input}
    full = {id(node) for node in graph.nodes if kept.search(node.name)}
    full |= {id(node) for node in angles(graph, types)}
    users = graph.users()
    for name in graph.weights:
        every = all(id(node) in full for node in users[name])
        now[name] = graph.weights[name] = FLOAT if every else FLOAT16
    made: list[NodeProto] = []
    casts: dict[tuple[str, int], str] = {}
    outputs = {value.name for value in model.graph.output}
    for node in graph.nodes:
        wanted = FLOAT if id(node) in full else FLOAT16
        for place, name in enumerate(node.input):
            if types.get(name) != FLOAT:
                continue
            if name in constants:
                node.input[place] = _constant(graph, constants[name], wanted)
            elif now[name] != wanted:
                if (name, wanted) not in casts:
                    cast = f"{name}/{'half' if wanted == FLOAT16 else 'full'}"
                    made.append(helper.make_node("Cast", [name], [cast], cast, to=wanted))
                    casts[name, wanted] = cast
                node.input[place] = casts[name, wanted]
        for known in node.attribute:
            if node.op_type == "Cast" and known.name == "to" and known.i == FLOAT:
                known.i = wanted
            if known.HasField("t") and known.t.data_type == FLOAT and wanted == FLOAT16:
                known.t.CopyFrom(_half(known.t))
        made.append(node)
        for place, name in enumerate(node.output):
            if types.get(name) != FLOAT:
                continue
            now[name] = wanted
            asked = FLOAT if name == "logits" else FLOAT16
            if name in outputs and asked != wanted:
                now[f"{name}/computed"] = wanted
                types[f"{name}/computed"] = FLOAT
                node.output[place] = f"{name}/computed"
                made.append(helper.make_node("Cast", [f"{name}/computed"], [name], name, to=asked))
                now[name] = asked
    graph.nodes = made
    _drop_unused(graph)


def _types(graph: Graph) -> dict[str, int]:
    """The type of every value, as onnx infers it."""
    whole = onnx.ModelProto()
    whole.CopyFrom(graph.model)
    for name, kind in graph.weights.items():
        whole.graph.input.append(helper.make_tensor_value_info(name, kind, None))
    seen = onnx.shape_inference.infer_shapes(whole, strict_mode=True).graph
    types = {known.name: known.data_type for known in seen.initializer}
    for value in [*seen.input, *seen.value_info, *seen.output]:
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _half(tensor: TensorProto) -> TensorProto:
    """The same numbers in half precision; those beyond its range become its largest."""
    numbers = numpy_helper.to_array(tensor)
    cut = np.where(np.isinf(numbers), numbers, np.clip(numbers, -LARGEST, LARGEST))
    return numpy_helper.from_array(cut.astype(np.float16), tensor.name)


def _constant(graph: Graph, tensor: TensorProto, wanted: int) -> str:
    """The name of a constant in the type that is wanted."""
    if wanted == FLOAT:
        return tensor.name
    name = f"{tensor.name}/half"
    if all(known.name != name for known in graph.model.graph.initializer):
        cut = _half(tensor)
        cut.name = name
        graph.model.graph.initializer.append(cut)
    return name


def _drop_unused(graph: Graph) -> None:
    """Take out constants that nobody reads any more."""
    used = {name for node in graph.nodes for name in node.input}
    constants = [known for known in graph.model.graph.initializer if known.name in used]
    del graph.model.graph.initializer[:]
    graph.model.graph.initializer.extend(constants)
