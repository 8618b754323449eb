"""Which models can be converted, told from config.json and the names of the files alone."""

from typing import Any

# Architectures whose artefacts were seen to give the same tokens as transformers, with the
# model_type that goes with each.
KNOWN = {
    "Gemma3ForCausalLM": "gemma3_text",
    "GraniteForCausalLM": "granite",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
}
# Kinds of rotary scaling that the builder computes, by model_type; every model may have none.
SCALED = {"llama": {"llama3", "linear"}, "phi3": {"longrope"}}
OTHER = "Another format may take it; a later version of this plugin may know it."


class Refused(Exception):
    """A model that cannot be converted: the kind of cause, one sentence on it, and what to do."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


def accept(config: dict[str, Any], files: list[str]) -> None:
    """Return if a model with this config.json and these files can be converted; raises Refused."""
    names = config.get("architectures") or []
    if not names:
        raise Refused(
            "unsupported_architecture",
            "config.json does not name an architecture.",
            'Add the key "architectures" to config.json.',
        )
    _accept_architecture(names[0], config)
    method = (config.get("quantization_config") or {}).get("quant_method")
    if config.get("quantization_config"):
        raise Refused(
            "unsupported_quantization",
            f"The weights are already quantized with {method or 'an unnamed method'}, which cannot"
            " be unpacked here.",
            "Convert the original model that this one was made from.",
        )
    _accept_rope(config)
    if not any(file.endswith(".safetensors") and "/" not in file for file in files):
        raise Refused(
            "missing_weights",
            "The model has no safetensors file at its top.",
            "Mirror a repo that has its weights as safetensors.",
        )
    if "tokenizer.json" not in files and "tokenizer.model" not in files:
        raise Refused(
            "missing_tokenizer",
            "The model has no tokenizer: neither tokenizer.json nor tokenizer.model is there.",
            "Add the tokenizer files of the model that it was trained from.",
        )


def _accept_architecture(name: str, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if KNOWN.get(name) == kind:
        return
    if name in KNOWN:
        why = f"does not go with the model_type {kind} that config.json names"
    elif config.get("is_encoder_decoder") or not name.endswith(
        ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    ):
        why = "is no decoder that only continues text, and nothing else is built here"
    elif name.endswith("ForConditionalGeneration"):
        why = "reads more than text, and only text models are built here"
    elif "Moe" in name or "MoE" in name or "Mixtral" in name:
        why = "is a mixture of experts, which is not built here"
    elif name in ("Olmo2ForCausalLM", "BitNetForCausalLM"):
        why = "is not known to the model builder; the plugin onnx takes it"
    elif "auto_map" in config:
        why = "needs code that comes with the model, which is never run"
    else:
        why = "is not one that was seen to work with the model builder"
    raise Refused("unsupported_architecture", f"The architecture {name} {why}.", OTHER)


def _accept_rope(config: dict[str, Any]) -> None:
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default" and kind not in SCALED.get(config["model_type"], set()):
        raise Refused(
            "unsupported_architecture",
            f"Its positions are scaled by {kind}, which the model builder does not compute for"
            f" {config['model_type']}.",
            OTHER,
        )
