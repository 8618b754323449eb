"""An artefact in its own runtime: mlx-lm loads it and continues a text by the likeliest tokens.

Without Metal three things differ, and none changes a weight: BitLinear is computed by affine
layers (ternary.py); models with quantized layers or experts compute in FP32, because MLX's
quantized product takes eight times as long on a CPU in BF16, and that of experts knows no other;
and every core computes some rows of a quantized product, which MLX leaves to one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import ternary
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import load_model, load_tokenizer

CORES = 4  # at most: more wait for each other
ROWS = 512  # of a weight matrix, at least, to share a product


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of an artefact, ready to compute here, and its config."""
    # MLX would compile its fused kernels with a C++ compiler, which a worker need not have.
    if not mx.metal.is_available():
        mx.disable_compile()
    model, config = load_model(folder, lazy=True)
    if not mx.metal.is_available():
        _without_metal(model)
    mx.eval(model.parameters())
    return model, config


def _without_metal(model: nn.Module) -> None:
    changed = ternary.without_metal(model, mx.float32)
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    # Quantized layers are quicker so, and plain experts are computed in FP32 only.
    wide = any("scales" in layer or isinstance(layer, SwitchLinear) for _, layer in leaves)
    if not changed and not wide:
        return

    def widen(array: mx.array) -> mx.array:
        return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array

    model.update(tree_map(widen, model.parameters()))


@contextmanager
def shared(threads: int) -> Iterator[None]:
    """Let so many threads compute quantized products, some rows each; the numbers are the same."""
    if mx.metal.is_available() or threads < 2:
        yield
        return
    whole = mx.quantized_matmul
    streams = [mx.new_stream(mx.cpu) for _ in range(min(threads, CORES))]

    def product(
        x: mx.array,
        w: mx.array,
        /,
        scales: mx.array,
        biases: mx.array | None = None,
        transpose: bool = True,
        group_size: int | None = None,
        bits: int | None = None,
        mode: str = "affine",
        *,
        stream: Any = None,
    ) -> mx.array:
        rows, kind = w.shape[0], (group_size, bits, mode)
        if w.ndim != 2 or not transpose or rows < ROWS or stream is not None:
            return whole(x, w, scales, biases, transpose, *kind, stream=stream)
        parts = []
        for number, own in enumerate(streams):
            some = slice(rows * number // len(streams), rows * (number + 1) // len(streams))
            shift = None if biases is None else biases[some]
            parts.append(whole(x, w[some], scales[some], shift, True, *kind, stream=own))
        return mx.concatenate(parts, axis=-1)

    mx.quantized_matmul = product
    try:
        yield
    finally:
        mx.quantized_matmul = whole


def generate(
    folder: Path, prompt: str, tokens: int, patience: float, threads: int = 1
) -> dict[str, Any]:
    """Continue `prompt` by up to `tokens` tokens, in about `patience` seconds once it is loaded.

    How long a token takes is measured with the first of the prompt. Where there is no time for all,
    as with large models on a CPU, half of what there is goes to the prompt, which is cut short.
    Raises ValueError if a logit is not a number.
    """
    with shared(threads):
        return _generate(folder, prompt, tokens, patience)


def _generate(folder: Path, prompt: str, tokens: int, patience: float) -> dict[str, Any]:
    began = time.perf_counter()
    # The tokenizer first: parsing it takes more memory than keeping it.
    tokenizer = load_tokenizer(folder, {"trust_remote_code": False})
    model, _ = load(folder)
    loaded = time.perf_counter()
    ids = tokenizer.encode(prompt)
    cache = make_prompt_cache(model)

    def step(part: list[int]) -> mx.array:
        logits = model(mx.array(part)[None], cache=cache)[0, -1]
        if not mx.isfinite(logits.max()).item():
            raise ValueError("a logit is not a finite number")
        return logits

    logits = step(ids[:1])
    first = time.perf_counter()
    affordable = max(2, int(patience / (first - loaded)))
    shown = ids[: 1 + affordable // 2]
    count = min(tokens, affordable - len(shown) + 1)
    if shown[1:]:
        logits = step(shown[1:])
    made = [mx.argmax(logits).item()]
    while len(made) < count:
        made.append(mx.argmax(step(made[-1:])).item())
    computed = len(shown) - 1 + len(made) - 1
    seconds = (time.perf_counter() - first) / computed if computed else first - loaded
    return {
        "prompt": prompt if shown == ids else tokenizer.decode(shown, skip_special_tokens=True),
        "text": tokenizer.decode([token for token in made if token < len(tokenizer)]),
        "tokens": len(made),
        "load_seconds": round(loaded - began, 3),
        "tokens_per_second": round(1 / seconds, 2),
    }
