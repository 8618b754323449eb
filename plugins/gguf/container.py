"""GGUF as a container: writes small files of F32 tensors, and reads where everything lies.

Layout: gguf.md in ggml's documentation. Standard library only.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

ALIGNMENT = 32
U32, TEXT, ARRAY = 4, 8, 9  # types of values
F32 = 0  # a type of tensors
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"


@dataclass(frozen=True)
class Place:
    """A tensor in a file: its type's number, its sizes (columns first), its offset in the data."""

    kind: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Header:
    """Keys and tensors of a file, and where its data begin."""

    keys: dict[str, Any]
    tensors: dict[str, Place]
    data: int


def padded(size: int) -> int:
    """`size`, rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def write(path: Path, keys: dict[str, Any], tensors: dict[str, tuple[array, int]]) -> None:
    """Write `keys` (numbers, texts, lists of texts) and `tensors`, each with its row's length."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    head += b"".join(_text(key) + _value(value) for key, value in keys.items())
    offset = 0
    for name, (values, columns) in tensors.items():
        shape = (columns,) if len(values) == columns else (columns, len(values) // columns)
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, offset)
        offset += padded(4 * len(values))
    with path.open("wb") as file:
        file.write(head.ljust(padded(len(head)), b"\0"))
        for values, _ in tensors.values():
            file.write(values.tobytes().ljust(padded(4 * len(values)), b"\0"))


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: int | str | list[str]) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    return struct.pack("<IIQ", ARRAY, TEXT, len(value)) + b"".join(map(_text, value))


def read(path: Path) -> Header:
    """The header of the file at `path`. Raises ValueError if it is not GGUF."""
    with path.open("rb") as file:
        magic, _, count, pairs = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF":
            raise ValueError(f"{path.name} is not a GGUF file")
        keys = {}
        for _ in range(pairs):
            key = _read_text(file)
            keys[key] = _read_value(file, _number(file))
        tensors = {}
        for _ in range(count):
            name, dimensions = _read_text(file), _number(file)
            shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
            kind, offset = struct.unpack("<IQ", file.read(12))
            tensors[name] = Place(kind, shape, offset)
        return Header(keys, tensors, padded(file.tell()))


def floats(path: Path) -> Iterator[tuple[str, tuple[int, ...], array]]:
    """Name, shape and values of every F32 tensor of a file."""
    header = read(path)
    with path.open("rb") as file:
        for name, place in header.tensors.items():
            if place.kind != F32:
                raise ValueError(f"{path.name}: {name} is not of type F32")
            file.seek(header.data + place.offset)
            values = array("f")
            values.frombytes(file.read(4 * prod(place.shape)))
            yield name, place.shape, values


def _number(file: BinaryIO) -> int:
    return struct.unpack("<I", file.read(4))[0]


def _read_text(file: BinaryIO) -> str:
    return file.read(struct.unpack("<Q", file.read(8))[0]).decode("utf-8", "replace")


def _read_value(file: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _read_text(file)
    if kind == ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner in (TEXT, ARRAY):
            return [_read_value(file, inner) for _ in range(count)]
        layout = f"<{count}{_SCALARS[inner]}"
        return list(struct.unpack(layout, file.read(struct.calcsize(layout))))
    layout = "<" + _SCALARS[kind]
    return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
