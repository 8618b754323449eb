"""What a conversion will take, from the headers of the weights: sizes of files, memory, disk.

The tensors of the base follow from those of the source; their types from `mixture`. What the
tokenizer takes in a GGUF file is derived from the sizes of its files. Standard library only.
"""

import re
from collections.abc import Iterable
from math import prod
from typing import Any

import mixture
from container import padded
from mixture import Plan, Tensor
from source import base_type, language_config

# Parts of names in transformers, and llama.cpp's for them; the first that is found counts.
NAMES = {
    r"(embed_tokens|word_embeddings|wte|embed_in|tok_embeddings)$": "token_embd",
    r"(lm_head|embed_out|output_layer)$": "output",
    r"(qkv_proj|W_pack|c_attn|query_key_value|qkv|Wqkv|in_proj_qkv)$": "attn_qkv",
    r"(q_proj|query)$": "attn_q",
    r"(k_proj|key)$": "attn_k",
    r"(v_proj|value)$": "attn_v",
    r"(o_proj|out_proj|attention\.dense|attn\.c_proj|self_attn\.dense|wo)$": "attn_output",
    r"(gate_up_proj|dense_h_to_4h|c_fc|fc1|up_proj|w3)$": "ffn_up",
    r"(gate_proj|w1)$": "ffn_gate",
    r"(down_proj|dense_4h_to_h|mlp\.c_proj|fc2|w2)$": "ffn_down",
    r"(mlp\.gate|block_sparse_moe\.gate|router)$": "ffn_gate_inp",
    r"norm": "attn_norm",
}
EXPERT = re.compile(r"\.experts\.(\d+)\.")
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
# Tensors that the converter leaves out.
DROPPED = re.compile(
    r"rotary_emb|inv_freq|vision|visual|audio|multi_modal|mm_projector|masked_bias"
)
HEADLESS = ("gemma", "pangu", "hunyuan", "deepseek")  # a tied head is not written twice

KEYS = 1_500  # bytes of the keys that are not the tokenizer's
NORMALIZER = 241_000  # bytes of a tokenizer.model that has rules for rewriting a text
MIB = 1 << 20
# Measured: README.md, "Estimates".
SHIM = 14 * MIB  # the process that talks to the hub
CONVERTER = 330 * MIB  # Python with torch and transformers
QUANTIZER = 30 * MIB
RUNTIME = 60 * MIB
COLLECTOR = 70 * MIB


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """`size`, `memory` and `scratch` of one variant, in bytes."""
    text = language_config(config)
    base = base_type(tensors.values())
    written = list(base_tensors(config, tensors, base))
    vocabulary = max((t.shape[0] for t in written if t.name == "token_embd.weight"), default=0)
    keys = KEYS + tokenizer_bytes(files, vocabulary)
    quantized = variant not in ("F32", "F16", "BF16")
    use = mixture.matrix_use(variant, options) if quantized else "no"
    heads = text.get("num_attention_heads") or text.get("n_head") or 1
    layers = text.get("num_hidden_layers") or text.get("n_layer") or 1
    plan = Plan(
        variant,
        layers,
        groups=heads // (text.get("num_key_value_heads") or heads),
        experts=_experts(text),
        architecture=str(text.get("model_type", "")),
        matrix=use != "no",
        embeddings="Q8_0" if quantized and options.get("embedding_q8_0") else "",
        large=layers == 80 and "llama" in str(text.get("model_type", "")),
    )
    size = _file(written, mixture.Mixture(plan, written).types(), keys)
    matrix = _matrix_bytes(written) if use != "no" else 0
    whole = _file(written, {tensor.name: tensor.kind for tensor in written}, keys)
    scratch = (whole if quantized or variant == base else 0) + matrix
    largest = max((prod(tensor.shape) for tensor in written), default=0)
    memory = [CONVERTER + _conversion(written, tensors) + 9 * keys]
    memory += [RUNTIME + _running(variant, size, keys, vocabulary)]
    if quantized:
        # The quantizer has one tensor in float32, and as much again for its new type.
        memory += [QUANTIZER + largest * 8 + 3 * keys]
    if use != "no":
        memory += [COLLECTOR + _collecting(text, vocabulary) + 3 * keys + 3 * matrix]
    return {
        "size": int(size + matrix),
        "memory": int(SHIM + max(memory)),
        "scratch": int(scratch) + 4096,
    }


