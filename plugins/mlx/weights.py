"""From a folder of Hugging Face weights to mlx-lm's files, with one tensor in memory at a time.

mlx-lm loads lazily, decides what is quantized and how (quantize_model), and would then compute a
file of up to 5 GiB at once before it writes. Here the same arrays are computed and written in
blocks of rows: memory is that of the largest tensor, and several cores work.
"""

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import layout
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import source as models
import ternary
from mlx.utils import tree_flatten, tree_map, tree_map_with_path, tree_unflatten
from mlx_lm.convert import MODEL_CONVERSION_DTYPES, mixed_quant_predicate_builder
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from mlx_lm.utils import (
    _get_classes,
    get_total_parameters,
    load_model,
    quantize_model,
    save_config,
)
from recipes import Recipe, default

# Weights that one core quantizes at a time; what is not affine takes MLX some 70 bytes a weight.
CAST = 1 << 22  # numbers whose type one core changes at a time
BLOCK = {"affine": 1 << 21, "mxfp4": 1 << 18, "mxfp8": 1 << 18, "nvfp4": 1 << 18}
STREAMS = 4  # at most: each holds a block
NAMES = {mx.bool_: "BOOL", mx.uint8: "U8", mx.int8: "I8", mx.uint16: "U16", mx.int16: "I16"}
NAMES |= {mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.int32: "I32"}
NAMES |= {mx.float32: "F32", mx.uint64: "U64", mx.int64: "I64"}
WORDS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}


@dataclass
class Packing:
    """A layer whose weight is quantized in blocks of rows: its own weight and how it is packed."""

    weight: mx.array
    dtype: mx.Dtype
    group_size: int
    bits: int
    mode: str


@dataclass
class Plan:
    """What is to be written: arrays by name, in order, their types, and which are packed how."""

    arrays: dict[str, mx.array]
    types: dict[str, mx.Dtype]
    packings: dict[str, Packing]
    config: dict[str, Any]
    parameters: int
    keep_vision: bool
    skipped: int


def plan(source: Path, recipe: Recipe, group_size: int, longrope: str, names: set[str]) -> Plan:
    """Load lazily and decide everything; nothing is computed yet."""
    original = json.loads((source / "config.json").read_text(encoding="utf-8"))
    changes = models.translate(original, names, longrope)
    method = (original.get("quantization_config") or {}).get("quant_method")
    unpacked: dict[str, tuple[mx.array, mx.array]] = {}
    if method == "bitnet":
        changes["quantization_config"] = None  # what loads is BitLinear, or unpacked below

    def classes(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
        model_class, arguments = _get_classes(config)
        return _prepared(model_class, original, changes, unpacked), arguments

    model, config = load_model(source, lazy=True, model_config=changes, get_model_classes=classes)
    config = {key: value for key, value in config.items() if value is not None or key in original}
    config.pop("quantization_config", None)

    raw = dict(tree_flatten(model.parameters()))
    _cast(model, recipe.dtype or config.get("torch_dtype") or _inner_dtype(config))
    if recipe.dtype:
        config |= {key: recipe.dtype for key in ("torch_dtype", "dtype") if key in config}
        _keep_bitnet(config, original)
        return _planned(model, config, raw, {}, 0)

    exact = {} if recipe.bits is None else _pack_exactly(model, unpacked, config)
    usual = default(recipe, group_size)
    predicate = None
    if recipe.high_bits is not None:
        predicate = _mixture(recipe, model, group_size)
    layers = [
        (path, layer, layer.weight.dtype)
        for path, layer in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
        if hasattr(layer, "to_quantized")
    ]
    skipped = sum(layer.weight.shape[-1] % usual.group_size != 0 for _, layer, _ in layers)
    settings = config.get("quantization")
    config.pop("quantization", None)
    model, config = quantize_model(
        model, config, usual.group_size, usual.bits, mode=usual.mode, quant_predicate=predicate
    )
    if settings:
        config["quantization"] |= settings
        config["quantization_config"] = config["quantization"]
    packed_kinds = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)
    now = dict(tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module))
    packings = {}
    for path, _, dtype in layers:
        layer = now[path]
        if isinstance(layer, packed_kinds) and path not in exact:
            weight = raw[f"{path}.weight"]
            packings[path] = Packing(weight, dtype, layer.group_size, layer.bits, layer.mode)
    return _planned(model, config, raw, packings, skipped)


