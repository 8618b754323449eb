"""Headers that are right, wrong in every known way, and random."""

import contextlib
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.safetensors import (
    BITS,
    MAX_HEADER,
    MAX_INDEX,
    BadSafetensors,
    Header,
    header_length,
    missing_part,
    parse_header,
    shards,
)


def packed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_header(path: Path) -> Header:
    return parse_header(path.read_bytes(), size=path.stat().st_size, name=path.name)


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {
    "b": tensor("F32", [2, 3], 4, 28),
    "a": tensor("BF16", [2], 0, 4),
    "empty": tensor("F16", [0, 7], 28, 28),
    "scalar": tensor("I64", [], 28, 36),
    "__metadata__": {"format": "pt", "braces": "} {"},
}


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(GOOD, bytes(36)))
    header = read_header(path)
    assert header.metadata == {"format": "pt", "braces": "} {"}
    assert {name: found.numel for name, found in header.tensors.items()} == {
        "b": 6,
        "a": 2,
        "empty": 0,
        "scalar": 1,
    }
    assert header.tensors["b"].shape == (2, 3)
    assert header.size == path.stat().st_size


def test_padding_and_white_space_are_allowed() -> None:
    text = json.dumps(GOOD, indent=3).encode() + b"   "
    assert len(parse_header(packed(text, bytes(36))).tensors) == 4


def test_no_tensors() -> None:
    assert parse_header(packed({}), size=10).tensors == {}
    assert parse_header(packed({"__metadata__": {}})).metadata == {}


def test_two_weights_a_byte() -> None:
    assert parse_header(packed({"a": tensor("F4", [3, 2], 0, 3)})).tensors["a"].numel == 6


