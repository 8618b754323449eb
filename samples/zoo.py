"""Tiny random models of the real architectures, from their published configurations.

    python samples/zoo.py NAME FOLDER

Every key of a published config.json that decides how the model computes is there with its real
value; only width, depth, heads and vocabulary are shrunk. Tensors have the names of the published
checkpoints. The tokenizer is the sample model's, whose 2048 pieces every one of them takes.

The same arguments write the same bytes everywhere: the weights are made from the raw output of a
generator that numpy promises never to change. They are BF16 values in every dtype, so that a
reference in float32 computes with exactly what was stored. Numpy and the standard library only.
"""

import json
import math
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = Path(__file__).parent / "slmhub" / "stdlib-llama-3m"
PIECES = 2048
SPECIAL = 259
"""The first pieces: unknown, begin, end, and the 256 bytes. No model of the zoo says them."""
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
TOKENIZERS = {"json": ["tokenizer.json"], "model": ["tokenizer.model"]}
TOKENIZERS["both"] = TOKENIZERS["json"] + TOKENIZERS["model"]
ALWAYS = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]

Config = dict[str, Any]
Stored = tuple[tuple[int, ...], str, bytes]
"""Shape, type and bytes of a tensor in a file."""


@dataclass(frozen=True)
class Model:
    """A published model, and what its weights have to be like for it to say something.

    `head` is the size of a head; `heads` and `groups` (of keys and values) follow from the width
    unless they are given. `seed` is one of those whose greedy choices are clear. `gain` is how much
    a projection enlarges what it gets, by its name; `norm` is what the weights of a norm lie
    around. `stored_head`: the published checkpoint stores lm_head.weight.
    """

    published: str
    config: Config
    stored_head: bool
    head: int = 64
    heads: int | None = None
    groups: int | None = None
    layers: int = 4
    padding: int = 0
    embedding: float = 0.2
    seed: int = 0
    gain: dict[str, float] = field(default_factory=dict)
    norm: dict[str, float] = field(default_factory=dict)


