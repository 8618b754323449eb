"""What a conversion costs, from headers alone.

Sizes follow from how the tools lay weights out; README.md, "Estimates", says what was measured.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from recipes import RECIPES, SMALLEST_GROUP, aware, openvino_config
from source import GENERATION, TOKENIZER, float_type, json_text, plain

Shape = list[int]

# Bytes of XML: of a graph without layers, of one layer, of the nodes that unpack a matrix.
GRAPH = 16_000
LAYER = {
    "gemma3_text": 97_500,
    "granite": 76_200,
    "llama": 73_900,
    "mistral": 74_000,
    "olmo2": 80_300,
    "phi3": 85_000,
    "qwen2": 78_200,
    "qwen3": 86_500,
    "smollm3": 69_500,
}
UNPACK = {8: 2_580, 4: 3_620}
# Of the tokenizer's graphs: of the XML, and for each piece of the vocabulary. The strings of the
# vocabulary lie in both graphs, each with two numbers.
TOKENIZER_XML, PIECE = 37_000, 52

# Bytes of memory of the interpreter with the tools of a step, and of what each costs beside it.
EXPORT, QUANTIZE, GENERATE = 540_000_000, 310_000_000, 110_000_000


def matrices(
    tensors: dict[str, dict[str, Any]], config: dict[str, Any]
) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every matrix as the graph has it: unpacked, a tied head once."""
    tied = config.get("tie_word_embeddings", True)
    for name, tensor in tensors.items():
        shape = tensor["shape"]
        if len(shape) != 2 or (tied and name == "lm_head.weight"):
            continue
        if tensor["dtype"] == "U8":
            shape = [4 * shape[0], shape[1]]
        yield name, shape


def group(columns: int, asked: int) -> int:
    """How many weights of a row share a scale: as asked, or the largest power of two that fits."""
    if asked == -1:
        return columns
    size = asked
    while size >= SMALLEST_GROUP:
        if columns % size == 0:
            return size
        size //= 2
    return 0


def stored(name: str, shape: Shape, variant: str, options: dict[str, Any]) -> int:
    """Bytes of a matrix in a variant."""
    rows, columns = shape
    recipe = RECIPES[variant]
    count = rows * columns
    if recipe.bits == 16:
        return 2 * count
    size = group(columns, options["group_size"]) if recipe.bits == 4 else 0
    if recipe.bits == 8 or size == 0 or "embed" in name or "lm_head" in name:
        # The embedding and the head of INT4 are INT8 with zero points, of both kinds.
        zeros = 0 if recipe.bits == 8 and recipe.symmetric else rows
        return count + 2 * rows + zeros
    groups = rows * columns // size
    return count // 2 + 2 * groups + (0 if recipe.symmetric else groups // 2)


def _weights(
    tensors: dict[str, dict[str, Any]],
    config: dict[str, Any],
    variant: str,
    options: dict[str, Any],
) -> int:
    """Bytes of a variant's .bin."""
    found = list(matrices(tensors, config))
    vectors = sum(
        4 * math.prod(tensor["shape"]) for tensor in tensors.values() if len(tensor["shape"]) == 1
    )
    total = vectors + 500
    if RECIPES[variant].bits != 4 or options["ratio"] == 1:
        return total + sum(stored(name, shape, variant, options) for name, shape in found)
    # The layers that stay in INT8 are the tool's choice: their share of the weights is the ratio.
    outer = [one for one in found if "embed" in one[0] or "lm_head" in one[0]]
    inner = [one for one in found if one not in outer]
    total += sum(stored(name, shape, variant, options) for name, shape in outer)
    for name, shape in inner:
        small = stored(name, shape, variant, options)
        total += round(
            options["ratio"] * small + (1 - options["ratio"]) * stored(name, shape, "int8", options)
        )
    return total


def _graph(config: dict[str, Any], count: int, variant: str) -> int:
    """Bytes of a variant's XML."""
    layer = LAYER.get(config.get("model_type", ""), LAYER["llama"])
    number = config.get("num_hidden_layers") or config.get("n_layer") or 0
    return GRAPH + layer * int(number) + UNPACK.get(RECIPES[variant].bits, 0) * count


def _beside(config: dict[str, Any], files: dict[str, int]) -> int:
    """Bytes of the tokenizer's files and graphs, and of the configuration."""
    total = len(json_text(plain(config))) + files.get(GENERATION, 150)
    total += sum(files.get(name, 0) for name in TOKENIZER)
    if "tokenizer.json" not in files:
        total += 5 * files.get("tokenizer.model", 0)
    return total + TOKENIZER_XML + PIECE * int(config.get("vocab_size") or 0)


def _quantizing(
    tensors: dict[str, dict[str, Any]],
    config: dict[str, Any],
    variant: str,
    options: dict[str, Any],
) -> int:
    """The most bytes that NNCF holds: what it has made so far, and a matrix in FP32, twice."""
    found = sorted(matrices(tensors, config), key=lambda one: (_place(one[0]), one[0]))
    made, most = 0, 0
    for name, shape in found:
        made += stored(name, shape, variant, options)
        most = max(most, made + 8 * math.prod(shape))
    return most


def _place(name: str) -> int:
    """Where a matrix comes in the graph: the embedding first, the head last."""
    return 0 if "embed" in name else 2 if "lm_head" in name else 1


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes: of the files, the most of memory, the most in scratch."""
    count = sum(1 for _ in matrices(tensors, config))
    weights = _weights(tensors, config, variant, options)
    size = weights + _graph(config, count, variant) + _beside(config, files)
    size += len(json.dumps(openvino_config(variant, options), indent=2))
    numbers = sum(math.prod(shape) for _, shape in matrices(tensors, config))
    largest = max((math.prod(shape) for _, shape in matrices(tensors, config)), default=0)
    whole = float_type(list(tensors.values())) == "float32"
    exported = numbers * (4 if whole else 2)
    # Tracing touches the weights in their mapped files, and computes a layer at a time in FP32.
    export = EXPORT + 4 * largest
    if config.get("model_type") == "gemma3_text" and not whole:
        # Its embedding, which scales, is exported in FP32.
        exported += 2 * largest
        export += 4 * largest
    quantize = QUANTIZE
    if RECIPES[variant].bits < 16:
        quantize += _quantizing(tensors, config, variant, options)
    if aware(RECIPES[variant], options):
        quantize += 4 * numbers
    # The runtime packs weights anew for the processor that it runs on: FP16 may become FP32.
    generate = GENERATE + (weights if RECIPES[variant].bits < 16 else 2 * weights)
    scratch = exported + _graph(config, count, "fp16") + _beside(config, files)
    if config.get("quantization_config"):
        scratch += exported
    return {"size": size, "memory": max(export, quantize, generate), "scratch": scratch}
