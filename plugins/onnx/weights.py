"""The weights of a model, read from its safetensors files piece by piece."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 1 << 24  # elements that are converted at once
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "|u1"}
# What a checkpoint may write before the names that transformers gives the same weights.
PREFIXES = ("", "model.", "transformer.", "language_model.", "model.language_model.")


class Unreadable(Exception):
    """Weights that are not there, or not as they have to be: one sentence on it."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its file, type, shape, and the offset of its first byte."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Weights:
    """All tensors of a folder's safetensors files, by the names that transformers has for them."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._stored: dict[str, Stored] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._stored |= _read_header(path)
        packing = config.get("quantization_config") or {}
        self._packed = packing.get("quant_method") == "bitnet"
        self._inverted = self._packed and packing.get("linear_class", "bitlinear") == "bitlinear"

    def stored(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of every tensor, as stored."""
        return [(name, each.dtype, each.shape) for name, each in self._stored.items()]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, unpacked."""
        stored = self._find(name)
        if self.ternary(name):
            return (4 * stored.shape[0], *stored.shape[1:])
        return stored.shape

    def ternary(self, name: str) -> bool:
        """Whether these weights are -1, 0 and 1, packed into two bits."""
        return self._packed and self._find(name).dtype == "U8"

    def floats(self, name: str) -> Iterator[np.ndarray]:
        """The elements in the order in which they are stored, as float32, in pieces."""
        if self.ternary(name):
            rows, columns = self.shape(name)
            for first, last in _spans(rows, max(1, PIECE // columns)):
                yield self.rows(name, first, last).reshape(-1)
            return
        flat = self._map(name).reshape(-1)
        for first, last in _spans(len(flat), PIECE):
            numbers = self._numbers(name, flat[first:last])
            yield 1 / numbers if self._inverted and name.endswith("weight_scale") else numbers

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Some rows of a matrix, as float32."""
        if not self.ternary(name):
            return self._numbers(name, self._map(name)[first:last])
        packed = self._map(name)
        quarter = len(packed)
        found = np.empty((last - first, packed.shape[1]), np.float32)
        # The first quarter of the rows is in the lowest two bits, the second in the next.
        for shift in range(4):
            begin, end = max(first, shift * quarter), min(last, (shift + 1) * quarter)
            if begin < end:
                codes = packed[begin - shift * quarter : end - shift * quarter] >> (2 * shift) & 3
                found[begin - first : end - first] = codes.astype(np.float32) - 1
        return found

    def columns(self, name: str, first: int, last: int) -> np.ndarray:
        """Some columns of a matrix, as float32."""
        if self.ternary(name):
            codes = self._map(name)[:, first:last]
            parts = [(codes >> (2 * shift) & 3).astype(np.float32) - 1 for shift in range(4)]
            return np.concatenate(parts)
        return self._numbers(name, self._map(name)[:, first:last])

    def _find(self, name: str) -> Stored:
        for prefix in PREFIXES:
            if stored := self._stored.get(prefix + name):
                return stored
            if prefix and name.startswith(prefix) and name.removeprefix(prefix) in self._stored:
                return self._stored[name.removeprefix(prefix)]
        raise Unreadable(f"The weights do not hold {name}, which the architecture has.")

    def _map(self, name: str) -> np.ndarray:
        stored = self._find(name)
        kind = NUMBERS.get(stored.dtype)
        if kind is None:
            raise Unreadable(f"{name} is stored as {stored.dtype}, which cannot be read.")
        return np.memmap(stored.path, kind, "r", stored.offset, stored.shape or (1,))

    def _numbers(self, name: str, stored: np.ndarray) -> np.ndarray:
        if self._find(name).dtype == "BF16":  # the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(0, length, step):
        yield first, min(first + step, length)


def _read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of one file (layout: safetensors' README, "Format"). Raises Unreadable."""
    actual = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > actual - 8:
            raise Unreadable(f"{path.name} is damaged: its header is longer than the file.")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = {
                name: (entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreadable(f"{path.name} is damaged: its header cannot be read.") from error
    tensors = {}
    for name, (dtype, shape, first, last) in found.items():
        size = math.prod(shape) * np.dtype(NUMBERS.get(dtype, "u1")).itemsize
        if 8 + length + last > actual or (dtype in NUMBERS and last - first != size):
            raise Unreadable(f"{path.name} is damaged: {name} does not fit into it.")
        tensors[name] = Stored(path, dtype, shape, 8 + length + first)
    return tensors
