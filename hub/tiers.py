"""The classes that models fall into: tiers by parameter count, precision classes by bits."""

from dataclasses import dataclass
from enum import StrEnum

MILLION = 1_000_000
BILLION = 1_000_000_000


class Tier(StrEnum):
    """The size of a model, by its exact number of parameters n. Half-open intervals, but for the
    upper end of medium, which belongs to it."""

    TINY = "tiny"
    MICRO = "micro"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True)
class About:
    """What to tell people about a tier."""

    range: str
    note: str


TIERS: dict[Tier, About] = {
    Tier.TINY: About("under 100 M", "below the range of small language models"),
    Tier.MICRO: About("100 M to 1.5 B", "ultra-light: phones and the Internet of things"),
    Tier.SMALL: About("1.5 B to 14 B", "a balance of speed and quality"),
    Tier.MEDIUM: About("14 B to 30 B", "near the quality of large models"),
    Tier.LARGE: About("over 30 B", "not a small language model"),
}


def tier(parameters: int) -> Tier:
    """The tier of a model with this many parameters."""
    if parameters < 100 * MILLION:
        return Tier.TINY
    if parameters < 1_500 * MILLION:
        return Tier.MICRO
    if parameters < 14 * BILLION:
        return Tier.SMALL
    if parameters <= 30 * BILLION:
        return Tier.MEDIUM
    return Tier.LARGE


class Precision(StrEnum):
    """How finely weights are stored."""

    ULTRA_LOW = "ultra-low"
    LOW = "low"
    MEDIUM = "medium"
    HALF = "half"
    FULL = "full"


def precision_class(bits: float) -> str:
    """The class of weights that take this many bits each. Block scales count in: 4.85 bits a weight
    (Q4_K_M) are low, 8.5 (Q8_0) medium. ValueError unless positive."""
    if not bits > 0:
        raise ValueError(f"{bits} bits a weight")
    if bits < 3:
        return Precision.ULTRA_LOW
    if bits < 5:
        return Precision.LOW
    if bits < 16:
        return Precision.MEDIUM
    if bits < 32:
        return Precision.HALF
    return Precision.FULL
