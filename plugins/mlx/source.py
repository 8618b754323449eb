"""The model that is to be converted: what would fail, said before it starts; and its config.json in
the words that mlx-lm reads. Standard library only: an answer takes milliseconds.
"""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any


class Refused(Exception):
    """A model that cannot be converted: the kind of cause, one sentence on it, and what to do."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})
ROPES = {"default", "linear", "dynamic", "llama3", "yarn", "deepseek_yarn", "telechat3-yarn"}
ROPES |= {"longrope", "su", "proportional", "mrope"}
# mlx-lm's modules that need a package which it does not bring.
INCOMPLETE = {"olmo"}
# Heads that answer with labels or vectors, and bare bodies: mlx-lm has text generation only.
NOT_WRITERS = r"For(Sequence|Token)Classification$|ForQuestionAnswering$|RewardModel$|[^d]Model$"


@cache
def model_types() -> dict[str, str]:
    """Every model_type that mlx-lm knows, and its module, from its files without importing it."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("mlx-lm is not installed in this environment")
    root = Path(spec.submodule_search_locations[0])
    known = {
        path.stem: path.stem
        for path in (root / "models").glob("*.py")
        if path.stem not in INCOMPLETE
        and all(_defines(path.read_text(encoding="utf-8"), name) for name in ("Model", "ModelArgs"))
    }
    for node in ast.parse((root / "utils.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_REMAPPING":
            aliases = ast.literal_eval(node.value)
            return known | {name: to for name, to in aliases.items() if to in known}
    raise LookupError("this version of mlx-lm has no MODEL_REMAPPING")


def _defines(code: str, name: str) -> bool:
    """Whether a module has a class of this name, its own or another's; far quicker than parsing."""
    own = rf"^class {name}\b|^{name} ="
    return bool(re.search(rf"{own}|^from \S+ import [^(\n]*\b{name}\b", code, re.MULTILINE))


def accept(config: dict[str, Any], files: list[str]) -> None:
    """Return if mlx-lm can take a model with this config.json and these paths.

    Raises Refused, naming what is unknown or missing.
    """
    _accept_architecture(config)
    _accept_quantization(config)
    _accept_rope(config)
    _accept_weights(files)
    if not any(names <= set(files) for names in TOKENIZERS):
        raise Refused(
            "missing_tokenizer",
            "The model has no tokenizer that transformers reads: neither tokenizer.json nor "
            "tokenizer.model is there, nor vocab.json with merges.txt.",
            "Add the tokenizer files of the model that it was trained from.",
        )


def _accept_architecture(config: dict[str, Any]) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise Refused(
            "unsupported_architecture",
            "config.json does not name a model_type.",
            'Add the key "model_type" to config.json, as transformers writes it.',
        )
    if config.get("model_file"):
        raise Refused(
            "custom_code",
            "The model brings its own code (model_file), which is never run.",
            "Convert a model whose model_type mlx-lm knows.",
        )
    if config.get("is_encoder_decoder"):
        raise Refused(
            "unsupported_architecture",
            f"{model_type} is an encoder with a decoder, and mlx-lm runs decoders alone.",
            "This plugin converts models that continue text.",
        )
    if model_type not in model_types():
        code = ", whose code comes with it and is never run" if "auto_map" in config else ""
        raise Refused(
            "unsupported_architecture",
            f"mlx-lm does not know the model type {model_type}{code}.",
            "A later version of this plugin may know it; other formats may know it today.",
        )
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else ""
    if re.search(NOT_WRITERS, name) and not re.search("LMHeadModel$", name):
        raise Refused(
            "unsupported_architecture",
            f"{name} does not generate text, and mlx-lm runs only models that do.",
            "This plugin converts models that continue text (…ForCausalLM).",
        )


def _accept_quantization(config: dict[str, Any]) -> None:
    inner = config.get("text_config")
    settings = config.get("quantization_config") or (
        inner.get("quantization_config") if isinstance(inner, dict) else None
    )
    if not settings and not config.get("quantization"):
        if config.get("model_type") == "bitnet":
            raise Refused(
                "unsupported_quantization",
                "The ternary weights of this BitNet are not packed, and mlx-lm reads packed ones "
                "only.",
                "Convert the packed release of the model (quant_method bitnet).",
            )
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method == "bitnet":
        return
    what = f"with {method}" if method else "for MLX" if config.get("quantization") else "already"
    raise Refused(
        "unsupported_quantization",
        f"The weights are quantized {what}, and quantizing them again would lose twice.",
        "Convert the original model that this one was made from.",
    )


def _accept_rope(config: dict[str, Any]) -> None:
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return
    kind = scaling.get("type") or scaling.get("rope_type") or "default"
    if kind not in ROPES:
        raise Refused(
            "unsupported_architecture",
            f"mlx-lm does not know the position encoding {kind} (rope_scaling in config.json).",
            "A later version of this plugin may know it; other formats may know it today.",
        )


def _accept_weights(files: list[str]) -> None:
    weights = [file for file in files if re.fullmatch(r"model[^/]*\.safetensors", file)]
    if not weights:
        raise Refused(
            "missing_weights",
            "The model has no file that is named model*.safetensors.",
            "mlx-lm reads weights in the layout of transformers only.",
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


def is_tied(config: dict[str, Any], names: set[str]) -> bool:
    """Whether the output layer is the embedding, however the weights were stored.

    Where config.json is silent, transformers' default counts: true for Gemma, and for the others
    what is stored tells, because mlx-lm's defaults differ from transformers' (Llama).
    """
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    if str(config.get("model_type")).startswith("gemma"):
        return True
    return "lm_head.weight" not in names


def translate(config: dict[str, Any], names: set[str], longrope: str = "long") -> dict[str, Any]:
    """What to change in config.json so that mlx-lm reads the same model in it as transformers does.

    `names` are those of the stored tensors. A value of None means that the key is to go.
    """
    changes: dict[str, Any] = {}
    if "torch_dtype" not in config and isinstance(config.get("dtype"), str):
        changes["torch_dtype"] = config["dtype"]
    if "text_config" in config:
        return changes  # a wrapper: its language part has a config of its own
    changes |= _rope(config)
    if config.get("model_type") == "phi3":
        changes |= _phi_rope(config | changes, longrope)
    if "tie_word_embeddings" not in config:
        changes["tie_word_embeddings"] = is_tied(config, names)
    return changes


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 keeps in rope_parameters, in the keys from before.

    Most of mlx-lm's models look there only, and would take 10000 for the base without a word.
    """
    nested = config.get("rope_parameters")
    if not isinstance(nested, dict):
        return {}
    changes: dict[str, Any] = {}
    if isinstance(local := nested.get("sliding_attention"), dict):  # one set a kind of layer
        if "rope_local_base_freq" not in config and "rope_theta" in local:
            changes["rope_local_base_freq"] = local["rope_theta"]
        nested = nested.get("full_attention") or {}
    for key in ("rope_theta", "partial_rotary_factor"):
        if key not in config and key in nested:
            changes[key] = nested[key]
    kind = nested.get("rope_type", "default")
    if not config.get("rope_scaling") and kind != "default":
        gone = ("rope_theta", "partial_rotary_factor")
        rest = {key: value for key, value in nested.items() if key not in gone}
        changes["rope_scaling"] = rest | {"type": kind}
    top = "original_max_position_embeddings"
    if top not in config and top in nested:
        changes[top] = nested[top]
    return changes


def _phi_rope(config: dict[str, Any], longrope: str) -> dict[str, Any]:
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return {}
    fixed = dict(scaling)
    if "type" not in fixed and "rope_type" in fixed:
        fixed["type"] = fixed["rope_type"]
    if longrope == "short" and "short_factor" in fixed:
        fixed["long_factor"] = fixed["short_factor"]
    return {"rope_scaling": fixed} if fixed != scaling else {}
