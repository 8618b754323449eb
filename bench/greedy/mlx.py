"""MLX in mlx-lm, on the processor, in float32.

The weights are the artefact's; what is wider is the arithmetic, so that the file is compared and
not the rounding of its half precision. Without Metal, BitNet's ternary layers have no kernel: the
plain matrix that they stand for is put in their place.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages


def load(artefact: Path, longest: int) -> Callable[[], Sequence]:  # noqa: ARG001 - it grows as needed
    """Open a folder as mlx-lm writes it."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    if not mx.metal.is_available():
        mx.disable_compile()  # it would need a compiler for C++
    model, _ = load_model(artefact)
    if not mx.metal.is_available():
        spread(model)
    model.set_dtype(mx.float32)

    class Cached:
        def __init__(self) -> None:
            self.cache = make_prompt_cache(model)

        def feed(self, tokens: list[int]) -> np.ndarray:
            logits = model(mx.array([tokens]), cache=self.cache)
            return np.array(logits[0, -1].astype(mx.float32))

    return Cached


def spread(model: object) -> None:
    """Put plain matrices in the place of BitNet's packed ones."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.models.bitlinear_layers import BitLinear

    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    plain = []
    for name, layer in leaves:
        if isinstance(layer, BitLinear):
            levels = [(layer.weight >> shift) & 3 for shift in (0, 2, 4, 6)]
            scale = layer.weight_scale.astype(mx.float32)
            factor = 1 / scale if layer.invert_weight_scales else scale
            made = nn.Linear(layer.in_features, layer.out_features, bias=False)
            made.weight = (mx.concatenate(levels).astype(mx.float32) - 1) * factor
            plain.append((name, made))
    if plain:
        model.update_modules(tree_unflatten(plain))


if __name__ == "__main__":
    main(load)
