"""What a variant will cost, from headers alone. Standard library only.

The sizes follow from what variants.py and store.py do with each tensor. The rest was measured, and
a test holds all of it against conversions.
"""

from dataclasses import dataclass
from typing import Any

import files as texts
from accept import TIED
from layout import FILES, HALF, PAGE, SMALL, external, unpacked

BLOCK = 32
# Bytes of the exported graph: of the whole model, and of each layer where every head has keys.
GRAPH = {
    "bitnet": (11_100, 20_030),
    "gemma3_text": (12_400, 23_780),
    "granite": (8_700, 16_580),
    "llama": (8_100, 16_480),
    "mistral": (8_700, 16_280),
    "olmo2": (7_800, 18_980),
    "phi3": (11_900, 19_360),
    "qwen2": (8_700, 17_080),
    "qwen3": (10_500, 18_480),
    "smollm3": (11_700, 14_780),
}
SHARED_HEADS = 7_900  # what a layer has besides, where several heads share keys
# What takes the place of a product, and what one takes to be put into half precision.
NODES = {"int8": 850, "uint8": 850, "q4": 100, "q4f16": 100}
# Memory that is a process's own, as the host counts it; mapped files are not.
PARENT, EXPORTER, RUNTIME = 120_000_000, 225_000_000, 80_000_000
TRACED_LAYER = 5_000_000  # while the graph is traced
WORKING = 180_000_000  # for the pieces that are converted at once
# What the check holds besides the mapped artefact, in its sizes: nothing, a copy as float32, or
# matrices repacked for the processor.
COPIES = {"fp32": 0.02, "fp16": 2.55, "int8": 1.1, "uint8": 1.1, "q4": 2.1, "q4f16": 2.5}


@dataclass(frozen=True)
class Piece:
    """One tensor of the artefact: the bytes of its elements, and of its entry in the graph."""

    size: int
    entry: int


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, Any],
    variant: str,
    embedding_bits: int,
) -> dict[str, int]:
    """Bytes of the artefact, and of the memory and scratch that its conversion takes."""
    stored = [(name, each["dtype"], tuple(each["shape"])) for name, each in tensors.items()]
    shapes = unpacked(stored)
    beside = external(shapes, config)
    tied = config.get("tie_word_embeddings", config.get("model_type") in TIED)
    if not any(name.endswith("lm_head.weight") for name in shapes):
        tied = True
    pieces = [
        piece
        for name, shape in shapes.items()
        if not (tied and name.endswith("lm_head.weight")) and "rotary_emb" not in name
        for piece in _pieces(name, shape, variant, config, embedding_bits, tied)
    ]
    chunks = beside.get(FILES[variant], 0)
    graph = _graph(config, shapes, variant)
    weights = sum(piece.size + piece.entry for piece in pieces)
    if chunks:
        outside = [piece for piece in pieces if piece.size > SMALL]
        # An entry names its file, offset and length; the data begins on a page.
        weights += sum(100 + -piece.size % PAGE for piece in outside)
    size = graph + weights + _texts(config, files, beside)
    scratch = graph + sum(files.get(name, 0) for name in texts.TOKENIZER) + 1_000_000
    memory = _memory(config, variant, size)
    return {"size": size, "memory": memory, "scratch": scratch}


def _pieces(
    name: str,
    shape: tuple[int, ...],
    variant: str,
    config: dict[str, Any],
    embedding_bits: int,
    tied: bool,
) -> list[Piece]:
    """What one tensor of the source becomes."""
    elements = 1
    for length in shape:
        elements *= length
    entry = len(name) + 20
    width = 2 if variant in HALF else 4
    if len(shape) != 2:
        full = variant in HALF and "norm" in name  # norms keep their digits
        return [Piece(elements * (4 if full else width), entry)]
    rows, columns = shape
    if variant in ("int8", "uint8"):
        return [
            Piece(elements, entry + 10),
            Piece(4 * rows, entry + 7),
            Piece(rows, entry + 11),
        ]
    if variant in ("q4", "q4f16"):
        bits = 4
        if rows == config.get("vocab_size"):
            table = tied or not name.endswith("lm_head.weight")
            bits = embedding_bits if table or embedding_bits < 16 else 4
            if table and columns % BLOCK:
                bits = 16
        if bits < 16:
            blocks = -(-columns // BLOCK)
            codes = rows * blocks * BLOCK * bits // 8
            return [Piece(codes, entry + 6), Piece(rows * blocks * width, entry + 8)]
    return [Piece(elements * width, entry)]


def _graph(config: dict[str, Any], shapes: dict[str, tuple[int, ...]], variant: str) -> int:
    """Bytes of the graph: its nodes, their names, and small constants."""
    fixed, layer = GRAPH.get(config.get("model_type", ""), GRAPH["llama"])
    layers = config.get("num_hidden_layers", 0)
    if config.get("num_key_value_heads", 0) < config.get("num_attention_heads", 0):
        layer += SHARED_HEADS
    products = sum(len(shape) == 2 for shape in shapes.values())
    size = fixed + layer * layers + NODES.get(variant, 0) * products
    size -= sum(len(name) + 30 for name in shapes)  # inputs that become initializers
    if variant in HALF:
        norms = sum(len(shape) == 1 and "norm" in name for name, shape in shapes.items())
        size += 260 * norms
    return size


def _texts(config: dict[str, Any], files: dict[str, int], beside: dict[str, int]) -> int:
    """Bytes of the configuration and the tokenizer."""
    size = len(texts.config(config, beside).encode())
    size += sum(files.get(name, 0) for name in texts.TOKENIZER)
    # The template is in tokenizer_config.json as well.
    size += files.get("chat_template.jinja", 0)
    if "tokenizer.json" not in files:
        size += int(2.3 * files.get("tokenizer.model", 0))
    return size


def _memory(config: dict[str, Any], variant: str, size: int) -> int:
    """The most of what exporting, writing and checking take, one after another."""
    exporting = EXPORTER + TRACED_LAYER * config.get("num_hidden_layers", 0)
    checking = RUNTIME + int(COPIES[variant] * size)
    return PARENT + max(exporting, WORKING, checking)
