"""Writes a graph with its tensors: into one .onnx file, or into data files beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from graph import Graph, Tensor
from layout import PAGE, SMALL, data_files
from onnx import GraphProto, ModelProto, TensorProto


def write(
    graph: Graph, folder: Path, name: str, count: int, report: Callable[[int, int], None]
) -> None:
    """Write `folder`/`name`, and `count` data files beside it; 0: the .onnx file holds everything.

    `report` is told the bytes that are written, and all that there will be. Weights go piece by
    piece from the source to the disk, into the .onnx file too.
    """
    tensors = list(graph.tensors.values())
    outside = [tensor for tensor in tensors if count and tensor.size > SMALL]
    within = [tensor for tensor in tensors if not count or tensor.size <= SMALL]
    total, done = sum(tensor.size for tensor in tensors), 0

    def told(array: np.ndarray) -> memoryview:
        nonlocal done
        done += array.nbytes
        report(done, total)
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    model = graph.finish()
    for file, part in zip(data_files(name, count), _shares(outside, count), strict=True):
        with (folder / file).open("wb") as data:
            for tensor in part:
                data.write(bytes(-data.tell() % PAGE))
                entry = _entry(tensor)
                entry.data_location = TensorProto.EXTERNAL
                places = {"location": file, "offset": data.tell(), "length": tensor.size}
                for key, value in places.items():
                    entry.external_data.add(key=key, value=str(value))
                model.graph.initializer.append(entry)
                _append(data, tensor, told)
    with (folder / name).open("wb") as file:
        _write_model(file, model, within, told)


def _write_model(
    file: BinaryIO,
    model: ModelProto,
    tensors: list[Tensor],
    told: Callable[[np.ndarray], memoryview],
) -> None:
    """Write a model to which the elements of `tensors` are added as they come.

    protobuf serializes in memory only. But a message is its fields one after another, each with its
    number and length; so the graph's bytes can be followed by more of its initializers.
    """
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    heads = [
        _entry(tensor).SerializeToString() + _field(TensorProto, "raw_data", tensor.size)
        for tensor in tensors
    ]
    fields = [
        _field(GraphProto, "initializer", len(head) + tensor.size) + head
        for head, tensor in zip(heads, tensors, strict=True)
    ]
    whole = len(graph) + sum(map(len, fields)) + sum(tensor.size for tensor in tensors)
    file.write(model.SerializeToString(deterministic=True))
    file.write(_field(ModelProto, "graph", whole) + graph)
    for head, tensor in zip(fields, tensors, strict=True):
        file.write(head)
        _append(file, tensor, told)


def _append(file: BinaryIO, tensor: Tensor, told: Callable[[np.ndarray], memoryview]) -> None:
    first = file.tell()
    for piece in tensor.pieces():
        file.write(told(piece))
    if file.tell() - first != tensor.size:
        raise ValueError(f"{tensor.name}: {file.tell() - first} bytes, not {tensor.size}")


def _entry(tensor: Tensor) -> TensorProto:
    return TensorProto(name=tensor.name, data_type=tensor.type, dims=tensor.shape)


def _field(message: type, name: str, length: int) -> bytes:
    """What stands before a field of so many bytes: its number, its kind, its length."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return bytes([number << 3 | 2]) + _varint(length)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _shares(tensors: list[Tensor], count: int) -> list[list[Tensor]]:
    """The tensors in `count` parts of about the same size, in their order."""
    total, before = sum(tensor.size for tensor in tensors), 0
    parts: list[list[Tensor]] = [[] for _ in range(count)]
    for tensor in tensors:
        middle = before + tensor.size / 2
        parts[min(count - 1, int(middle * count / max(total, 1)))].append(tensor)
        before += tensor.size
    return parts