def write(plan: Plan, output: Path, threads: int, report: Callable[[float], None]) -> None:
    """Compute and write all files of weights, the index and config.json. Empties `plan`."""
    streams = [mx.new_stream(mx.cpu) for _ in range(max(1, min(threads, STREAMS)))]
    tensors = [
        layout.Tensor(name, NAMES[plan.types[name]], tuple(array.shape))
        for name, array in plan.arrays.items()
    ]
    files = layout.shards(tensors)
    total = sum(tensor.size for tensor in tensors) or 1
    done = 0
    for name, part in files.items():
        head, places = layout.header(part)
        with (output / name).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + sum(tensor.size for tensor in part))
            for tensor in part:
                if tensor.name not in plan.arrays:
                    continue  # written with the weight that it belongs to
                path, _, kind = tensor.name.rpartition(".")
                # A file may end between a layer's weight and its scales: then as mlx-lm has them.
                parts = [f"{path}.{one}" for one in ("weight", "scales", "biases")]
                parts = [one for one in parts if one in plan.arrays]
                packing = plan.packings.pop(path, None) if kind == "weight" else None
                if packing is not None and all(one in places for one in parts):
                    for one in parts:
                        del plan.arrays[one]
                    spots = [places[one] for one in parts]
                    for share in _pack(file, packing, spots, streams):
                        report((done + share * tensor.size) / total)
                else:
                    dtype = plan.types[tensor.name]
                    _copy(file, plan.arrays.pop(tensor.name), dtype, places[tensor.name], streams)
                done += tensor.size
                report(done / total)
    (output / "model.safetensors.index.json").write_bytes(layout.index(files, plan.parameters))
    save_config(plan.config, output / "config.json", keep_vision_config=plan.keep_vision)


def _pack(
    file: BinaryIO, packing: Packing, places: list[int], streams: list[mx.Stream]
) -> Iterator[float]:
    """Quantize a weight in blocks of rows, one a core, each written to its place at once."""
    weight = packing.weight.reshape(-1, packing.weight.shape[-1])
    packing.weight = weight
    mx.eval(weight)
    rows, columns = weight.shape
    step = max(1, BLOCK[packing.mode] // columns)
    written = [0] * len(places)
    for begin in range(0, rows, step * len(streams)):
        made = []
        for number, stream in enumerate(streams):
            first = begin + number * step
            if first < rows:
                with mx.stream(stream):
                    block = weight[first : first + step].astype(packing.dtype)
                    settings = {"group_size": packing.group_size, "bits": packing.bits}
                    made.append(mx.quantize(block, **settings, mode=packing.mode, stream=stream))
        mx.async_eval(made)
        for block in made:
            for number, array in enumerate(block):
                file.seek(places[number] + written[number])
                written[number] += file.write(_bytes(array))
        yield min(1.0, (begin + step * len(streams)) / rows)


def _copy(
    file: BinaryIO, array: mx.array, dtype: mx.Dtype, place: int, streams: list[mx.Stream]
) -> None:
    """Write an array in another type, in blocks, one a core. Raises Refused if FP16 overflows."""
    file.seek(place)
    if array.dtype == dtype:
        file.write(_bytes(mx.contiguous(array)))
        return
    flat = array.reshape(-1)
    del array
    mx.eval(flat)
    for begin in range(0, flat.size, CAST * len(streams)):
        blocks = []
        for first in range(begin, min(begin + CAST * len(streams), flat.size), CAST):
            with mx.stream(streams[len(blocks)]):
                blocks.append(flat[first : first + CAST].astype(dtype))
        mx.async_eval(blocks)
        for block in blocks:
            content = _bytes(block)
            if dtype == mx.float16 and _overflows(content):
                raise models.Refused(
                    "out_of_range",
                    "The model has values beyond what FP16 holds (65504).",
                    "Take bf16, which has the range.",
                )
            file.write(content)


def _overflows(content: memoryview) -> bool:
    """Whether FP16 numbers have an infinite one among them; NumPy is quicker at it than MLX."""
    words = np.frombuffer(content, dtype=np.uint16)
    return bool(((words & 0x7FFF) == 0x7C00).any())


def _bytes(array: mx.array) -> memoryview:
    """The bytes of an array that lies in one piece; NumPy has no word for BF16."""
    flat = array.reshape(-1).view(WORDS[array.itemsize])
    mx.eval(flat)
    return memoryview(flat).cast("B")


def _prepared(
    model_class: type[nn.Module],
    original: dict[str, Any],
    changes: dict[str, Any],
    unpacked: dict[str, tuple[mx.array, mx.array]],
) -> type[nn.Module]:
    """mlx-lm's class of the model, with the stored weights put right before it sees them."""
    tied = (original | changes).get("tie_word_embeddings")
    settings = original.get("quantization_config") or {}

    class Prepared(model_class):  # type: ignore[misc, valid-type]
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            if tied and "text_config" not in original:
                weights = {key: one for key, one in weights.items() if key != "lm_head.weight"}
            if settings.get("quant_method") == "bitnet":
                weights = _unpack(weights, settings, original["model_type"], unpacked)
            theirs = getattr(super(), "sanitize", None)
            return theirs(weights) if theirs else weights

    return Prepared


def _unpack(
    weights: dict[str, mx.array],
    settings: dict[str, Any],
    model_type: str,
    unpacked: dict[str, tuple[mx.array, mx.array]],
) -> dict[str, mx.array]:
    """Scales that multiply, for all; and for models other than mlx-lm's BitNet, plain weights."""
    made = dict(weights)
    for key, scale in weights.items():
        path, _, kind = key.rpartition(".")
        if kind != "weight_scale":
            continue
        if settings.get("linear_class") != "autobitlinear":
            scale = (1 / scale.astype(mx.float32)).astype(scale.dtype)
            made[key] = scale
        if model_type != "bitnet":
            packed = made[f"{path}.weight"]
            unpacked[path] = (packed, scale)
            made[f"{path}.weight"] = ternary.dense(packed, scale, scale.dtype)
            del made[key]
    return made


def _pack_exactly(
    model: nn.Module, unpacked: dict[str, tuple[mx.array, mx.array]], config: dict[str, Any]
) -> set[str]:
    """Ternary layers at the two bits that hold them exactly, whatever the variant."""
    leaves = dict(tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module))
    made, settings = [], {}
    for path, (packed, scale) in unpacked.items():
        layer = leaves[path]
        columns = packed.shape[-1]
        size = ternary.group_size(columns)
        new = nn.QuantizedLinear(columns, packed.shape[0] * 4, False, size, 2)
        parts = ternary.affine(packed, scale, size, layer.weight.dtype)
        new.weight, new.scales, new.biases = parts
        if "bias" in layer:
            new.bias = layer.bias
        made.append((path, new))
        settings[path] = {"group_size": size, "bits": 2, "mode": "affine"}
    if made:
        model.update_modules(tree_unflatten(made))
        config["quantization"] = settings
    return set(unpacked)


