"""Reads the headers of safetensors files. They come from strangers: nothing in them is believed.

A file is 8 bytes (the length N of the header, little-endian), N bytes of JSON, then the data:
`{"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, …, "__metadata__": {…}}`.
The data of all tensors together fill the file without holes or overlaps.
(https://huggingface.co/docs/safetensors, section "Format")

The JSON is read entry by entry: a general parser would build whatever a hostile header describes,
many times the size of its text.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from hub.errors import Unprocessable

MAX_HEADER = 100_000_000
MAX_TENSORS = 200_000
MAX_INDEX = 20_000_000
MAX_RANK = 16

BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*+"')
_PART = re.compile(r"(.*-)\d{5}-of-(\d{5})\.safetensors", re.DOTALL)
_BODY = re.compile(rb"\{[^{}]{0,2048}+\}")


class BadSafetensors(Unprocessable):
    """A safetensors file that is not what it says."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            "bad_safetensors",
            f"{name}: {reason}",
            "The file is damaged or was made wrongly: fetch it again, or tell the model's owner",
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: element type, shape, and where its bytes lie within the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds. `size` is that of the whole file in bytes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    size: int


def header_length(start: bytes, size: int | None = None, name: str = "model.safetensors") -> int:
    """How many bytes of JSON follow the first 8 bytes of a file, whose whole size may be given."""
    if len(start) < 8 or (size is not None and size < 8):
        has = len(start) if size is None else size
        raise BadSafetensors(name, f"truncated: {has} bytes, at least 8 are needed")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise BadSafetensors(
            name, f"its header says {length} bytes, at most {MAX_HEADER} are allowed"
        )
    if length < 2:
        raise BadSafetensors(name, f"its header says {length} bytes, too few for any")
    if size is not None and 8 + length > size:
        raise BadSafetensors(
            name, f"truncated: {size} bytes, but its header alone needs {8 + length}"
        )
    return length


def read_header(file: BinaryIO, size: int, name: str = "model.safetensors") -> bytes:
    """The header's bytes, its length included, from the start of an open file of that size."""
    start = file.read(8)
    return start + file.read(header_length(start, size, name))


def parse_header(
    data: bytes, *, size: int | None = None, name: str = "model.safetensors"
) -> Header:
    """The header at the start of a file (its 8 bytes of length included; more may follow).

    With the `size` of the whole file, its data is checked to fill it. Raises BadSafetensors.
    """
    length = header_length(data, size, name)
    if len(data) < 8 + length:
        raise BadSafetensors(name, f"truncated: {len(data)} bytes, the header needs {8 + length}")
    return _Reader(data[: 8 + length], name).header(size)


def shards(
    index: bytes, names: Iterable[str], name: str = "model.safetensors.index.json"
) -> list[str]:
    """The files an index names, in order; BadSafetensors names those that are not in `names`."""
    if len(index) > MAX_INDEX:
        raise BadSafetensors(name, f"has {len(index)} bytes, at most {MAX_INDEX} are allowed")
    try:
        document = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise BadSafetensors(name, "is not JSON") from error
    weights = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise BadSafetensors(name, "has no weight_map")
    files = {file for file in weights.values() if isinstance(file, str)}
    if not all(isinstance(file, str) for file in weights.values()):
        raise BadSafetensors(name, "maps a tensor to something that is not a file name")
    folder = name.rpartition("/")[0]
    wanted = sorted(f"{folder}/{file}" if folder else file for file in files)
    have = set(names)
    missing = [file for file in wanted if file not in have]
    if missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise BadSafetensors(
            name, f"names {len(missing)} of {len(wanted)} files that are missing: {shown}"
        )
    return wanted


def missing_part(names: Iterable[str]) -> str | None:
    """The first file that is not there of weights in parts, as the others' names have it."""
    have = set(names)
    for first, count in sorted({part.groups() for part in map(_PART.fullmatch, have) if part}):
        for number in range(1, int(count) + 1):
            other = f"{first}{number:05}-of-{count}.safetensors"
            if other not in have:
                return other
    return None


