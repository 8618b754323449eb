"""The model as the tools get to see it: its weights and tokenizer, and no code.

Standard library only: headers are read here, and no weights.
"""

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

CONFIG, GENERATION, INDEX = "config.json", "generation_config.json", "model.safetensors.index.json"
TOKENIZER = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
FLOATS = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Damaged(Exception):
    """A file of weights that is not whole: its name."""


def weight_files(names: list[str], index: dict[str, Any] | None) -> list[str]:
    """The files that hold the weights, as transformers chooses among them."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if index and index.get("weight_map"):
        return sorted(set(index["weight_map"].values()))
    found = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    return sorted(name for name in found if name.startswith("model")) or sorted(found)


def header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises Damaged if they do not fill it."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise Damaged(path.name)
            found = json.loads(file.read(length))
        found.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in found.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(path.name) from error
    if 8 + length + end != size:
        raise Damaged(path.name)
    return dict(found)


def float_type(tensors: list[dict[str, Any]]) -> str:
    """The type, as torch calls it, that most of the numbers are stored in."""
    count: Counter[str] = Counter()
    for tensor in tensors:
        if tensor["dtype"] in FLOATS:
            count[FLOATS[tensor["dtype"]]] += math.prod(tensor["shape"])
    # Packed weights bring few floats: their unpacked numbers fit BF16.
    packed = any(tensor["dtype"] in ("U8", "I8") for tensor in tensors)
    return "bfloat16" if packed or not count else count.most_common(1)[0][0]


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without code and packing, spelled as transformers 4 reads it."""
    config = {
        key: value
        for key, value in config.items()
        if key not in ("auto_map", "quantization_config")
    }
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        # transformers 5 keeps in one table what release 4 looks for in three keys.
        local = rope.get("sliding_attention")
        if isinstance(local, dict) and "rope_theta" in local:
            config.setdefault("rope_local_base_freq", local["rope_theta"])
        rope = rope.get("full_attention", rope)
        if isinstance(rope, dict):
            if "rope_theta" in rope:
                config.setdefault("rope_theta", rope["rope_theta"])
            if "partial_rotary_factor" in rope:
                config.setdefault("partial_rotary_factor", rope["partial_rotary_factor"])
            scaling = {
                key: value
                for key, value in rope.items()
                if key not in ("rope_theta", "partial_rotary_factor")
            }
            if scaling.get("rope_type", "default") != "default":
                config.setdefault("rope_scaling", scaling)
    return config


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file as transformers does."""
    path.write_text(json_text(value), "utf-8")


def json_text(value: dict[str, Any]) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def view(source: Path, folder: Path, unpacked: list[Path] | None = None) -> None:
    """Make `folder` the model as the tools get to see it, of links to the files of `source`.

    `unpacked` are weights to take instead of those in `source`.
    """
    config = json.loads((source / CONFIG).read_bytes())
    write_json(folder / CONFIG, plain(config))
    for name in (*TOKENIZER, GENERATION):
        if not (source / name).is_file():
            continue
        if name == "tokenizer_config.json":
            settings = json.loads((source / name).read_bytes())
            settings.pop("auto_map", None)
            write_json(folder / name, settings)
        else:
            (folder / name).symlink_to((source / name).resolve())
    weights = weights_of(source) if unpacked is None else unpacked
    if len(weights) == 1:
        (folder / "model.safetensors").symlink_to(weights[0].resolve())
        return
    places: dict[str, str] = {}
    for path in weights:
        (folder / path.name).symlink_to(path.resolve())
        places |= dict.fromkeys(header(path), path.name)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": places})


def weights_of(source: Path) -> list[Path]:
    """The files of a model's weights."""
    index = source / INDEX
    table = json.loads(index.read_bytes()) if index.is_file() else None
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    return [source / name for name in weight_files(names, table)]