def _llama(**keys: Any) -> Config:
    """The keys that the configurations of Llama and its heirs share."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    } | keys


PHI_35_SHORT = [1.0, 1.02, 1.03, 1.03, 1.05, 1.05, 1.05, 1.05, 1.05, 1.07, 1.1, 1.11, 1.16, 1.16]
PHI_35_SHORT += [1.17, 1.29, 1.34, 1.68, 1.79, 1.82, 1.85, 1.88, 1.91, 1.94, 1.99, *[2.02] * 6]
PHI_35_SHORT += [*[2.03] * 9, 2.08, 2.09, 2.19, 2.22, 2.59, 2.73, 2.75, 2.84]
PHI_35_LONG = [1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09]
PHI_35_LONG += [12.2, 17.67, 24.46, 28.57, 30.42, 30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45]
PHI_35_LONG += [57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14, 63.77, 63.93, 63.96]
PHI_35_LONG += [63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84]
PHI_4_LONG = [1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817]
PHI_4_LONG += [2.187582649, 2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687]
PHI_4_LONG += [4.279200023, 4.785517845, 5.351743533, 5.984965424, 6.693110555, 7.485043894]
PHI_4_LONG += [8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252]
PHI_4_LONG += [16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884]
PHI_4_LONG += [32.03, 32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97]
PHI_4_LONG += [33.28, 33.49, 33.5, 44.16, 47.77]
PHI_CODE = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}
BITNET_CODE = {
    "AutoConfig": "configuration_bitnet.BitNetConfig",
    "AutoModelForCausalLM": "modeling_bitnet.BitNetForCausalLM",
}

MODELS: dict[str, Model] = {
    "llama-2-7b": Model(
        "meta-llama/Llama-2-7b-hf",
        # It has no rope_theta: the default is meant.
        _llama(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            pretraining_tp=1,
            rope_scaling=None,
            tie_word_embeddings=False,
            torch_dtype="float16",
        ),
        stored_head=True,
        seed=28,
    ),
    "llama-3-8b": Model(
        "meta-llama/Meta-Llama-3-8B-Instruct",
        _llama(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=8192,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=128000,
            eos_token_id=128009,
            pretraining_tp=1,
            rope_scaling=None,
            rope_theta=500000.0,
            tie_word_embeddings=False,
        ),
        stored_head=True,
        seed=10,
    ),
    "llama-3.2-1b": Model(
        "meta-llama/Llama-3.2-1B-Instruct",
        _llama(
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
            max_position_embeddings=131072,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=128000,
            eos_token_id=[128001, 128008, 128009],
            mlp_bias=False,
            pretraining_tp=1,
            rope_scaling={
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            rope_theta=500000.0,
            tie_word_embeddings=True,
        ),
        stored_head=False,
        seed=20,
    ),
    "smollm2-135m": Model(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        _llama(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            initializer_range=0.041666666666666664,
            is_llama_config=True,
            mlp_bias=False,
            pretraining_tp=1,
            rope_interleaved=False,
            rope_scaling=None,
            rope_theta=100000,
            tie_word_embeddings=True,
        ),
        stored_head=False,
        seed=21,
    ),
    "smollm3-3b": Model(
        "HuggingFaceTB/SmolLM3-3B",
        _llama(
            architectures=["SmolLM3ForCausalLM"],
            model_type="smollm3",
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=11008,
            num_hidden_layers=36,
            num_attention_heads=16,
            num_key_value_heads=4,
            max_position_embeddings=65536,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=128000,
            eos_token_id=128012,
            pad_token_id=128004,
            layer_types=["full_attention"] * 36,
            max_window_layers=28,
            mlp_bias=False,
            no_rope_layer_interval=4,
            no_rope_layers=[1, 1, 1, 0] * 9,
            pretraining_tp=2,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            rope_theta=5000000.0,
            sliding_window=None,
            tie_word_embeddings=True,
            use_cache=False,
            use_sliding_window=False,
        ),
        stored_head=False,
        seed=19,
    ),
    "qwen2.5-0.5b": Model(
        "Qwen/Qwen2.5-0.5B-Instruct",
        _llama(
            architectures=["Qwen2ForCausalLM"],
            model_type="qwen2",
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            attention_dropout=0.0,
            bos_token_id=151643,
            eos_token_id=151645,
            max_window_layers=21,
            rms_norm_eps=1e-06,
            rope_theta=1000000.0,
            sliding_window=32768,
            tie_word_embeddings=True,
            use_sliding_window=False,
        ),
        stored_head=False,
        seed=33,
        padding=64,
    ),
    "qwen3-0.6b": Model(
        "Qwen/Qwen3-0.6B",
        _llama(
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            vocab_size=151936,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=40960,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=151643,
            eos_token_id=151645,
            max_window_layers=28,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            rope_theta=1000000,
            sliding_window=None,
            tie_word_embeddings=True,
            use_sliding_window=False,
        ),
        stored_head=True,
        seed=6,
        head=128,
        padding=64,
        norm={"q_norm": 1.5, "k_norm": 1.5},
    ),
    "gemma-3-1b": Model(
        "google/gemma-3-1b-it",
        {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 32768,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_logit_softcapping": None,
            "bos_token_id": 2,
            "cache_implementation": "hybrid",
            "eos_token_id": [1, 106],
            "final_logit_softcapping": None,
            "hidden_activation": "gelu_pytorch_tanh",
            "initializer_range": 0.02,
            "pad_token_id": 0,
            "query_pre_attn_scalar": 256,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        },
        stored_head=False,
        seed=22,
        head=256,
        heads=4,
        groups=1,
        layers=6,  # five local ones to one global
        embedding=0.008,
        # Its norms scale by one plus the weight.
        norm={"norm": 15.0, "q_norm": 0.5, "k_norm": 0.5, "": 0.0},
    ),
    "phi-3.5-mini": Model(
        "microsoft/Phi-3.5-mini-instruct",
        _llama(
            architectures=["Phi3ForCausalLM"],
            model_type="phi3",
            auto_map=PHI_CODE,
            vocab_size=32064,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=1,
            embd_pdrop=0.0,
            eos_token_id=32000,
            pad_token_id=32000,
            resid_pdrop=0.0,
            rope_scaling={
                "long_factor": PHI_35_LONG,
                "short_factor": PHI_35_SHORT,
                "type": "longrope",
            },
            rope_theta=10000.0,
            sliding_window=262144,
            tie_word_embeddings=False,
        ),
        stored_head=True,
        seed=20,
        padding=64,
    ),
    "phi-4-mini": Model(
        "microsoft/Phi-4-mini-instruct",
        _llama(
            architectures=["Phi3ForCausalLM"],
            model_type="phi3",
            auto_map=PHI_CODE | {"AutoTokenizer": "Xenova/gpt-4o"},
            vocab_size=200064,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=32,
            num_attention_heads=24,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=199999,
            embd_pdrop=0.0,
            eos_token_id=199999,
            full_attn_mod=1,
            interpolate_factor=1,
            lm_head_bias=False,
            mlp_bias=False,
            pad_token_id=199999,
            partial_rotary_factor=0.75,
            resid_pdrop=0.0,
            rope_scaling={
                "long_factor": PHI_4_LONG,
                "short_factor": [1.0] * 48,
                "type": "longrope",
            },
            rope_theta=10000.0,
            sliding_window=262144,
            tie_word_embeddings=True,
        ),
        stored_head=False,
        seed=35,
        padding=64,
    ),
    "mistral-7b": Model(
        "mistralai/Mistral-7B-Instruct-v0.3",
        _llama(
            architectures=["MistralForCausalLM"],
            model_type="mistral",
            vocab_size=32768,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            attention_dropout=0.0,
            bos_token_id=1,
            eos_token_id=2,
            rope_theta=1000000.0,
            sliding_window=None,
            tie_word_embeddings=False,
        ),
        stored_head=True,
        seed=27,
    ),
    "granite-3.3-2b": Model(
        "ibm-granite/granite-3.3-2b-instruct",
        _llama(
            architectures=["GraniteForCausalLM"],
            model_type="granite",
            vocab_size=49159,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=40,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            attention_bias=False,
            attention_dropout=0.0,
            attention_multiplier=0.015625,
            bos_token_id=0,
            embedding_multiplier=12.0,
            eos_token_id=0,
            logits_scaling=8.0,
            mlp_bias=False,
            pad_token_id=0,
            residual_multiplier=0.22,
            rope_scaling=None,
            rope_theta=10000000.0,
            tie_word_embeddings=True,
        ),
        stored_head=False,
        seed=32,
        embedding=0.0167,
        # What its multipliers make small is made large here, as training would.
        gain={"q_proj": 4.0, "k_proj": 4.0, "o_proj": 6.0, "down_proj": 6.0},
        norm={"norm": 8.0},
    ),
    "olmo-2-1b": Model(
        "allenai/OLMo-2-0425-1B-Instruct",
        _llama(
            architectures=["Olmo2ForCausalLM"],
            model_type="olmo2",
            vocab_size=100352,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=16,
            num_key_value_heads=16,
            max_position_embeddings=4096,
            attention_bias=False,
            attention_dropout=0.0,
            eos_token_id=100257,
            pad_token_id=100277,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            rope_theta=500000,
            tie_word_embeddings=False,
        ),
        stored_head=True,
        seed=2,
        norm={"q_norm": 1.5, "k_norm": 1.5},
    ),
    "bitnet-b1.58-2b": Model(
        "microsoft/bitnet-b1.58-2B-4T",
        _llama(
            architectures=["BitNetForCausalLM"],
            model_type="bitnet",
            auto_map=BITNET_CODE,
            vocab_size=128256,
            hidden_size=2560,
            intermediate_size=6912,
            num_hidden_layers=30,
            num_attention_heads=20,
            num_key_value_heads=5,
            max_position_embeddings=4096,
            bos_token_id=128000,
            eos_token_id=128001,
            hidden_act="relu2",
            quantization_config={
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
            },
            rope_theta=500000.0,
            tie_word_embeddings=True,
        ),
        stored_head=False,
        seed=1,
    ),
}


def config(name: str, *, width: int = 256, layers: int | None = None) -> Config:
    """The configuration of a model of the zoo, shrunk."""
    model = MODELS[name]
    layers = layers or model.layers
    heads = model.heads or max(2, width // 64)
    many = model.config["num_key_value_heads"] == model.config["num_attention_heads"]
    shrunk = model.config | {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": model.groups or (heads if many else heads // 2),
        "vocab_size": PIECES + model.padding,
    }
    for key in ("no_rope_layers", "layer_types"):
        if key in shrunk:
            shrunk[key] = shrunk[key][:layers]
    if (shrunk.get("rope_scaling") or {}).get("type") == "longrope":
        turned = int(model.head * shrunk.get("partial_rotary_factor", 1.0)) // 2
        factors = dict(shrunk["rope_scaling"])
        for key in ("long_factor", "short_factor"):
            # Spread over the whole list, whose two ends differ most.
            last = len(factors[key]) - 1
            picks = [round(index * last / (turned - 1)) for index in range(turned)]
            factors[key] = [factors[key][pick] for pick in picks]
        shrunk["rope_scaling"] = factors
    return shrunk | _token_ids(model.config)


def _token_ids(published: Config) -> Config:
    """The special tokens by the numbers of the sample's tokenizer, in the form as published."""
    ids: Config = {}
    if "bos_token_id" in published:
        ids["bos_token_id"] = 1
    end = published["eos_token_id"]
    ids["eos_token_id"] = [2, 0] if isinstance(end, list) else 2
    if "pad_token_id" in published:
        ids["pad_token_id"] = 2 if published["pad_token_id"] == end else 0
    return ids


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: its name, shape and kind, and what its values are like."""

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: float = 1.0
    centre: float = 0.0


def tensors(name: str, shrunk: Config, *, stored_head: bool) -> Iterator[Tensor]:
    """Every tensor of a model, in the order of its file."""
    model = MODELS[name]
    wide, rows = shrunk["hidden_size"], shrunk["vocab_size"]
    yield Tensor("model.embed_tokens.weight", (rows, wide), "tokens", model.embedding)
    for number in range(shrunk["num_hidden_layers"]):
        for tensor in _layer(model, shrunk):
            yield Tensor(f"model.layers.{number}.{tensor.name}", *_rest(tensor))
    yield _norm(model, "model.norm", wide)
    if stored_head:
        yield Tensor("lm_head.weight", (rows, wide), "tokens", model.embedding)


def _rest(tensor: Tensor) -> tuple[tuple[int, ...], str, float, float]:
    return tensor.shape, tensor.kind, tensor.scale, tensor.centre


def _layer(model: Model, shrunk: Config) -> Iterator[Tensor]:
    """The tensors of one layer, in the order of their names."""
    kind = shrunk["model_type"]
    wide, inner = shrunk["hidden_size"], shrunk["intermediate_size"]
    queries = shrunk["num_attention_heads"] * model.head
    keys = shrunk["num_key_value_heads"] * model.head
    if kind != "olmo2":
        yield _norm(model, "input_layernorm", wide)
    if kind == "phi3":
        projections = {
            "mlp.down_proj": (wide, inner),
            "mlp.gate_up_proj": (2 * inner, wide),
            "self_attn.o_proj": (wide, queries),
            "self_attn.qkv_proj": (queries + 2 * keys, wide),
        }
    else:
        projections = {
            "mlp.down_proj": (wide, inner),
            "mlp.gate_proj": (inner, wide),
            "mlp.up_proj": (inner, wide),
            "self_attn.k_proj": (keys, wide),
            "self_attn.o_proj": (wide, queries),
            "self_attn.q_proj": (queries, wide),
            "self_attn.v_proj": (keys, wide),
        }
    for projection, shape in projections.items():
        gain = model.gain.get(projection.partition(".")[2], 1.5)
        if kind == "bitnet":
            yield from _packed(projection, shape, gain)
        else:
            yield Tensor(f"{projection}.weight", shape, "weights", gain / math.sqrt(shape[1]))
        if kind == "qwen2" and projection[-6] in "qkv":
            yield Tensor(f"{projection}.bias", shape[:1], "weights", 0.5)
    if kind == "bitnet":
        yield _norm(model, "mlp.ffn_sub_norm", inner)
        yield _norm(model, "self_attn.attn_sub_norm", wide)
    yield _norm(model, "post_attention_layernorm", wide)
    if kind in ("gemma3_text", "olmo2"):
        yield _norm(model, "post_feedforward_layernorm", wide)
    if kind == "gemma3_text":
        yield _norm(model, "pre_feedforward_layernorm", wide)
    if kind in ("qwen3", "gemma3_text"):
        yield _norm(model, "self_attn.k_norm", model.head)
        yield _norm(model, "self_attn.q_norm", model.head)
    if kind == "olmo2":
        # Over the whole projection, not head by head.
        yield _norm(model, "self_attn.k_norm", keys)
        yield _norm(model, "self_attn.q_norm", queries)
    if model.published.startswith("meta-llama/Llama-2"):
        # A table that older checkpoints carry and every tool has to pass over.
        yield Tensor("self_attn.rotary_emb.inv_freq", (model.head // 2,), "frequencies")


def _norm(model: Model, name: str, size: int) -> Tensor:
    centre = model.norm.get(name.rpartition(".")[2], model.norm.get("", 1.0))
    return Tensor(f"{name}.weight", (size,), "weights", 0.1, centre)


def _packed(projection: str, shape: tuple[int, int], gain: float) -> Iterator[Tensor]:
    """A ternary matrix, four weights in a byte, and the number that all of them are times."""
    yield Tensor(f"{projection}.weight", (shape[0] // 4, shape[1]), "ternary")
    # Two in three of the weights are not zero.
    value = gain / math.sqrt(shape[1] * 2 / 3)
    yield Tensor(f"{projection}.weight_scale", (1,), "weights", 0.0, value)


def values(tensor: Tensor, seed: int) -> np.ndarray:
    """The values of a tensor: bytes of packed weights, else float32 that BF16 holds exactly."""
    count = math.prod(tensor.shape)
    if tensor.kind == "frequencies":
        size = 2 * tensor.shape[0]
        return _rounded(10000.0 ** -(np.arange(0, size, 2, dtype=np.float64) / size))
    raw = np.random.PCG64(zlib.crc32(tensor.name.encode()) + (seed << 32)).random_raw(count)
    if tensor.kind == "ternary":
        digits = (raw[:, None] >> np.uint64(8) * np.arange(4, dtype=np.uint64)) & np.uint64(255)
        powers = np.uint64(4) ** np.arange(4, dtype=np.uint64)
        return ((digits % 3) * powers).sum(1).astype(np.uint8).reshape(tensor.shape)
    # The sum of four even distributions is close to the bell that trained weights have.
    bell = raw.view(np.uint16).reshape(count, 4).sum(1, dtype=np.int64) - 2 * 65535
    bell = bell / (65536 / math.sqrt(3)) * tensor.scale + tensor.centre
    if tensor.kind == "tokens":
        rows = bell.reshape(tensor.shape)
        # Tokens of unequal weight: the most likely one then stands out, and rounding in a half
        # precision seldom puts another in its place.
        rows *= 2.0 ** (rows[:, :1] / (2.5 * tensor.scale))
        rows[:SPECIAL] *= 0.02  # so small that they are never the most likely
        rows[PIECES:] *= 0.02
    return _rounded(bell).reshape(tensor.shape)


def _rounded(numbers: np.ndarray) -> np.ndarray:
    """The nearest float32 that is a BF16 and an F16 as well: neither cast changes it."""
    bits = numbers.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    rounded: np.ndarray = bits.view(np.float32)
    rounded[np.abs(rounded) < 2.0**-14] = 0
    return rounded


def _stored(array: np.ndarray, dtype: str) -> tuple[str, bytes]:
    """The type and the bytes of an array in a safetensors file."""
    if array.dtype == np.uint8:
        return "U8", array.tobytes()
    if dtype == "BF16":
        return dtype, (array.view(np.uint32) >> 16).astype("<u2").tobytes()
    return dtype, array.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def write(
    name: str,
    folder: Path,
    *,
    dtype: str = "BF16",
    width: int = 256,
    layers: int | None = None,
    tokenizer: str = "both",
    stored_head: bool | None = None,
    shards: int = 1,
    seed: int | None = None,
) -> Path:
    """Write the repo of a model into `folder` and return it.

    `width` is a multiple of 128. `layers` are as many as show all kinds that the model has, if not
    given. `tokenizer` says which of tokenizer.json and tokenizer.model are there. `stored_head`:
    whether lm_head.weight is; as published if None, and only a tied one can be left out. `seed`
    decides the weights; if None it is one of those whose greedy choices are clear.
    """
    shrunk = config(name, width=width, layers=layers) | {"torch_dtype": DTYPES[dtype]}
    stored = MODELS[name].stored_head if stored_head is None else stored_head
    tied = shrunk.get("tie_word_embeddings", True)
    if not stored and not tied:
        raise ValueError(f"the embeddings of {name} are not tied: its head has to be stored")
    folder.mkdir(parents=True, exist_ok=True)
    _json(folder / "config.json", dict(sorted(shrunk.items())))
    ids = {key: shrunk[key] for key in sorted(shrunk) if key.endswith("_token_id")}
    _json(folder / "generation_config.json", ids)
    for file in ALWAYS + TOKENIZERS[tokenizer]:
        shutil.copyfile(SAMPLE / file, folder / file)
    card = "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n"
    card += f"Random weights in the architecture of {MODELS[name].published}, shrunk.\n"
    (folder / "README.md").write_text(card, "utf-8")
    number = MODELS[name].seed if seed is None else seed
    arrays: dict[str, Stored] = {}
    for tensor in tensors(name, shrunk, stored_head=stored):
        if tensor.name == "lm_head.weight" and tied:
            arrays[tensor.name] = arrays["model.embed_tokens.weight"]
        else:
            arrays[tensor.name] = (tensor.shape, *_stored(values(tensor, number), dtype))
    _write_shards(folder, arrays, shards)
    return folder


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _write_shards(folder: Path, arrays: dict[str, Stored], shards: int) -> None:
    if shards == 1:
        _safetensors(folder / "model.safetensors", arrays)
        return
    names = list(arrays)
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        _safetensors(folder / file, {name: arrays[name] for name in part})
        places |= dict.fromkeys(part, file)
    total = sum(len(content) for _, _, content in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    _json(folder / "model.safetensors.index.json", index)


def _safetensors(path: Path, arrays: dict[str, Stored]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, dtype, content) in arrays.items():
        places = [offset, offset := offset + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": places}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, content in arrays.values():
            file.write(content)


QUANTIZED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "mxfp4": {"quant_method": "mxfp4"},
}


def _changed(**keys: Any) -> Callable[[Path], None]:
    """A change of keys in config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        _json(path, json.loads(path.read_bytes()) | keys)

    return change


