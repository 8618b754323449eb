"""What the files of an artefact look like, byte for byte. Stdlib only.

The converter writes with these functions and the estimate counts with them, so the two agree.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

SHARD = 5 << 30  # bytes of weights in one file, as mlx-lm splits them
ITEM = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4}
ITEM |= {"F32": 4, "U64": 8, "I64": 8, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class Tensor:
    """Name, type (in safetensors' words) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * ITEM[self.dtype]


def shards(tensors: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    """The tensors of each file of weights, in order, by the file's name."""
    parts: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if not parts or size + tensor.size > SHARD:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += tensor.size
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    count = len(parts)
    return {
        f"model-{number:05d}-of-{count:05d}.safetensors": part
        for number, part in enumerate(parts, 1)
    }


def header(tensors: list[Tensor]) -> tuple[bytes, dict[str, int]]:
    """The head of a safetensors file, and where in the file each tensor begins.

    Tensors lie in the model's order, without gaps; the head is padded to eight bytes.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    places = {}
    end = 0
    for tensor in tensors:
        places[tensor.name] = end
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.size],
        }
        end += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + place for name, place in places.items()}


def index(files: dict[str, list[Tensor]], parameters: int) -> bytes:
    """model.safetensors.index.json, as mlx-lm writes it."""
    places = {tensor.name: file for file, part in files.items() for tensor in part}
    total = sum(tensor.size for part in files.values() for tensor in part)
    content = {
        "metadata": {"total_size": total, "total_parameters": parameters},
        "weight_map": dict(sorted(places.items())),
    }
    return json.dumps(content, indent=4).encode()


def copied(files: Iterable[str]) -> list[str]:
    """Which of the source's files are taken over as they are."""
    return sorted(
        file for file in files if any(fnmatchcase(file, name) for name in TOKENIZER_FILES)
    )