def _cast(model: nn.Module, dtype: str | None) -> None:
    """Numbers in `dtype`, but for those that the model keeps; as mlx_lm.convert does."""
    if dtype not in MODEL_CONVERSION_DTYPES:
        return
    wanted = getattr(mx, dtype)
    may = getattr(model, "cast_predicate", lambda _: True)

    def cast(name: str, array: mx.array) -> mx.array:
        if array.dtype != wanted and mx.issubdtype(array.dtype, mx.floating) and may(name):
            return array.astype(wanted)
        return array

    model.update(tree_map_with_path(cast, model.parameters()))


def _inner_dtype(config: dict[str, Any]) -> str | None:
    inner = config.get("text_config")
    return inner.get("dtype") if isinstance(inner, dict) else None


def _mixture(recipe: Recipe, model: nn.Module, group_size: int) -> Callable[..., Any]:
    name = f"mixed_{recipe.bits}_{recipe.high_bits}"
    try:
        return mixed_quant_predicate_builder(name, model, group_size)
    except ValueError as error:
        raise models.Refused(
            "unsupported_variant",
            "mlx-lm's mixtures go by the layers called down_proj, and this model has none.",
            "Take 3bit, 4bit or another variant that packs all layers alike.",
        ) from error


def _keep_bitnet(config: dict[str, Any], original: dict[str, Any]) -> None:
    """A BitNet whose layers stay packed says so; its scales now multiply."""
    if original["model_type"] == "bitnet":
        settings = dict(original["quantization_config"]) | {"linear_class": "autobitlinear"}
        config["quantization_config"] = settings | {"modules_to_not_convert": ["lm_head"]}


def _planned(
    model: nn.Module,
    config: dict[str, Any],
    raw: dict[str, mx.array],
    packings: dict[str, Packing],
    skipped: int,
) -> Plan:
    arrays = dict(tree_flatten(model.parameters()))
    types = {name: array.dtype for name, array in arrays.items()}
    for name, array in raw.items():
        # Unless packed, as it was before its type was changed: that is done block by block.
        if name in arrays and array.shape == arrays[name].shape:
            arrays[name] = array
    parameters = get_total_parameters(model)
    keep_vision = "vision_tower" in getattr(model, "model", {})
    # Nothing may hold on to an array but the plan, or writing it would not free it.
    model.update(tree_map(lambda _: mx.array([]), model.parameters()))
    del model
    gc.collect()
    return Plan(arrays, types, packings, config, parameters, keep_vision, skipped)