def base_tensors(
    config: dict[str, Any], tensors: dict[str, dict[str, Any]], base: str
) -> Iterable[Tensor]:
    """The tensors that the converter writes, with llama.cpp's names for what the names decide."""
    model = str(language_config(config).get("model_type", ""))
    packed = "weight_scale" if any(n.endswith("weight_scale") for n in tensors) else ""
    experts: dict[str, tuple[int, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor["shape"])
        if DROPPED.search(name) or (packed and name.endswith("_scale")):
            continue
        if packed and tensor["dtype"] == "U8":
            shape = (shape[0] * 4, *shape[1:])  # four ternary weights in a byte
        new = _name(name)
        tied = language_config(config).get("tie_word_embeddings", True)
        if new == "output.weight" and tied and model.startswith(HEADLESS):
            continue
        if EXPERT.search(name):
            new = new.replace(".weight", "_exps.weight")
            count, _ = experts.get(new, (0, shape))
            experts[new] = (count + 1, shape)
            continue
        kind = base if len(shape) > 1 and "ffn_gate_inp" not in new else "F32"
        yield Tensor(new, shape, kind)
    for new, (count, shape) in experts.items():
        yield Tensor(new, (count, *shape), base)
    yield from _rope(language_config(config))


def _rope(text: dict[str, Any]) -> Iterable[Tensor]:
    """Tables of factors that the converter computes from the configuration."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    heads = text.get("num_attention_heads") or 1
    half = (text.get("head_dim") or (text.get("hidden_size") or 0) // heads) // 2
    if scaling.get("rope_type", scaling.get("type")) == "llama3":
        yield Tensor("rope_freqs.weight", (half,), "F32")
    for which in ("long", "short"):
        if isinstance(factors := scaling.get(f"{which}_factor"), list):
            yield Tensor(f"rope_factors_{which}.weight", (len(factors),), "F32")


def _name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if end not in ("weight", "bias"):
        stem, end = name, "weight"
    part = next((new for old, new in NAMES.items() if re.search(old, stem)), "ffn_norm")
    found = LAYER.search(name)
    if not found:
        return f"output_norm.{end}" if part.endswith("norm") else f"{part}.{end}"
    if part.endswith("norm"):
        # Norms are only counted; their own names keep them apart.
        part = stem.rpartition(".")[2].replace("layernorm", "norm")
        part = part if part.endswith("norm") else f"{part}_norm"
    return f"blk.{found[1]}.{part}.{end}"


def _experts(text: dict[str, Any]) -> int:
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return next((text[name] for name in names if text.get(name)), 0)


def _file(tensors: list[Tensor], types: dict[str, str], keys: int) -> int:
    """The bytes of a GGUF file: keys, one entry a tensor, and the tensors, each aligned."""
    head = keys + sum(24 + len(t.name) + 8 * len(t.shape) for t in tensors)
    return padded(head) + sum(padded(mixture.size(types[t.name], t.shape)) for t in tensors)


def tokenizer_bytes(files: dict[str, int], vocabulary: int) -> int:
    """What the tokenizer and its chat template take among the keys."""
    template = files.get("chat_template.jinja", 0)
    if not template:
        # Then it is inside the configuration, among thousands of special tokens perhaps.
        template = min(files.get("tokenizer_config.json", 0), 6_000)
    if pieces := files.get("tokenizer.model", 0):
        # A piece has 9 bytes around its text there, 15 with it, and 16 around it here: its length,
        # score and type. A larger vocabulary is filled up by the converter: "[PAD123456]".
        if pieces > 30 * vocabulary:
            pieces -= NORMALIZER
        known = min(vocabulary, pieces // 15)
        return template + pieces + 7 * known + 27 * (vocabulary - known)
    if merges := files.get("merges.txt", 0):
        # The text of a token is about as long as a merge, which is two tokens and a space.
        return template + 21 * vocabulary + merges + 7 * vocabulary
    # A token is about 7 letters and has 12 bytes around them, a merge 8 and 8.
    known = int(files.get("tokenizer.json", 0) * 0.9)
    return template + min(39 * vocabulary + 1000, known or 39 * vocabulary)


def _matrix_bytes(tensors: list[Tensor]) -> int:
    """The importance matrix: two tensors for each matrix of a block."""
    total = 200
    for tensor in tensors:
        if len(tensor.shape) < 2 or not tensor.name.startswith("blk."):
            continue
        matrices = prod(tensor.shape[:-2])
        total += 2 * (len(tensor.name) + 24) + 14 + (24 if matrices == 1 else 32)
        total += padded(4 * matrices * tensor.shape[-1]) + padded(4 * matrices)
    return total


def _conversion(written: list[Tensor], tensors: dict[str, dict[str, Any]]) -> int:
    """The converter's tensors: it reads, casts and writes one at a time."""
    packed = any(tensor["dtype"] in ("U8", "I32", "F8_E4M3") for tensor in tensors.values())
    largest = max((prod(tensor.shape) for tensor in written), default=0)
    return largest * (16 if packed else 8)


def _running(file_type: str, size: int, keys: int, vocabulary: int) -> int:
    """What the runtime has beside the mapped file: repacked weights, vocabulary, results."""
    # llama.cpp lays some types out anew for the processor, in memory of its own.
    repacked = file_type.startswith(("Q4", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "Q2_K"))
    return (size if repacked else 0) + 8 * keys + 16 * vocabulary


def _collecting(text: dict[str, Any], vocabulary: int) -> float:
    """What computing the importance matrix takes beside the mapped base."""
    wide = text.get("hidden_size") or 1
    inner = text.get("intermediate_size") or 4 * wide
    heads = text.get("num_attention_heads") or 1
    return 4 * 128 * (2 * vocabulary + 6 * wide + 4 * inner + 512 * heads)
