"""The variants: how many bits, in which layout, and which layers get other bits. Stdlib only."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One variant, in the terms of mlx-lm's quantize_model; `dtype` alone means no quantization.

    `group_size` None takes the option of the same name. `high_bits` are what a mixture gives to the
    layers that suffer most.
    """

    bits: int | None = None
    mode: str = "affine"
    group_size: int | None = None
    high_bits: int | None = None
    dtype: str | None = None


RECIPES = {
    "2bit": Recipe(2),
    "3bit": Recipe(3),
    "4bit": Recipe(4),
    "5bit": Recipe(5),
    "6bit": Recipe(6),
    "8bit": Recipe(8),
    "mxfp4": Recipe(4, "mxfp4", 32),
    "nvfp4": Recipe(4, "nvfp4", 16),
    "mxfp8": Recipe(8, "mxfp8", 32),
    "mixed_2_6": Recipe(2, high_bits=6),
    "mixed_3_4": Recipe(3, high_bits=4),
    "mixed_3_6": Recipe(3, high_bits=6),
    "mixed_4_6": Recipe(4, high_bits=6),
    "fp16": Recipe(dtype="float16"),
    "bf16": Recipe(dtype="bfloat16"),
}


@dataclass(frozen=True)
class Quantization:
    """How one layer is packed."""

    group_size: int
    bits: int
    mode: str = "affine"

    @property
    def has_biases(self) -> bool:
        """Whether a group has an offset beside its scale."""
        return self.mode == "affine"


def default(recipe: Recipe, group_size: int) -> Quantization:
    """What a layer gets that no rule names."""
    if recipe.bits is None:
        raise ValueError("this variant is not quantized")
    return Quantization(recipe.group_size or group_size, recipe.bits, recipe.mode)


def forecast(
    recipe: Recipe, group_size: int, model_type: str, paths: list[str], layers: int
) -> Callable[[str], tuple[Quantization, bool]]:
    """What mlx-lm will decide for each layer, without mlx-lm: for estimates.

    Returns a function of the layer's path: how it is packed, and whether config.json names it.
    The tests compare it with what mlx-lm does.
    """
    usual = default(recipe, group_size)
    if recipe.high_bits is not None:
        high = Quantization(group_size, recipe.high_bits)
        place = _layer_place(paths)

        def mixture(path: str) -> tuple[Quantization, bool]:
            parts = path.split(".")
            index = int(parts[place]) if len(parts) > place and parts[place].isdigit() else 0
            eighth = layers // 8
            more = index < eighth or index >= 7 * layers // 8 or (index - eighth) % 3 == 2
            names = ("v_proj", "v_a_proj", "v_b_proj", "down_proj")
            chosen = (more and any(name in path for name in names)) or "lm_head" in path
            return (high if chosen else usual), True

        return mixture

    def even(path: str) -> tuple[Quantization, bool]:
        # mlx-lm keeps these layers of Granite at 8 bits: their values are small.
        kept = ("self_attn.o_proj", "mlp.down_proj")
        if model_type in ("granite", "granitemoe") and (path.endswith(kept) or path == "lm_head"):
            return Quantization(64, 8), True
        return usual, False

    return even


def _layer_place(paths: list[str]) -> int:
    """Which part of a layer's path is its number, as mlx-lm finds it."""
    for path in paths:
        if "down_proj" in path:
            for place, part in enumerate(path.split(".")):
                if part.isdigit():
                    return place
    return 2
