"""Writes a graph with its tensors: into one .onnx file, or into data files beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from graph import Graph, Tensor
from layout import PAGE, SMALL, data_files
from onnx import TensorProto


def write(
    graph: Graph, folder: Path, name: str, count: int, report: Callable[[int, int], None]
) -> None:
    """Write `folder`/`name`, and `count` data files beside it; 0: the .onnx file holds everything.

    `report` is told the bytes that are written, and all that there will be. Weights go piece by
    piece from the source to the disk; only what stays in the .onnx file is in memory as a whole.
    """
    tensors = list(graph.tensors.values())
    outside = [tensor for tensor in tensors if count and tensor.size > SMALL]
    total, done = sum(tensor.size for tensor in tensors), 0
    model = graph.finish()
    entries = {tensor.name: _entry(tensor) for tensor in tensors}

    def told(array: np.ndarray) -> np.ndarray:
        nonlocal done
        done += array.nbytes
        report(done, total)
        return array

    for tensor in tensors:
        if tensor not in outside:
            pieces = (told(piece).tobytes() for piece in tensor.pieces())
            entries[tensor.name].raw_data = b"".join(pieces)
    for file, part in zip(data_files(name, count), _shares(outside, count), strict=True):
        with (folder / file).open("wb") as data:
            for tensor in part:
                _append(data, file, tensor, entries[tensor.name], told)
    model.graph.initializer.extend(entries.values())
    (folder / name).write_bytes(model.SerializeToString(deterministic=True))


def _entry(tensor: Tensor) -> TensorProto:
    return TensorProto(name=tensor.name, data_type=tensor.type, dims=tensor.shape)


def _append(
    data: BinaryIO,
    file: str,
    tensor: Tensor,
    entry: TensorProto,
    told: Callable[[np.ndarray], np.ndarray],
) -> None:
    data.write(bytes(-data.tell() % PAGE))
    first = data.tell()
    for piece in tensor.pieces():
        data.write(told(np.ascontiguousarray(piece)).data)
    if data.tell() - first != tensor.size:
        raise ValueError(f"{tensor.name}: {data.tell() - first} bytes, not {tensor.size}")
    entry.data_location = TensorProto.EXTERNAL
    for key, value in {"location": file, "offset": first, "length": tensor.size}.items():
        entry.external_data.add(key=key, value=str(value))


def _shares(tensors: list[Tensor], count: int) -> list[list[Tensor]]:
    """The tensors in `count` parts of about the same size, in their order."""
    total, before = sum(tensor.size for tensor in tensors), 0
    parts: list[list[Tensor]] = [[] for _ in range(count)]
    for tensor in tensors:
        middle = before + tensor.size / 2
        parts[min(count - 1, int(middle * count / max(total, 1)))].append(tensor)
        before += tensor.size
    return parts
