"""The boundaries, each on both sides."""

import pytest

from hub.tiers import TIERS, Tier, precision_class, tier

M, B = 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (0, "tiny"),
        (100 * M - 1, "tiny"),
        (100 * M, "micro"),
        (1_500 * M - 1, "micro"),
        (1_500 * M, "small"),
        (14 * B - 1, "small"),
        (14 * B, "medium"),
        (30 * B, "medium"),
        (30 * B + 1, "large"),
    ],
)
def test_tier_boundaries(parameters: int, expected: str) -> None:
    assert tier(parameters) == expected


def test_every_tier_is_described() -> None:
    assert list(TIERS) == list(Tier)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (1, "ultra-low"),
        (1.58, "ultra-low"),
        (2, "ultra-low"),
        (2.999, "ultra-low"),
        (3, "low"),
        (4, "low"),
        (4.85, "low"),
        (5, "medium"),
        (8, "medium"),
        (8.5, "medium"),
        (16, "half"),
        (32, "full"),
        (64, "full"),
    ],
)
def test_precision_classes(bits: float, expected: str) -> None:
    assert precision_class(bits) == expected


@pytest.mark.parametrize("bits", [0, -1, float("nan")])
def test_no_precision_without_bits(bits: float) -> None:
    with pytest.raises(ValueError, match="bits"):
        precision_class(bits)
