"""The model builder with its weights streamed: four of its methods are replaced.

Left alone it copies every weight several times: the whole graph, in the precision of its inputs,
becomes one protobuf message before anything is quantized. Here the source stays mapped from its
file, each weight is quantized by itself, in slices, by the builder's own code, and what is written
is read piece by piece.
"""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

PIECE = 4_000_000
"""Elements that are converted at once: 16 MB in float32."""
TORCH = {ir.DataType.FLOAT: torch.float32, ir.DataType.FLOAT16: torch.float16}

STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Stack:
    """Projections that the builder joins into one: their rows, one after another, uncopied."""

    def __init__(self, parts: list[torch.Tensor], *, turned: bool = False) -> None:
        self.parts, self._turned = parts, turned

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the joint matrix."""
        rows, columns = sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]
        return (columns, rows) if self._turned else (rows, columns)

    @property
    def T(self) -> "Stack":
        """The matrix, transposed, by torch's name for it."""
        return Stack(self.parts, turned=not self._turned)

    def columns(self, start: int, stop: int) -> torch.Tensor:
        """Columns of the transposed matrix."""
        found = []
        for part in self.parts:
            low, high = max(start, 0), min(stop, part.shape[0])
            if low < high:
                found.append(part[low:high])
            start, stop = start - part.shape[0], stop - part.shape[0]
        return torch.cat(found).T if len(found) > 1 else found[0].T

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows of the transposed matrix."""
        return torch.cat([part[:, start:stop] for part in self.parts]).T


class Streamed(ir.LazyTensor):
    """A matrix that is written in pieces."""

    def __init__(self, matrix: Any, dtype: ir.DataType, name: str) -> None:
        super().__init__(self._whole, dtype=dtype, shape=ir.Shape(matrix.shape), name=name)
        self.matrix = matrix

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Some columns, in the type they are written in."""
        stacked = isinstance(self.matrix, Stack)
        found = self.matrix.columns(start, stop) if stacked else self.matrix[:, start:stop]
        return found.to(TORCH[self.dtype]).contiguous().numpy()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some rows, in the type they are written in."""
        stacked = isinstance(self.matrix, Stack)
        found = self.matrix.rows(start, stop) if stacked else self.matrix[start:stop]
        return found.to(TORCH[self.dtype]).contiguous().numpy()

    def tofile(self, file: Any) -> None:
        """Write the rows, a few at a time."""
        for start, stop in pieces(self.shape[0], self.shape[1]):
            file.write(self.rows(start, stop).data)

    def _whole(self) -> ir.Tensor:
        return ir.Tensor(self.rows(0, self.shape[0]), name=self.name)


def pieces(count: int, length: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover `count` lines of `length`, each of about PIECE elements."""
    step = max(1, PIECE // length)
    for start in range(0, count, step):
        yield start, min(start + step, count)


class Store:
    """Quantized weights in a file of the job's scratch folder, for this variant and the next.

    They depend on the type of the scales and the options, not on the execution provider: cuda, dml
    and webgpu share them.
    """

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(exist_ok=True)
        self._data = folder / f"{key}.data"
        self._index = folder / f"{key}.json"
        self._known: dict[str, Any] = {}
        if self._index.exists():
            self._known = json.loads(self._index.read_text(encoding="utf-8"))

    def get(self, name: str) -> dict[str, Any] | None:
        """What became of the weight `name`, if it is here."""
        return self._known.get(name)

    def put(self, name: str, entry: dict[str, Any], arrays: list[np.ndarray]) -> dict[str, Any]:
        """Keep the arrays that `entry["tensors"]` names."""
        with self._data.open("ab") as file:
            for tensor, array in zip(entry["tensors"], arrays, strict=True):
                tensor["offset"] = file.tell()
                file.write(np.ascontiguousarray(array).data)
                tensor["length"] = file.tell() - tensor["offset"]
        self._known[name] = entry
        return entry

    def close(self) -> None:
        """Let others find what was put: the index is written last, and whole or not at all."""
        growing = self._index.with_suffix(".partial")
        growing.write_text(json.dumps(self._known), encoding="utf-8")
        growing.rename(self._index)

    def tensor(self, kept: dict[str, Any]) -> ir.ExternalTensor:
        """A tensor whose bytes stay in the file until they are written."""
        return ir.ExternalTensor(
            self._data.name,
            kept["offset"],
            kept["length"],
            ir.DataType[kept["dtype"]],
            shape=ir.Shape(kept["shape"]),
            name=kept["name"],
            base_dir=str(self._data.parent),
        )


def install(base: Any, store: Callable[[Any], Store], report: Callable[[float, str], None]) -> None:
    """Replace what copies weights in the builder's class `base`."""
    make_initializer, to_nbits, load_weights = (
        base.make_initializer,
        base.to_nbits,
        base.load_weights,
    )

    def load(self: Any, input_path: str) -> Any:
        report(0.02, "Mapping the weights")
        return _mapped(Path(input_path)) or load_weights(self, input_path)

    def initializer(
        self: Any, tensor: Any, /, name: str, *, to: Any = None, raw: bool = False
    ) -> None:
        matrix = isinstance(tensor, Stack) or (
            isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.is_floating_point()
        )
        if not matrix or to not in TORCH or raw:
            make_initializer(self, tensor, name, to=to, raw=raw)
            return
        lazy = Streamed(tensor, to, name)
        value = self.make_value(name, to, lazy.shape)
        value.const_value = lazy
        self.model.graph.register_initializer(value)

    def packed(_builder: Any, q_matmul: Any, k_matmul: Any, v_matmul: Any, **_: Any) -> Any:
        class Joint:
            weight = Stack([q_matmul.weight.data, k_matmul.weight.data, v_matmul.weight.data])

        return Joint()

    def quantize(self: Any) -> ir.Model:
        kept = store(self)
        gc.freeze()  # what is there by now stays: looking for garbage in it would take its time
        nodes = [node for node in self.model.graph if _quantizable(self, node)]
        for number, node in enumerate(nodes):
            report(0.05 + 0.75 * number / len(nodes), f"Quantizing {number + 1} of {len(nodes)}")
            _replace(self, node, kept, to_nbits)
        kept.close()
        return self.model

    base.load_weights = load
    base.make_initializer = initializer
    base.make_packed_matmul_float_class = packed
    base.to_nbits = quantize


def _mapped(folder: Path) -> Any:
    """The model with its weights mapped from the files; None if their names are not its own."""
    config = AutoConfig.from_pretrained(folder)
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= _read(file)
    tied = config.tie_word_embeddings
    if tied and "model.embed_tokens.weight" in weights:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    names = set(model.state_dict())
    if names - weights.keys():
        return None
    for name in names:
        # The builder adds 1 to the norms of some models before it widens them: BF16 would round.
        if weights[name].dim() == 1:
            weights[name] = weights[name].float()
    model.load_state_dict({name: weights[name] for name in names}, assign=True)
    return model.requires_grad_(False).eval()


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, as views of its pages.

    The library reads them into memory of their own.
    """
    with safe_open(file, "pt"):  # it holds the header against the file's size
        pass
    pages = np.memmap(file, dtype=np.uint8, mode="c")
    begin = 8 + int(pages[:8].view("<u8")[0])
    header = json.loads(bytes(pages[8:begin]))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        dtype = STORED.get(entry["dtype"])
        if dtype is None:
            continue
        start, stop = (begin + offset for offset in entry["data_offsets"])
        part = torch.from_numpy(pages[start:stop])
        if start % dtype.itemsize:
            part = part.clone()
        found[name] = part.view(dtype).reshape(entry["shape"])
    return found


def _quantizable(builder: Any, node: ir.Node) -> bool:
    return (
        node.op_type == "MatMul"
        and isinstance(node.inputs[1].const_value, Streamed)
        and node.name not in builder.quant_attrs["nodes_to_exclude"]
    )


def _replace(builder: Any, node: ir.Node, store: Store, to_nbits: Callable[[Any], Any]) -> None:
    """Put the quantized product into the place of `node`."""
    value = node.inputs[1]
    weight = value.const_value
    entry = store.get(weight.name)
    if entry is None:
        entry = _quantized(builder, node, weight, store, to_nbits)
    graph = builder.model.graph
    inputs = []
    for kept in entry["tensors"]:
        tensor = store.tensor(kept)
        # A tied embedding may refer to the value already.
        other = builder.make_value(kept["name"], tensor.dtype, tensor.shape)
        other.const_value = tensor
        graph.register_initializer(other)
        inputs.append(other)
    node.op_type, node.domain = entry["op_type"], "com.microsoft"
    node.name = entry["name"]
    node.resize_inputs(1 + len(inputs))
    for place, other in enumerate(inputs):
        node.replace_input_with(1 + place, other)
    for key, number in entry["attributes"].items():
        node.attributes.add(ir.AttrInt64(key, number))
    if level := builder.quant_attrs["accuracy_level"]:
        node.attributes.add(ir.AttrInt64("accuracy_level", level))
    if not value.uses():
        del graph.initializers[weight.name]
    builder.model.opset_imports.setdefault("com.microsoft", 1)


def _quantized(
    builder: Any, node: ir.Node, weight: Streamed, store: Store, to_nbits: Callable[[Any], Any]
) -> dict[str, Any]:
    """Quantize one weight, some columns at a time: no block reaches over two columns."""
    whole = builder.model
    length, count = weight.shape
    parts: list[list[np.ndarray]] = []
    try:
        for start, stop in pieces(count, length):
            builder.model = _alone(node.name, weight.name, weight.columns(start, stop), whole)
            quantized = to_nbits(builder)
            made = next(one for one in quantized.graph if one.op_type == "MatMulNBits")
            tensors = [value.const_value for value in made.inputs[1:]]
            # As copies: what they come from is one message with the piece's graph.
            parts.append([tensor.numpy().copy() for tensor in tensors])
            attributes = {key: each.as_int() for key, each in made.attributes.items()}
            described = made.op_type, made.name, [(each.name, each.dtype.name) for each in tensors]
            # Graphs hold themselves in cycles, and the piece with them.
            del quantized, made, tensors
            builder.model = whole
            gc.collect()
    finally:
        builder.model = whole
    arrays = [np.concatenate(part) for part in zip(*parts, strict=True)]
    op_type, name, named = described
    attributes.pop("accuracy_level", None)
    entry = {
        "op_type": op_type,
        "name": name,
        "attributes": attributes | {"N": count},
        "tensors": [
            {"name": tensor, "dtype": dtype, "shape": list(array.shape)}
            for (tensor, dtype), array in zip(named, arrays, strict=True)
        ],
    }
    return store.put(weight.name, entry, arrays)


def _alone(name: str, weight: str, columns: np.ndarray, whole: ir.Model) -> ir.Model:
    """A model of one product, as the quantizer takes it."""
    kind = ir.DataType.from_numpy(columns.dtype)
    left = ir.Value(name="left", type=ir.TensorType(kind), shape=ir.Shape(["n", columns.shape[0]]))
    right = ir.Value(
        name=weight,
        type=ir.TensorType(kind),
        shape=ir.Shape(columns.shape),
        const_value=ir.Tensor(columns, name=weight),
    )
    product = ir.Node("", "MatMul", [left, right], name=name)
    out = product.outputs[0]
    out.name, out.type = "product", ir.TensorType(kind)
    out.shape = ir.Shape(["n", columns.shape[1]])
    graph = ir.Graph(
        [left], [out], nodes=[product], initializers=[right], opset_imports=whole.opset_imports
    )
    return ir.Model(graph, ir_version=whole.ir_version)
