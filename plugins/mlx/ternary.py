"""BitNet: ternary weights, four to a byte, and the same weights where no Metal is.

mlx-lm computes them with a Metal kernel. Two bits of MLX's affine layout hold them exactly, and
every back end computes those: level 0, 1, 2 times the scale, minus the scale, is -s, 0, +s.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.bitlinear_layers import BitLinear

GROUPS = (128, 64, 32)


def levels(packed: mx.array) -> mx.array:
    """(rows / 4, columns) bytes → (rows, columns) of 0, 1, 2.

    A byte holds the same column of four rows, each a quarter of the matrix apart.
    """
    return mx.concatenate([(packed >> (2 * part)) & 3 for part in range(4)], axis=0)


def dense(packed: mx.array, scale: mx.array, dtype: mx.Dtype) -> mx.array:
    """The ternary weights as numbers: -scale, 0, +scale."""
    return (levels(packed).astype(dtype) - 1) * scale.astype(dtype)


def affine(
    packed: mx.array, scale: mx.array, group_size: int, dtype: mx.Dtype
) -> tuple[mx.array, mx.array, mx.array]:
    """The same weights in MLX's affine layout of two bits: weight, scales, biases."""
    level = levels(packed).astype(mx.uint32)
    rows, columns = level.shape
    shifts = mx.arange(16, dtype=mx.uint32) * 2
    weight = (level.reshape(rows, columns // 16, 16) << shifts).sum(axis=-1).astype(mx.uint32)
    scales = mx.broadcast_to(scale.astype(dtype).reshape(1, 1), (rows, columns // group_size))
    return weight, mx.contiguous(scales), mx.contiguous(-scales)


def group_size(columns: int) -> int:
    """The largest group that divides a row; ValueError if none does."""
    for size in GROUPS:
        if columns % size == 0:
            return size
    raise ValueError(f"rows of {columns} weights do not divide by {GROUPS[-1]}")


def without_metal(model: nn.Module, dtype: mx.Dtype) -> int:
    """Put affine layers in the place of BitLinear; returns how many."""
    made: list[tuple[str, Any]] = []
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    for path, layer in leaves:
        if isinstance(layer, BitLinear):
            scale = layer.weight_scale.astype(mx.float32)
            if layer.invert_weight_scales:
                scale = 1 / scale
            size = group_size(layer.in_features)
            new = nn.QuantizedLinear(layer.in_features, layer.out_features, False, size, 2)
            new.weight, new.scales, new.biases = affine(layer.weight, scale, size, dtype)
            mx.eval(new.parameters())
            if layer.bias is not None:
                new.bias = layer.bias
            made.append((path, new))
    if made:
        model.update_modules(tree_unflatten(made))
    return len(made)
