"""What becomes of each weight in each variant: the nodes that use it, and how it is stored."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from graph import CONTRIB, Graph, Tensor, attribute
from half import to_half
from layout import HALF
from onnx import NodeProto, TensorProto, helper
from quantize import BLOCK, Blocks, Rows, spans
from weights import Weights

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


@dataclass
class Uses:
    """The nodes that use a matrix: tables of tokens, products, and anything else.

    A product comes with the Transpose before it, or None where the graph takes the matrix turned.
    The checkpoint has a row for each output in either case.
    """

    lookups: list[NodeProto] = field(default_factory=list)
    products: list[tuple[NodeProto, NodeProto | None]] = field(default_factory=list)
    other: bool = False


def assemble(
    skeleton: onnx.ModelProto, weights: Weights, variant: str, settings: dict, embedding_bits: int
) -> Graph:
    """The graph of a variant with all its tensors, from the graph whose weights are inputs.

    `settings` is the source's config.json; `embedding_bits` is 4, 8, or 16 for a float.
    """
    graph = Graph(skeleton)
    if variant in HALF:
        to_half(graph, settings["model_type"])
    rewriter = _Rewriter(graph, weights, variant, settings.get("vocab_size", 0), embedding_bits)
    users = graph.users()
    for name in graph.weights:
        rewriter.place(name, _uses(name, users))
    return graph


def _uses(name: str, users: dict[str, list[NodeProto]]) -> Uses:
    found = Uses()
    for node in users[name]:
        if node.op_type == "Gather" and list(node.input) == [name, "input_ids"]:
            found.lookups.append(node)
        elif node.op_type == "MatMul" and node.input[1] == name:
            found.products.append((node, None))
        elif node.op_type == "Transpose" and attribute(node, "perm", None) == [1, 0]:
            for product in users[node.output[0]]:
                if product.op_type == "MatMul" and product.input[1] == node.output[0]:
                    found.products.append((product, node))
                else:
                    found.other = True
        else:
            found.other = True
    return found


class _Rewriter:
    def __init__(
        self, graph: Graph, weights: Weights, variant: str, vocabulary: int, embedding_bits: int
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._variant = variant
        self._vocabulary = vocabulary
        self._embedding_bits = embedding_bits
        self._quantized_inputs: dict[str, tuple[str, str, str]] = {}

    def place(self, name: str, uses: Uses) -> None:
        """Store one weight and rewrite the nodes that use it."""
        shape = self._weights.shape(name)
        matrix = len(shape) == 2 and not uses.other and (uses.lookups or uses.products)
        if not matrix:
            self._plain(name)
        elif self._variant in ("int8", "uint8"):
            self._integers(name, uses)
        elif (bits := self._bits(shape, uses)) < 16:
            self._blocks(name, uses, bits)
        elif uses.lookups and uses.products:
            self._shared(name, uses)
        elif uses.lookups:
            self._plain(name)
        else:
            self._turned(name, uses)

    def _bits(self, shape: tuple[int, ...], uses: Uses) -> int:
        """How many bits a matrix gets; 16 is for any float."""
        if self._variant not in ("q4", "q4f16"):
            return 16
        if shape[0] != self._vocabulary:
            return 4
        bits = self._embedding_bits
        if uses.lookups and shape[1] % BLOCK:
            return 16  # GatherBlockQuantized and MatMulNBits would pad rows differently
        return 4 if bits == 16 and not uses.lookups else bits

    def _plain(self, name: str) -> None:
        """As it is stored, in the float type of the graph."""
        kind = self._graph.weights[name]
        make = partial(_plain, self._weights, name, kind)
        self._graph.add(Tensor(name, kind, self._weights.shape(name), make))

    def _turned(self, name: str, uses: Uses) -> None:
        """A float matrix, stored the way MatMul takes it."""
        kind = self._graph.weights[name]
        rows, columns = self._weights.shape(name)
        make = partial(_turned, self._weights, name, kind)
        self._graph.add(Tensor(name, kind, (columns, rows), make))
        for product, _ in uses.products:
            product.input[1] = name
        self._drop_turns(uses)

    def _shared(self, name: str, uses: Uses) -> None:
        """A float matrix that is both table and head, stored once.

        Gemm multiplies with it as it lies. A Transpose would do too, but runtimes compute that
        when they load, and then hold the largest tensor of the model twice.
        """
        self._plain(name)
        rows, columns = self._weights.shape(name)
        for product, _ in uses.products:
            at, result = product.name, product.output[0]
            flat = self._graph.constant(f"{at}/flat_shape", [-1, columns], np.int64)
            width = self._graph.constant(f"{at}/width", [rows], np.int64)
            made = [
                helper.make_node(
                    "Shape", [product.input[0]], [f"{at}/shape"], f"{at}/shape", end=2
                ),
                helper.make_node(
                    "Concat", [f"{at}/shape", width], [f"{at}/whole"], f"{at}/whole", axis=0
                ),
                helper.make_node("Reshape", [product.input[0], flat], [f"{at}/flat"], f"{at}/flat"),
                helper.make_node("Gemm", [f"{at}/flat", name], [f"{at}/product"], at, transB=1),
                helper.make_node(
                    "Reshape", [f"{at}/product", f"{at}/whole"], [result], f"{at}/result"
                ),
            ]
            self._graph.replace(product, made)
        self._drop_turns(uses)

    def _blocks(self, name: str, uses: Uses, bits: int) -> None:
        """Blocks of 32 weights, for MatMulNBits and GatherBlockQuantized of onnxruntime."""
        kind = self._graph.weights[name]
        made = Blocks(self._weights, name, bits, kind == TensorProto.FLOAT16)
        shape = (made.rows, made.blocks, made.bytes)
        table = bool(uses.lookups)
        stored = (made.rows, made.blocks * made.bytes) if table else shape
        codes = self._graph.add(Tensor(f"{name}_Q{bits}", TensorProto.UINT8, stored, made.codes))
        scales = (made.rows, made.blocks)
        scale = self._graph.add(Tensor(f"{name}_scales", kind, scales, made.scales))
        for lookup in uses.lookups:
            new = helper.make_node(
                "GatherBlockQuantized",
                [codes, "input_ids", scale],
                lookup.output,
                lookup.name,
                domain=CONTRIB,
                bits=bits,
                block_size=BLOCK,
                gather_axis=0,
                quantize_axis=1,
            )
            self._graph.replace(lookup, [new])
        for product, _ in uses.products:
            matrix, nodes = codes, []
            if table:
                matrix = f"{name}_Q{bits}/blocks"
                form = self._graph.constant(f"{name}/blocks_shape", shape, np.int64)
                nodes.append(helper.make_node("Reshape", [codes, form], [matrix], matrix))
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    [product.input[0], matrix, scale],
                    product.output,
                    product.name,
                    domain=CONTRIB,
                    K=made.columns,
                    N=made.rows,
                    bits=bits,
                    block_size=BLOCK,
                )
            )
            self._graph.replace(product, nodes)
        self._drop_turns(uses)

    def _integers(self, name: str, uses: Uses) -> None:
        """8-bit integers, for DequantizeLinear's formula and MatMulInteger."""
        signed = self._variant == "int8"
        kind = TensorProto.INT8 if signed else TensorProto.UINT8
        made = Rows(self._weights, name, signed)
        add = self._graph.add
        shape = (made.columns, made.rows)
        codes = add(Tensor(f"{name}_quantized", kind, shape, made.codes))
        # Not `_scale`, as onnxruntime's quantizer names it: BitNet has a weight of that name.
        scale = add(Tensor(f"{name}_scales", TensorProto.FLOAT, (made.rows,), made.scales))
        zero = add(Tensor(f"{name}_zero_point", kind, (made.rows,), made.zeros))
        if uses.lookups:
            self._graph.constant("/last_axis", [-1], np.int64)
        for lookup in uses.lookups:
            self._graph.replace(lookup, _dequantized_rows(lookup, codes, scale, zero, signed))
        for product, _ in uses.products:
            self._graph.replace(product, self._integer_product(product, codes, scale, zero))
        self._drop_turns(uses)

    def _integer_product(
        self, product: NodeProto, matrix: str, scale: str, zero: str
    ) -> list[NodeProto]:
        """What onnxruntime's quantize_dynamic puts in a MatMul's place."""
        at, given = product.name, product.input[0]
        nodes = []
        if given not in self._quantized_inputs:
            names = (f"{given}_quantized", f"{given}_scale", f"{given}_zero_point")
            self._quantized_inputs[given] = names
            nodes.append(
                helper.make_node("DynamicQuantizeLinear", [given], names, f"{given}_quantize")
            )
        codes, given_scale, given_zero = self._quantized_inputs[given]
        integers, both, floats = f"{at}_integers", f"{at}_scales", f"{at}_cast"
        inputs = [codes, matrix, given_zero, zero]
        return [
            *nodes,
            helper.make_node("MatMulInteger", inputs, [integers], f"{at}_quant"),
            helper.make_node("Cast", [integers], [floats], floats, to=TensorProto.FLOAT),
            helper.make_node("Mul", [given_scale, scale], [both], both),
            helper.make_node("Mul", [floats, both], product.output, f"{at}_scaled"),
        ]

    def _drop_turns(self, uses: Uses) -> None:
        for turn in {id(turn): turn for _, turn in uses.products if turn is not None}.values():
            self._graph.drop(turn)


