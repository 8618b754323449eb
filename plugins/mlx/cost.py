"""What a variant will cost, from headers alone: README.md, "Estimates". Stdlib only.

Sizes come from building the artefact's list of tensors, and from it the very heads and indexes that
the converter writes. Memory is that of the larger of two moments: the largest tensor being packed,
and the whole artefact being run.
"""

import json
import math
import re
from typing import Any

import layout
import source as models
from recipes import RECIPES, Quantization, Recipe, default, forecast

MB = 1_000_000
INTERPRETER = 72 * MB  # Python with mlx-lm and what it imports of transformers
# While rows are packed, on four cores at most: how many weights at a time, and bytes for each.
BLOCKS = {"affine": (4 << 21, 7), "mxfp4": (1 << 20, 75), "mxfp8": (1 << 20, 75)}
BLOCKS |= {"nvfp4": (1 << 20, 75)}
CASTS = (4 << 22, 6)  # the same where only the type changes
TOKENIZER_READ = 18  # bytes of memory a byte of tokenizer.json while it is parsed …
TOKENIZER_HELD = 13  # … and once it is
MADE_TOKENIZER = 4  # bytes of tokenizer.json that a byte of tokenizer.model becomes
CACHE_STEP = 256  # tokens that mlx-lm's cache of keys and values grows by
FLOATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
OTHER_SENSES = ("vision_tower", "multi_modal_projector", "visual", "vision_model", "audio_tower")


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes of the artefact, of memory at the worst moment, and of scratch disk."""
    recipe = RECIPES[variant]
    made = Artefact(config, tensors, recipe, options)
    copied = sum(files[name] for name in layout.copied(files))
    tokenizer = files.get("tokenizer.json", 0)
    scratch = 0
    if not tokenizer:
        tokenizer = MADE_TOKENIZER * files.get("tokenizer.model", 0)
        copied += tokenizer
        scratch = tokenizer + files.get("tokenizer.model", 0)
    shards = layout.shards(made.tensors)
    heads = sum(len(layout.header(part)[0]) for part in shards.values())
    size = made.size + heads + len(layout.index(shards, made.parameters)) + copied
    size += len(json.dumps(made.config, indent=4).encode())
    run = made.run_bytes + TOKENIZER_HELD * tokenizer + made.computing
    memory = INTERPRETER + max(made.largest, TOKENIZER_READ * tokenizer, run)
    return {"size": size, "memory": memory, "scratch": scratch}


class Artefact:
    """The tensors and the config.json that a variant will have."""

    def __init__(
        self,
        config: dict[str, Any],
        stored: dict[str, dict[str, Any]],
        recipe: Recipe,
        options: dict[str, Any],
    ) -> None:
        changes = models.translate(config, set(stored), str(options["longrope"]))
        stored = _stack_experts(stored)
        self.config = config | changes
        self.tensors: list[layout.Tensor] = []
        self.parameters = 0
        self.largest = 0
        self._scales = 0
        self._ternary = 0
        self._widest_ternary = 0
        self._recipe = recipe
        self._model_type = str(config.get("model_type"))
        self._stored = stored
        inner = config.get("text_config")
        self._text = inner if isinstance(inner, dict) else config
        wanted = recipe.dtype or self.config.get("torch_dtype") or self._text.get("dtype")
        self._float = FLOATS.get(str(wanted))
        self._group_size = int(options["group_size"])
        self._settings: dict[str, Any] = {}
        tied = models.is_tied(config, set(stored)) and "text_config" not in config
        names = [
            name
            for name in stored
            if not (tied and name == "lm_head.weight")
            and "rotary_emb.inv_freq" not in name
            and not any(sense in name.split(".")[:2] for sense in OTHER_SENSES)
        ]
        self._choose = self._forecast(names)
        for name in names:
            self._add(name)
        self._name_settings()

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def run_bytes(self) -> int:
        """Bytes that the weights take while the artefact runs on a CPU.

        Quantized models get their scales in FP32 beside those that were read, and BitNet's layers
        become affine ones beside the packed ones.
        """
        if self._recipe.bits is None and not self._ternary:
            experts = any(tensor.get("stacked") for tensor in self._stored.values())
            return self.size * (2 if experts and self._float != "F32" else 1)
        width = {"F32": 1, None: 2}.get(self._float, 2)
        ternary = self._ternary // 4 + self._ternary // 128 * 8 + 14 * self._widest_ternary
        plain = 0
        if self._ternary:  # the embedding is widened too where it is not quantized
            plain = sum(2 * one.size for one in self.tensors if one.dtype in ("F16", "BF16"))
        return self.size + max(self._scales * width, plain) + ternary

    @property
    def computing(self) -> int:
        """Bytes of the cache of keys and values, and of the logits."""
        text = self._text
        heads = int(text.get("num_attention_heads") or 1)
        groups = int(text.get("num_key_value_heads") or heads)
        head = int(text.get("head_dim") or int(text.get("hidden_size") or 0) // heads)
        layers = int(text.get("num_hidden_layers") or 0)
        item = 2 if self._recipe.bits is None and self._float != "F32" else 4
        cache = 2 * layers * groups * head * CACHE_STEP * item
        return cache + 48 * int(text.get("vocab_size") or self.config.get("vocab_size") or 0)

    def _forecast(self, names: list[str]) -> Any:
        if self._recipe.bits is None:
            return None
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        layers = int(self._text.get("num_hidden_layers") or 0)
        usual = default(self._recipe, self._group_size)
        self._settings = {
            "group_size": usual.group_size,
            "bits": usual.bits,
            "mode": usual.mode,
        }
        return forecast(self._recipe, self._group_size, self._model_type, paths, layers)

    def _add(self, name: str) -> None:
        """Add what a stored tensor becomes."""
        dtype, shape = str(self._stored[name]["dtype"]), tuple(self._stored[name]["shape"])
        path = name.removesuffix(".weight")
        stored = layout.Tensor(name, dtype, shape)
        # Experts that lie apart are there twice while they are stacked.
        held = stored.size * (2 if self._stored[name].get("stacked") else 1)
        if f"{path}.weight_scale" in self._stored:
            self._add_ternary(path, stored)
            return
        if name.endswith(".weight_scale") and self._model_type != "bitnet":
            return
        self.parameters += math.prod(shape)
        kind = (self._float or dtype) if dtype in FLOATS.values() else dtype
        matrix = name.endswith(".weight") and len(shape) >= 2 and "conv" not in name
        if matrix and self._choose is not None and kind in FLOATS.values():
            usual = default(self._recipe, self._group_size)
            # mlx-lm asks whether a row divides by the usual group, then which bits the layer gets.
            if shape[-1] % usual.group_size == 0:
                packing, named = self._choose(path)
                if named:
                    self._name(path, packing)
                most, each = BLOCKS[packing.mode]
                packed = each * min(most, math.prod(shape))
                self.largest = max(self.largest, held + packed)
                self._pack(path, shape, kind, packing)
                return
        made = layout.Tensor(name, kind, shape)
        most, each = CASTS if kind != dtype else (0, 0)
        self.largest = max(self.largest, held + each * min(most, math.prod(shape)))
        self.tensors.append(made)

    def _add_ternary(self, path: str, stored: layout.Tensor) -> None:
        rows, columns = stored.shape[0] * 4, stored.shape[1]
        self.parameters += rows * columns
        if self._model_type == "bitnet":  # stays packed
            self.tensors.append(stored)
            self._ternary += rows * columns
            self._widest_ternary = max(self._widest_ternary, rows * columns)
            return
        kind = self._float or "BF16"
        self.largest = max(self.largest, 12 * rows * columns)
        if self._recipe.bits is None:
            self.tensors.append(layout.Tensor(f"{path}.weight", kind, (rows, columns)))
            return
        size = next((size for size in (128, 64, 32) if columns % size == 0), 32)
        self._name(path, Quantization(size, 2))
        self._pack(path, (rows, columns), kind, Quantization(size, 2))

    def _pack(self, path: str, shape: tuple[int, ...], kind: str, packing: Quantization) -> None:
        *rows, columns = shape
        words = (*rows, columns * packing.bits // 32)
        groups = (*rows, columns // packing.group_size)
        self.tensors.append(layout.Tensor(f"{path}.weight", "U32", words))
        scales = layout.Tensor(f"{path}.scales", kind if packing.has_biases else "U8", groups)
        self.tensors.append(scales)
        if packing.has_biases:
            self.tensors.append(layout.Tensor(f"{path}.biases", kind, groups))
            self._scales += 2 * scales.size

    def _name(self, path: str, packing: Quantization) -> None:
        """The layer's own entry in config.json."""
        entry: dict[str, Any] = {"group_size": packing.group_size, "bits": packing.bits}
        # The rule for Granite leaves the mode to its default.
        mixed = self._recipe.high_bits is not None or packing.bits == 2
        self._settings[path] = entry | ({"mode": packing.mode} if mixed else {})

    def _name_settings(self) -> None:
        self.config.pop("quantization_config", None)
        if self._settings:
            self.config |= {
                "quantization": self._settings,
                "quantization_config": self._settings,
            }


def _stack_experts(stored: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tensors with those of a layer's experts as one, as mlx-lm keeps them."""
    made: dict[str, dict[str, Any]] = {}
    for name, tensor in stored.items():
        one = re.sub(r"\.experts\.\d+\.", ".switch_mlp.", name)
        if one == name:
            made[name] = tensor
        elif one in made:
            made[one]["shape"][0] += 1
        else:
            shape = [1, *tensor["shape"]]
            made[one] = {"dtype": tensor["dtype"], "shape": shape, "stacked": True}
    return made
