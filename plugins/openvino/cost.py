"""What a conversion costs, from headers alone."""

from typing import Any


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes: of the files, the most of memory, the most in scratch."""
    return {"size": 1, "memory": 1, "scratch": 1}