def _dequantized_rows(
    lookup: NodeProto, codes: str, scale: str, zero: str, signed: bool
) -> list[NodeProto]:
    """Rows of a table of integers, as floats.

    The table lies as MatMulInteger takes it, a column for each token, because it may be the head
    as well. Turning it would have runtimes hold it twice; turning what was looked up costs nothing.
    """
    at = lookup.name

    def node(kind: str, inputs: list[str], end: str, **rest: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [f"{at}/{end}"], f"{at}/{end}", **rest)

    ids = lookup.input[1]
    nodes = [
        node("Unsqueeze", [ids, "/last_axis"], "columns"),
        node("Gather", [codes, ids], "columns_of_codes", axis=1),
        node("Transpose", [f"{at}/columns_of_codes"], "codes", perm=[1, 2, 0]),
        node("Cast", [f"{at}/codes"], "numbers", to=TensorProto.FLOAT),
        node("Gather", [scale, f"{at}/columns"], "scale"),
    ]
    numbers = f"{at}/numbers"
    if not signed:
        nodes += [
            node("Gather", [zero, f"{at}/columns"], "zero"),
            node("Cast", [f"{at}/zero"], "zero_number", to=TensorProto.FLOAT),
            node("Sub", [numbers, f"{at}/zero_number"], "moved"),
        ]
        numbers = f"{at}/moved"
    nodes.append(helper.make_node("Mul", [numbers, f"{at}/scale"], lookup.output, at))
    return nodes


def _plain(weights: Weights, name: str, kind: int) -> Iterator[np.ndarray]:
    for piece in weights.floats(name):
        yield piece.astype(FLOATS[kind], copy=False)


def _turned(weights: Weights, name: str, kind: int) -> Iterator[np.ndarray]:
    rows, columns = weights.shape(name)
    for first, last in spans(columns, rows):
        piece = weights.columns(name, first, last).astype(FLOATS[kind], copy=False)
        yield np.ascontiguousarray(piece.T)