BAD = {
    "overlap": ({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 3, 7)}, "overlaps"),
    "hole": ({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, "hole"),
    "hole at the start": ({"a": tensor("U8", [4], 1, 5)}, "hole"),
    "backwards": ({"a": tensor("U8", [4], 4, 0)}, "needs 4 bytes"),
    "shape and size differ": ({"a": tensor("F32", [4], 0, 4)}, "needs 16 bytes"),
    "half a byte over": ({"a": tensor("F4", [3], 0, 2)}, "needs 2 bytes"),
    "unknown dtype": ({"a": tensor("Q9", [4], 0, 4)}, "unknown dtype 'Q9'"),
    "negative": ({"a": tensor("U8", [-4], 0, 4)}, "needs dtype"),
    "negative offset": ({"a": tensor("U8", [4], -4, 0)}, "needs dtype"),
    "truth for a number": ({"a": tensor("U8", [True], 0, 1)}, "needs dtype"),
    "fraction": ({"a": tensor("U8", [1.0], 0, 1)}, "needs dtype"),  # type: ignore[list-item]
    "too large": ({"a": tensor("U8", [2**64], 0, 2**64)}, "needs dtype"),
    "product too large": ({"a": tensor("U8", [2**62] * 4, 0, 4)}, "needs"),
    "rank": ({"a": tensor("U8", [1] * 17, 0, 1)}, "17 dimensions"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, "needs"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, "needs"),
    "more keys": ({"a": {**tensor("U8", [1], 0, 1), "code": "x"}}, "needs"),
    "not a tensor": ({"a": 3}, "does not describe"),
    "nested": ({"a": {"dtype": {}, "shape": [1]}}, "does not describe"),
    "not a mapping": ([1], "should be"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "text should begin"),
    "twice": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        "twice",
    ),
    "key twice": (b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', "twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', "twice"),
    "goes on": (b"{}{}", "goes on"),
    "cut": (b'{"a":{"dtype":"U8"', "does not describe"),
    "trailing comma": (b'{"__metadata__":{},}', "text should begin"),
    "deep": (b'{"a":' + b"[" * 100_000, "does not describe"),
    "not unicode": (b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "not JSON"),
    "half a character": (b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "half"),
    "endless number": (b'{"a":{"dtype":"U8","shape":[' + b"9" * 2000 + b"]}}", "needs"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_lying_header_is_refused(case: str) -> None:
    header, reason = BAD[case]
    with pytest.raises(BadSafetensors, match=r"x\.safetensors: ") as raised:
        parse_header(packed(header), name="x.safetensors")
    assert reason in raised.value.message
    assert raised.value.kind == "bad_safetensors"


def test_a_truncated_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    whole = packed(GOOD, bytes(36))
    path = tmp_path / "model-00001-of-00002.safetensors"
    for size in (0, 7, 8, 50, len(whole) - 36, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadSafetensors) as raised:
            read_header(path)
        assert path.name in raised.value.message
        assert "truncated" in raised.value.message
        assert str(size) in raised.value.message
    with pytest.raises(BadSafetensors, match=f"{len(whole) - 1} bytes, .*{len(whole)}"):
        read_header(path)


def test_a_file_that_is_too_long_is_refused() -> None:
    whole = packed(GOOD, bytes(36))
    with pytest.raises(BadSafetensors, match="too long"):
        parse_header(whole, size=len(whole) + 1)


def test_a_header_of_100_mb_is_not_even_read() -> None:
    with pytest.raises(BadSafetensors, match="at most"):
        header_length(struct.pack("<Q", MAX_HEADER + 1))
    with pytest.raises(BadSafetensors, match="at most"):
        header_length(b"\xff" * 8)


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.safetensors.MAX_TENSORS", 20)
    entry = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    text = b"{" + b"".join(entry % number for number in range(21))
    with pytest.raises(BadSafetensors, match="more than 20 tensors"):
        parse_header(packed(text[:-1] + b"}"))


@pytest.mark.parametrize(
    "filler",
    [b"[" * 5_000_000, b'"a":[' + b"0," * 2_500_000, b'"a":{"b":"' + b"x" * 5_000_000],
)
def test_a_hostile_header_takes_little_memory(filler: bytes) -> None:
    data = packed(b"{" + filler)
    tracemalloc.start()
    try:
        with pytest.raises(BadSafetensors):
            parse_header(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    for given_ in (data, packed(data)):
        with contextlib.suppress(BadSafetensors):
            parse_header(given_, size=len(given_))


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_byte_never_breaks_the_reader(data: st.DataObject) -> None:
    whole = bytearray(packed(GOOD, bytes(36)))
    at = data.draw(st.integers(0, len(whole) - 37))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(bytes(whole), size=len(whole))
    except BadSafetensors:
        return
    assert sum(found.end - found.begin for found in header.tensors.values()) == 36


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.text(max_size=5) | st.just("__metadata__"),
        values
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(sorted(BITS)) | values,
                "shape": st.lists(st.integers(-1, 9), max_size=4) | values,
                "data_offsets": st.lists(st.integers(-1, 99), min_size=2, max_size=2) | values,
            }
        ),
        max_size=4,
    )
)
def test_any_json_is_refused_or_read(header: dict[str, Any]) -> None:
    with contextlib.suppress(BadSafetensors):
        parse_header(packed(header))


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(["U8", "BF16", "F32"]), st.lists(st.integers(0, 9), max_size=4)),
        max_size=6,
    ),
    st.booleans(),
)
def test_what_was_written_is_read(
    tensors: dict[str, tuple[str, list[int]]], readable: bool
) -> None:
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = BITS[dtype] // 8
        for length in shape:
            size *= length
        header[name] = tensor(dtype, shape, end, end + size)
        end += size
    text = json.dumps(header, ensure_ascii=not readable).encode()
    read = parse_header(packed(text), size=8 + len(text) + end)
    assert {name: (found.dtype, list(found.shape)) for name, found in read.tensors.items()} == (
        tensors
    )


def test_a_missing_part_is_told_from_the_names_of_the_others() -> None:
    parts = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    assert missing_part(parts) is None
    assert missing_part([*parts, "model.safetensors", "x/a-1-of-2.safetensors"]) is None
    for part in parts:
        assert missing_part([one for one in parts if one != part]) == part
    assert missing_part(["a-00001-of-99999.safetensors"]) == "a-00002-of-99999.safetensors"
    assert missing_part([]) is None


def test_missing_shards_are_named() -> None:
    index = {
        "weight_map": {
            "a": "model-00001-of-00003.safetensors",
            "b": "model-00002-of-00003.safetensors",
            "c": "model-00003-of-00003.safetensors",
            "d": "model-00003-of-00003.safetensors",
        }
    }
    text = json.dumps(index).encode()
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert shards(text, ["config.json", *names]) == names
    with pytest.raises(BadSafetensors) as raised:
        shards(text, names[:1])
    assert "2 of 3 files that are missing" in raised.value.message
    assert "model-00002-of-00003.safetensors, model-00003-of-00003" in raised.value.message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map":[]}',
        b'{"weight_map":{"a":3}}',
        b"[" * 200_000,
        b"\xff",
        b" " * (MAX_INDEX + 1),
    ],
)
def test_a_bad_index_is_refused(text: bytes) -> None:
    with pytest.raises(BadSafetensors, match=r"model\.safetensors\.index\.json"):
        shards(text, [])