def _drop(*patterns: str) -> Callable[[Path], None]:
    """The removal of files."""

    def drop(folder: Path) -> None:
        for path in [path for pattern in patterns for path in folder.glob(pattern)]:
            path.unlink()

    return drop


BAD: dict[str, Callable[[Path], None]] = {
    "shard missing": _drop("model-00002-of-*"),
    "no tokenizer": _drop("tokenizer.*"),
    "encoder only": _changed(architectures=["BertModel"], model_type="bert"),
    "encoder and decoder": _changed(
        architectures=["T5ForConditionalGeneration"], model_type="t5", is_encoder_decoder=True
    ),
    "unknown architecture": _changed(architectures=["NovelForCausalLM"], model_type="novel"),
    "custom code": _changed(
        architectures=["NovelForCausalLM"],
        model_type="novel",
        auto_map={
            "AutoConfig": "configuration_novel.NovelConfig",
            "AutoModelForCausalLM": "modeling_novel.NovelForCausalLM",
        },
    ),
    **{method: _changed(quantization_config=settings) for method, settings in QUANTIZED.items()},
}
"""What is wrong with a bad input, and how a good one becomes such."""


def write_bad(what: str, folder: Path) -> Path:
    """Write a repo that has to be refused into `folder` and return it; `what` is a key of BAD."""
    write("llama-3.2-1b", folder, width=128, layers=1, shards=2 if what == "shard missing" else 1)
    BAD[what](folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        sys.exit(f"usage: python samples/zoo.py NAME FOLDER\nnames: {', '.join(MODELS)}")
    print(write(sys.argv[1], Path(sys.argv[2])))
