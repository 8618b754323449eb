"""The variants: what NNCF is asked for, and what a model's openvino_config.json says of it."""

from dataclasses import dataclass
from typing import Any

SMALLEST_GROUP = 32


@dataclass(frozen=True)
class Recipe:
    """How the weights of a variant are stored."""

    bits: int
    symmetric: bool = False

    @property
    def mode(self) -> str:
        """NNCF's name of it."""
        return f"int{self.bits}_{'sym' if self.symmetric else 'asym'}"


RECIPES = {
    "fp16": Recipe(16),
    "int8": Recipe(8),
    "int8-sym": Recipe(8, symmetric=True),
    "int4": Recipe(4),
    "int4-sym": Recipe(4, symmetric=True),
}


def aware(recipe: Recipe, options: dict[str, Any]) -> bool:
    """Whether a variant is made with a calibration text."""
    return recipe.bits == 4 and bool(options["awq"] or options["scale_estimation"])


def openvino_config(variant: str, options: dict[str, Any]) -> dict[str, Any]:
    """What optimum-intel keeps in openvino_config.json."""
    recipe = RECIPES[variant]
    if recipe.bits == 16:
        return {"dtype": "fp16"}
    weights: dict[str, Any] = {
        "bits": recipe.bits,
        "dtype": f"int{recipe.bits}",
        "group_size": -1,
        "ratio": 1.0,
        "sym": recipe.symmetric,
        "weight_only": True,
    }
    if recipe.bits == 4:
        weights["group_size"] = options["group_size"]
        weights["ratio"] = options["ratio"]
        weights["quant_method"] = "awq" if options["awq"] else "default"
        weights["scale_estimation"] = options["scale_estimation"]
    return {"dtype": f"int{recipe.bits}", "quantization_config": weights}
