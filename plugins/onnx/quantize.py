"""Arithmetic of quantized matrices, as onnxruntime's quantizers do it, some rows at a time.

A matrix has a row for each output (or token) and a column for each input, as torch stores it.
"""

from collections.abc import Iterator

import numpy as np
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits
from weights import Weights

BLOCK = 32
PIECE = 1 << 23  # elements that are quantized at once


def spans(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Rows that are quantized at once: first and last."""
    step = max(1, PIECE // columns)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


class Blocks:
    """A matrix for MatMulNBits: each row in blocks of 32 weights, each block with its own scale.

    Symmetric, by the function that onnxruntime's MatMulNBitsQuantizer calls. Whoever asks for the
    codes first gets the scales without a second computation.
    """

    def __init__(self, weights: Weights, name: str, bits: int, half: bool) -> None:
        self._weights, self._name, self._bits = weights, name, bits
        self.rows, self.columns = weights.shape(name)
        self.blocks = -(-self.columns // BLOCK)
        self.bytes = BLOCK * bits // 8
        self._scales: list[np.ndarray] = []
        self._type = np.float16 if half else np.float32

    def codes(self) -> Iterator[np.ndarray]:
        """Packed codes, [rows, blocks, bytes of a block]."""
        self._scales.clear()
        for first, last in spans(self.rows, self.columns):
            matrix = self._weights.rows(self._name, first, last)
            if rest := self.blocks * BLOCK - self.columns:
                matrix = np.pad(matrix, ((0, 0), (0, rest)))
            make = self._ternary if self._weights.ternary(self._name) else self._quantized
            codes, scales = make(matrix)
            self._scales.append(scales.astype(self._type))
            yield codes

    def scales(self) -> Iterator[np.ndarray]:
        """One scale a block, [rows, blocks]."""
        if not self._scales:
            for _ in self.codes():
                pass
        yield from self._scales
        self._scales.clear()

    def _quantized(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, padded = matrix.shape
        codes = np.zeros((rows, self.blocks, self.bytes), np.uint8)
        scales = np.zeros((rows, self.blocks), np.float32)
        zeros = np.zeros((rows, -(-self.blocks * self._bits // 8)), np.uint8)
        function = quantize_matmul_4bits if self._bits == 4 else quantize_matmul_8bits
        turned = np.ascontiguousarray(matrix.T)
        function(codes, turned, scales, zeros, BLOCK, rows, padded, True)
        return codes, scales

    def _ternary(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exactly -1, 0 and 1, which the quantizer's own scale would miss."""
        middle = 1 << (self._bits - 1)
        codes = (matrix + middle).astype(np.uint8).reshape(len(matrix), self.blocks, BLOCK)
        if self._bits == 4:
            codes = codes[..., 0::2] | codes[..., 1::2] << 4
        return np.ascontiguousarray(codes), np.ones((len(matrix), self.blocks), np.float32)


class Rows:
    """A matrix in 8-bit integers, each row with its own scale, and zero point if unsigned.

    The formulas of onnxruntime's quantize_data for weights, with per_channel.
    """

    def __init__(self, weights: Weights, name: str, signed: bool) -> None:
        self._weights, self._name, self._signed = weights, name, signed
        self.rows, self.columns = weights.shape(name)
        self.type = np.int8 if signed else np.uint8
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    def scales(self) -> Iterator[np.ndarray]:
        """One scale a row, float32."""
        yield self._range()[0]

    def zeros(self) -> Iterator[np.ndarray]:
        """One zero point a row; nothing but zeros where signed."""
        yield self._range()[1]

    def codes(self) -> Iterator[np.ndarray]:
        """The codes, [columns, rows]: the way products take a matrix."""
        scales, zeros = self._range()
        limits = np.iinfo(self.type)
        for first, last in spans(self.columns, self.rows):
            matrix = self._weights.columns(self._name, first, last)
            matrix = np.rint(matrix / scales[:, None])
            matrix += zeros[:, None]
            yield np.clip(matrix, limits.min, limits.max).astype(self.type).T

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        if self._found is None:
            if self._weights.ternary(self._name):
                scales = np.ones(self.rows, np.float32)
                zeros = np.full(self.rows, 0 if self._signed else 1, self.type)
            else:
                parts = [
                    self._measure(self._weights.rows(self._name, first, last))
                    for first, last in spans(self.rows, self.columns)
                ]
                scales, zeros = (np.concatenate(each) for each in zip(*parts, strict=True))
            self._found = scales, zeros
        return self._found

    def _measure(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = np.minimum(matrix.min(1), np.float32(0))
        high = np.maximum(matrix.max(1), np.float32(0))
        if self._signed:
            high = np.maximum(-low, high)
            low = -high
        levels = 254 if self._signed else 255
        scales = (high.astype(np.float64) - low) / levels
        scales[scales < np.finfo(np.float32).tiny] = 1
        zeros = np.zeros(len(matrix)) if self._signed else np.rint(-low / scales)
        return scales.astype(np.float32), zeros.astype(self.type)
