"""Which models can be converted, told from config.json and the names of the files alone."""

import re
from typing import Any

# Architectures that optimum's exporter describes and whose graphs were seen to give the same
# tokens as transformers: a test holds this against optimum's list and exports each.
OPTIMUM = {
    "ArceeForCausalLM": "arcee",
    "CohereForCausalLM": "cohere",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "GemmaForCausalLM": "gemma",
    "GlmForCausalLM": "glm",
    "GPTNeoXForCausalLM": "gpt_neox",
    "GraniteForCausalLM": "granite",
    "HeliumForCausalLM": "helium",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "NemotronForCausalLM": "nemotron",
    "Olmo2ForCausalLM": "olmo2",
    "OlmoForCausalLM": "olmo",
    "Phi3ForCausalLM": "phi3",
    "PhiForCausalLM": "phi",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
    "StableLmForCausalLM": "stablelm",
}
# Those that transformers has and optimum does not; export.py describes them as it does Llama.
OWN = {
    "BitNetForCausalLM": "bitnet",
    "Ernie4_5ForCausalLM": "ernie4_5",
    "Exaone4ForCausalLM": "exaone4",
    "HunYuanDenseV1ForCausalLM": "hunyuan_v1_dense",
    "SeedOssForCausalLM": "seed_oss",
}
KNOWN = OPTIMUM | OWN
# Whose embedding and head are one where config.json does not say so.
TIED = {"cohere", "gemma", "gemma2", "gemma3_text"}


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
    _accept_quantization(config)
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
    heads = config.get("num_attention_heads")
    if kind == "phi" and config.get("num_key_value_heads") not in (None, heads):
        raise Refused(
            "unsupported_architecture",
            "Its heads share keys, which the exporter does not know of this architecture (phi).",
            "Another format may take it.",
        )
    if KNOWN.get(name) == kind:
        return
    if name in KNOWN:
        raise Refused(
            "unsupported_architecture",
            f"config.json names {name} with the model_type {kind}, not {KNOWN[name]}.",
            "Correct model_type in config.json.",
        )
    if config.get("is_encoder_decoder") or not re.search(r"CausalLM|LMHead|Conditional", name):
        why = "is no decoder that only continues text, and nothing else is exported here"
    elif "text_config" in config or name.endswith("ForConditionalGeneration"):
        why = "reads more than text, and the exporter takes text models only"
    elif "Moe" in name or "Mixtral" in name or config.get("num_local_experts"):
        why = "is a mixture of experts, whose choice of experts the exporter cannot trace"
    elif "auto_map" in config:
        why = "needs code that comes with the model, which is never run"
    else:
        why = "is not one that the exporter knows"
    raise Refused(
        "unsupported_architecture",
        f"The architecture {name} {why}.",
        "Another format may take it; a later version of this plugin may know it.",
    )


def _accept_quantization(config: dict[str, Any]) -> None:
    packing = config.get("quantization_config")
    if not packing:
        return
    method = packing.get("quant_method") or "an unnamed method"
    if method == "bitnet" and config["model_type"] == "bitnet":
        if packing.get("use_rms_norm") or packing.get("modules_to_not_convert"):
            raise Refused(
                "unsupported_quantization",
                "The ternary layers have norms or exceptions of their own, unknown here.",
                "Convert the original model with unpacked weights.",
            )
        return
    raise Refused(
        "unsupported_quantization",
        f"The weights are already quantized with {method}, which cannot be unpacked here.",
        "Convert the original model that this one was made from.",
    )


def _accept_rope(config: dict[str, Any]) -> None:
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type")
    if kind == "dynamic":
        raise Refused(
            "unsupported_architecture",
            "Its positions are scaled by the length of the text (rope_scaling dynamic), which a"
            " fixed graph cannot do.",
            "Remove rope_scaling from config.json, if the original context length is enough.",
        )
