"""A model of Qwen3-0.6B's shape with random weights, as a Hugging Face repo would have it.

The tensors have the real names, sizes and type (BF16, 596,049,920 parameters, 1.19 GB); the
tokenizer is the sample's: the real one is not ours to ship. Fewer `layers` make a quick look.
"""

import json
import shutil
import struct
from pathlib import Path

import numpy as np

from hub.sample import sample_folder

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": True,
}
TOKENIZER = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def tensors(layers: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor."""
    width, inner, heads, groups, head = 1024, 3072, 16, 8, 128
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (CONFIG["vocab_size"], width)}  # type: ignore[dict-item]
    for number in range(layers):
        prefix = f"model.layers.{number}"
        found |= {
            f"{prefix}.input_layernorm.weight": (width,),
            f"{prefix}.mlp.down_proj.weight": (width, inner),
            f"{prefix}.mlp.gate_proj.weight": (inner, width),
            f"{prefix}.mlp.up_proj.weight": (inner, width),
            f"{prefix}.post_attention_layernorm.weight": (width,),
            f"{prefix}.self_attn.k_norm.weight": (head,),
            f"{prefix}.self_attn.k_proj.weight": (groups * head, width),
            f"{prefix}.self_attn.o_proj.weight": (width, heads * head),
            f"{prefix}.self_attn.q_norm.weight": (head,),
            f"{prefix}.self_attn.q_proj.weight": (heads * head, width),
            f"{prefix}.self_attn.v_proj.weight": (groups * head, width),
        }
    return found | {"model.norm.weight": (width,)}


def write(folder: Path, *, seed: int = 0, layers: int = 28) -> Path:
    """Write the repo into `folder` and return it. The seed decides every weight."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"num_hidden_layers": layers}, indent=2)
    )
    for name in TOKENIZER:
        shutil.copy(sample_folder() / name, folder / name)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n"
        f"Random weights, seed {seed}.\n"
    )
    shapes = tensors(layers)
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            weights = random.standard_normal(shape, dtype=np.float32)
            weights *= np.float32(0.02)
            if len(shape) == 1:
                weights += np.float32(1)  # norms scale, they do not mix
            # BF16 is the upper half of a float32.
            file.write((weights.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return folder