class _Reader:
    """Reads the JSON of one header from left to right."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 8

    def fail(self, reason: str) -> BadSafetensors:
        return BadSafetensors(self.name, reason)

    def skip(self) -> None:
        match = _SPACE.match(self.data, self.at)
        assert match
        self.at = match.end()

    def next(self, allowed: bytes) -> bytes:
        self.skip()
        found = self.data[self.at : self.at + 1]
        if not found or found not in allowed:
            raise self.fail(
                f"its header is not JSON: byte {self.at} should be {allowed.decode()!r}"
            )
        self.at += 1
        return found

    def string(self) -> str:
        self.skip()
        match = _STRING.match(self.data, self.at)
        if not match:
            raise self.fail(f"its header is not JSON: a text should begin at byte {self.at}")
        self.at = match.end()
        text = str(self.json(match.group()))
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self.fail(f"its header has half a character before byte {self.at}")
        return text

    def json(self, text: bytes) -> Any:
        try:
            return json.loads(text.decode(), object_pairs_hook=self.unique)
        except (ValueError, RecursionError) as error:
            raise self.fail(f"its header is not JSON before byte {self.at}") from error

    def unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise self.fail(f"its header names a key twice before byte {self.at}")
        return made

    def header(self, size: int | None) -> Header:
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, str] | None = None
        self.next(b"{")
        self.skip()
        if self.data[self.at : self.at + 1] == b"}":
            self.at += 1
        else:
            while True:
                key = self.string()
                self.next(b":")
                if key == "__metadata__":
                    if metadata is not None:
                        raise self.fail("its header has __metadata__ twice")
                    metadata = self.texts()
                elif key in tensors:
                    raise self.fail(f"its header names the tensor {_short(key)} twice")
                elif len(tensors) == MAX_TENSORS:
                    raise self.fail(f"it has more than {MAX_TENSORS} tensors")
                else:
                    tensors[key] = self.tensor(key)
                if self.next(b",}") == b"}":
                    break
        if self.data[self.at :].strip(b" \t\r\n\0"):
            raise self.fail(f"its header goes on after its end at byte {self.at}")
        needed = len(self.data) + self.check_layout(tensors)
        if size is not None and size != needed:
            word = "truncated" if size < needed else "too long"
            raise self.fail(f"{word}: {size} bytes, its header describes {needed}")
        return Header(tensors, metadata or {}, needed)

    def texts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self.next(b"{")
        self.skip()
        if self.data[self.at : self.at + 1] == b"}":
            self.at += 1
            return found
        while True:
            key = self.string()
            self.next(b":")
            if key in found:
                raise self.fail(f"its metadata names {_short(key)} twice")
            if len(found) == MAX_TENSORS:
                raise self.fail(f"it has more than {MAX_TENSORS} metadata entries")
            found[key] = self.string()
            if self.next(b",}") == b"}":
                return found

    def tensor(self, key: str) -> Tensor:
        self.skip()
        match = _BODY.match(self.data, self.at)
        if not match:
            raise self.fail(f"its header does not describe the tensor {_short(key)}")
        self.at = match.end()
        body = self.json(match.group())
        dtype, shape, offsets = (body.get(part) for part in ("dtype", "shape", "data_offsets"))
        if len(body) != 3 or not _numbers(shape) or not _numbers(offsets) or len(offsets) != 2:
            raise self.fail(f"the tensor {_short(key)} needs dtype, shape and two data_offsets")
        if not isinstance(dtype, str) or dtype not in BITS:
            raise self.fail(f"the tensor {_short(key)} has the unknown dtype {_short(str(dtype))}")
        if len(shape) > MAX_RANK:
            raise self.fail(f"the tensor {_short(key)} has {len(shape)} dimensions")
        made = Tensor(dtype, tuple(shape), offsets[0], offsets[1])
        bits = made.numel * BITS[dtype]
        if bits != 8 * (made.end - made.begin):
            raise self.fail(
                f"the tensor {_short(key)} needs {math.ceil(bits / 8)} bytes for its shape, "
                f"its offsets give it {made.end - made.begin}"
            )
        return made

    def check_layout(self, tensors: dict[str, Tensor]) -> int:
        """Refuse overlaps and holes; return the number of bytes the data takes."""
        end = 0
        for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
            if tensor.begin != end:
                what = (
                    "overlaps the one before it"
                    if tensor.begin < end
                    else "leaves a hole before it"
                )
                raise self.fail(
                    f"the tensor {_short(key)} {what}: it begins at {tensor.begin}, not at {end}"
                )
            end = tensor.end
        return end


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number < 2**63 for number in value
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
