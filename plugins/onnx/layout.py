"""Names and places of an artefact's files. Standard library only: estimates need it too."""

import math
from collections.abc import Iterable
from typing import Any

FILES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "int8": "model_int8.onnx",
    "uint8": "model_uint8.onnx",
    "q4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
}
HALF = ("fp16", "q4f16")
SINGLE = 256 << 20  # bytes of weights up to which they are kept inside the .onnx file
CHUNK = 1_900_000_000  # bytes a data file aims at: browsers hold 2 GB in one piece and no more
PAGE = 4096  # weights begin on pages, so that a runtime can map them
SMALL = 1024  # bytes up to which a tensor stays in the .onnx file in any case


def chunks(variant: str, elements: int, embedded: int) -> int:
    """How many data files lie beside the .onnx file; 0: it holds the weights itself.

    `elements`: weights of the model, `embedded` of them in the token embedding and the head. The
    answer goes into config.json, which all variants and options share. So it may depend on the
    model only: it is reckoned with the largest size that any option gives.
    """
    rest = elements - embedded
    most = {
        "fp32": 4 * elements,
        "fp16": 2 * elements,
        "int8": elements,
        "uint8": elements,
        "q4": 5 * rest // 8 + 4 * embedded,
        "q4f16": 9 * rest // 16 + 2 * embedded,
    }[variant]
    return 0 if most <= SINGLE else math.ceil(most / CHUNK)


def data_files(name: str, count: int) -> list[str]:
    """The names that transformers.js looks for beside `name`."""
    return [f"{name}_data" + (f"_{number}" if number else "") for number in range(count)]


def count(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> tuple[int, int]:
    """The weights of a model, and those of them in the embedding and the head.

    `shapes` are unpacked. A head that is tied to the embedding counts once, stored or not.
    """
    vocabulary = config.get("vocab_size")
    tied = config.get("tie_word_embeddings", True)
    elements = embedded = 0
    for name, shape in shapes.items():
        if tied and name.endswith("lm_head.weight"):
            continue
        elements += math.prod(shape)
        if len(shape) == 2 and shape[0] == vocabulary:
            embedded += math.prod(shape)
    return elements, embedded


def external(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> dict[str, int]:
    """`use_external_data_format` of transformers.js: files that have data files, and how many."""
    elements, embedded = count(shapes, config)
    found = {name: chunks(variant, elements, embedded) for variant, name in FILES.items()}
    return {name: number for name, number in found.items() if number}


def unpacked(stored: Iterable[tuple[str, str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, of (name, type, shape); packed ternary weights count as what they hold.

    Some repos hold the weights a second time under their maker's own names: those are left out.
    """
    shapes = {
        name: (4 * shape[0], *shape[1:]) if dtype == "U8" and shape else tuple(shape)
        for name, dtype, shape in stored
    }
    theirs = {
        name: shape for name, shape in shapes.items() if name.startswith(("model.", "lm_head."))
    }
    return theirs if "model.embed_tokens.weight" in theirs else shapes
