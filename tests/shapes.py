"""The tensors of real models, by name, element type and shape: what their headers say."""

from collections.abc import Iterator
from math import prod

from hub.safetensors import BITS, Header, Tensor

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def header(shapes: Shapes) -> Header:
    """A header with these tensors one after another."""
    tensors, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = prod(shape) * BITS[dtype] // 8
        tensors[name] = Tensor(dtype, shape, end, end + size)
        end += size
    return Header(tensors, {}, end)


def attention(
    prefix: str, hidden: int, heads: int, pairs: int, width: int, *, bias: bool = False
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part, rows in (("q", heads), ("k", pairs), ("v", pairs)):
        yield f"{prefix}.{part}_proj.weight", (rows * width, hidden)
        if bias:
            yield f"{prefix}.{part}_proj.bias", (rows * width,)
    yield f"{prefix}.o_proj.weight", (hidden, heads * width)


def gated(prefix: str, hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.gate_proj.weight", (inner, hidden)
    yield f"{prefix}.up_proj.weight", (inner, hidden)
    yield f"{prefix}.down_proj.weight", (hidden, inner)


def norms(prefix: str, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.input_layernorm.weight", (hidden,)
    yield f"{prefix}.post_attention_layernorm.weight", (hidden,)


def _all(shapes: Iterator[tuple[str, tuple[int, ...]]], dtype: str = "BF16") -> Shapes:
    return {name: (dtype, shape) for name, shape in shapes}


def qwen3_06b(*, head_stored: bool) -> Shapes:
    """Qwen/Qwen3-0.6B: 596,049,920 parameters; its file stores the tied head a second time."""

    def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
        if head_stored:
            yield "lm_head.weight", (151936, 1024)
        yield "model.embed_tokens.weight", (151936, 1024)
        yield "model.norm.weight", (1024,)
        for layer in range(28):
            prefix = f"model.layers.{layer}"
            yield from attention(f"{prefix}.self_attn", 1024, 16, 8, 128)
            yield f"{prefix}.self_attn.q_norm.weight", (128,)
            yield f"{prefix}.self_attn.k_norm.weight", (128,)
            yield from gated(f"{prefix}.mlp", 1024, 3072)
            yield from norms(prefix, 1024)

    return _all(tensors())


def bitnet_2b() -> Shapes:
    """microsoft/bitnet-b1.58-2B-4T, packed: 2,412,820,480 parameters."""
    found: Shapes = {
        "model.embed_tokens.weight": ("BF16", (128256, 2560)),
        "model.norm.weight": ("BF16", (2560,)),
    }
    for layer in range(30):
        prefix = f"model.layers.{layer}"
        linear = [
            *attention(f"{prefix}.self_attn", 2560, 20, 5, 128),
            *gated(f"{prefix}.mlp", 2560, 6912),
        ]
        for name, (rows, columns) in linear:
            found[name] = ("U8", (rows // 4, columns))
            found[f"{name}_scale"] = ("BF16", (1,))
        found |= _all(norms(prefix, 2560))
        found[f"{prefix}.self_attn.attn_sub_norm.weight"] = ("BF16", (2560,))
        found[f"{prefix}.mlp.ffn_sub_norm.weight"] = ("BF16", (6912,))
    return found


def mixtral_8x7b() -> Shapes:
    """mistralai/Mixtral-8x7B-v0.1: 46,702,792,704 parameters."""

    def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (32000, 4096)
        yield "lm_head.weight", (32000, 4096)
        yield "model.norm.weight", (4096,)
        for layer in range(32):
            prefix = f"model.layers.{layer}"
            yield from attention(f"{prefix}.self_attn", 4096, 32, 8, 128)
            yield f"{prefix}.block_sparse_moe.gate.weight", (8, 4096)
            for expert in range(8):
                experts = f"{prefix}.block_sparse_moe.experts.{expert}"
                yield f"{experts}.w1.weight", (14336, 4096)
                yield f"{experts}.w2.weight", (4096, 14336)
                yield f"{experts}.w3.weight", (14336, 4096)
            yield from norms(prefix, 4096)

    return _all(tensors())


def qwen15_moe() -> Shapes:
    """Qwen/Qwen1.5-MoE-A2.7B: 14,315,784,192 parameters, with a shared expert."""

    def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (151936, 2048)
        yield "lm_head.weight", (151936, 2048)
        yield "model.norm.weight", (2048,)
        for layer in range(24):
            prefix = f"model.layers.{layer}"
            yield from attention(f"{prefix}.self_attn", 2048, 16, 16, 128, bias=True)
            yield f"{prefix}.mlp.gate.weight", (60, 2048)
            for expert in range(60):
                yield from gated(f"{prefix}.mlp.experts.{expert}", 2048, 1408)
            yield from gated(f"{prefix}.mlp.shared_expert", 2048, 5632)
            yield f"{prefix}.mlp.shared_expert_gate.weight", (1, 2048)
            yield from norms(prefix, 2048)

    return _all(tensors())


def olmoe() -> Shapes:
    """allenai/OLMoE-1B-7B-0924: 6,919,161,856 parameters."""

    def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (50304, 2048)
        yield "lm_head.weight", (50304, 2048)
        yield "model.norm.weight", (2048,)
        for layer in range(16):
            prefix = f"model.layers.{layer}"
            yield from attention(f"{prefix}.self_attn", 2048, 16, 16, 128)
            yield f"{prefix}.self_attn.q_norm.weight", (2048,)
            yield f"{prefix}.self_attn.k_norm.weight", (2048,)
            yield f"{prefix}.mlp.gate.weight", (64, 2048)
            for expert in range(64):
                yield from gated(f"{prefix}.mlp.experts.{expert}", 2048, 1024)
            yield from norms(prefix, 2048)

    return _all(tensors())


def granite_moe_1b() -> Shapes:
    """ibm-granite/granite-3.0-1b-a400m-base: 1,334,628,352 parameters, experts in one tensor."""

    def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (49155, 1024)
        yield "model.norm.weight", (1024,)
        for layer in range(24):
            prefix = f"model.layers.{layer}"
            yield from attention(f"{prefix}.self_attn", 1024, 16, 8, 64)
            yield f"{prefix}.block_sparse_moe.input_linear.weight", (32, 1024, 1024)
            yield f"{prefix}.block_sparse_moe.output_linear.weight", (32, 1024, 512)
            yield f"{prefix}.block_sparse_moe.router.layer.weight", (32, 1024)
            yield from norms(prefix, 1024)

    return _all(tensors())


def packed(shapes: Shapes, method: str, bits: int) -> Shapes:
    """The same model with its linear layers packed as GPTQ, AWQ, MLX, NF4 or MXFP4 store them."""
    found: Shapes = {}
    for name, (dtype, shape) in shapes.items():
        stem = name.removesuffix(".weight")
        if not stem.endswith("_proj"):
            found[name] = (dtype, shape)
            continue
        rows, columns = shape
        groups, words = columns // 64, 32 // bits
        if method == "gptq":
            found[f"{stem}.qweight"] = ("I32", (columns // words, rows))
            found[f"{stem}.qzeros"] = ("I32", (groups, rows // words))
            found[f"{stem}.scales"] = ("F16", (groups, rows))
            found[f"{stem}.g_idx"] = ("I32", (columns,))
        elif method == "awq":
            found[f"{stem}.qweight"] = ("I32", (columns, rows // words))
            found[f"{stem}.qzeros"] = ("I32", (groups, rows // words))
            found[f"{stem}.scales"] = ("F16", (groups, rows))
        elif method == "mlx":
            found[name] = ("U32", (rows, columns // words))
            found[f"{stem}.scales"] = ("BF16", (rows, groups))
            found[f"{stem}.biases"] = ("BF16", (rows, groups))
        elif method == "bitsandbytes":
            found[name] = ("U8", (rows * columns // 2, 1))
            found[f"{name}.absmax"] = ("U8", (rows * columns // 64,))
            found[f"{name}.quant_map"] = ("F32", (16,))
            found[f"{name}.nested_absmax"] = ("F32", (rows,))
            found[f"{name}.nested_quant_map"] = ("F32", (256,))
            found[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", (80,))
        elif method == "compressed-tensors":
            found[f"{stem}.weight_packed"] = ("I32", (rows, columns // words))
            found[f"{stem}.weight_scale"] = ("BF16", (rows, groups))
            found[f"{stem}.weight_shape"] = ("I64", (2,))
        elif method == "fp8":
            found[name] = ("F8_E4M3", (rows, columns))
            found[f"{name}_scale_inv"] = ("F32", (rows // 128, columns // 128))
        else:
            raise ValueError(method)
    return found
