"""Which models can be converted, told from config.json and the names of the files alone."""

import re
from typing import Any

# Architectures whose exports were seen to compute what transformers does, each with the model_type
# that belongs to it. A test holds the list against what optimum-intel and transformers know.
KNOWN = {
    "ArceeForCausalLM": "arcee",
    "BioGptForCausalLM": "biogpt",
    "BitNetForCausalLM": "bitnet",
    "BloomForCausalLM": "bloom",
    "CohereForCausalLM": "cohere",
    "Exaone4ForCausalLM": "exaone4",
    "FalconForCausalLM": "falcon",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "GemmaForCausalLM": "gemma",
    "Glm4ForCausalLM": "glm4",
    "GlmForCausalLM": "glm",
    "GPT2LMHeadModel": "gpt2",
    "GPTBigCodeForCausalLM": "gpt_bigcode",
    "GPTJForCausalLM": "gptj",
    "GPTNeoForCausalLM": "gpt_neo",
    "GPTNeoXForCausalLM": "gpt_neox",
    "GraniteForCausalLM": "granite",
    "HeliumForCausalLM": "helium",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MptForCausalLM": "mpt",
    "NemotronForCausalLM": "nemotron",
    "Olmo2ForCausalLM": "olmo2",
    "OlmoForCausalLM": "olmo",
    "OPTForCausalLM": "opt",
    "PersimmonForCausalLM": "persimmon",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
    "StableLmForCausalLM": "stablelm",
    "Starcoder2ForCausalLM": "starcoder2",
}
# Other spellings of the same: what published checkpoints of BitNet call it.
SPELLINGS = {"BitnetForCausalLM": "BitNetForCausalLM"}


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
    _accept_architecture(str(names[0]), config)
    _accept_quantization(config)
    if not any(file.endswith(".safetensors") and "/" not in file for file in files):
        raise Refused(
            "missing_weights",
            "The model has no safetensors file at its top.",
            "Mirror a repo that has its weights as safetensors.",
        )
    pair = "vocab.json" in files and "merges.txt" in files
    if "tokenizer.json" not in files and "tokenizer.model" not in files and not pair:
        raise Refused(
            "missing_tokenizer",
            "The model has no tokenizer that can be read: none of tokenizer.json, tokenizer.model"
            " and vocab.json with merges.txt is there.",
            "Add the tokenizer files of the model that it was trained from.",
        )


def _accept_architecture(name: str, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    name = SPELLINGS.get(name, name)
    if name in KNOWN:
        if KNOWN[name] == kind:
            return
        raise Refused(
            "unsupported_architecture",
            f"config.json names {name} with the model_type {kind} instead of {KNOWN[name]}.",
            "Correct model_type in config.json.",
        )
    if "text_config" in config or "vision_config" in config:
        why = "reads more than text, and only text models are exported here"
    elif config.get("is_encoder_decoder") or not re.search(r"CausalLM|LMHead", name):
        why = "is no decoder that only continues text, and nothing else is exported here"
    elif re.search(r"Moe|MoE|Mixtral|Dbrx", name) or config.get("num_local_experts"):
        why = "is a mixture of experts, which this plugin was not seen to convert rightly"
    elif "auto_map" in config:
        why = "needs code that comes with the model, which is never run"
    else:
        why = "is not one that the exporter was seen to convert rightly"
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
    if method != "bitnet" or config["model_type"] != "bitnet":
        raise Refused(
            "unsupported_quantization",
            f"The weights are already quantized with {method}, which cannot be unpacked here.",
            "Convert the original model that this one was made from.",
        )
    if packing.get("use_rms_norm") or packing.get("modules_to_not_convert"):
        raise Refused(
            "unsupported_quantization",
            "The ternary layers have norms or exceptions of their own, which are not known here.",
            "Convert the original model with unpacked weights.",
        )
