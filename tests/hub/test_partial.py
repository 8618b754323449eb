"""Tests of hub/partial.py: what has arrived is known after any end."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import NoSpace
from hub.partial import Busy, MiB, Partial, part_size


def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert (partial.parts, partial.done, partial.resumed) == (3, 0, False)
        assert partial.write(4, memoryview(b"efg")) == 3
        assert partial.frontier == 0
    with Partial(tmp_path / "x", 10, 8) as partial:
        assert (partial.part, partial.done, partial.resumed) == (4, 3, True)
        assert partial.write(0, memoryview(b"abcdefghij")) == 7
        assert (partial.frontier, partial.complete) == (10, True)
        assert partial.bytes.read_bytes() == b"abcdefghij"
        partial.discard()
    assert not (tmp_path / "x").exists()


def test_a_file_of_another_size_begins_anew(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 10, 4) as partial:
        partial.write(0, memoryview(b"abcd"))
    with Partial(tmp_path / "x", 11, 4) as partial:
        assert partial.done == 0


@pytest.mark.parametrize("damage", [b"", b"{", b'{"size": "x"}', b"[]", b'{"size": 10, "part": 0}'])
def test_a_damaged_shape_begins_anew(tmp_path: Path, damage: bytes) -> None:
    with Partial(tmp_path / "x", 10, 4) as partial:
        partial.write(0, memoryview(b"abcd"))
    (tmp_path / "x" / "shape").write_bytes(damage)
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert partial.done == 0


def test_a_journal_that_promises_too_much_is_not_believed(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 10, 4):
        pass
    (tmp_path / "x" / "journal").write_bytes(b"\xff" * 24)
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert partial.done == 0


def test_a_publication_that_ended_half_way_has_made_it_read_only(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 10, 4) as partial:
        partial.write(0, memoryview(b"abcdefghij"))
        partial.bytes.chmod(0o444)
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert partial.complete
        # Asked of the mode: root could open it anyway.
        assert partial.bytes.stat().st_mode & 0o600 == 0o600


def test_an_empty_file_is_complete(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 0, 4) as partial:
        assert partial.complete
        assert partial.bytes.read_bytes() == b""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", 10, 4), pytest.raises(Busy):
        Partial(tmp_path / "x", 10, 4)


def test_a_killed_process_leaves_its_bytes_and_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        partial = Partial(tmp_path / "x", 10, 4)
        partial.write(0, memoryview(b"abc"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert partial.done == 3


def test_a_full_disk_is_told_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(NoSpace) as caught:
        Partial(tmp_path / "x", 2**50, MiB)
    assert str(2**50) in caught.value.message
    with Partial(tmp_path / "x", 10, 4) as partial:
        assert partial.done == 0


@given(size=st.integers(0, 2**42), parallel=st.integers(1, 16))
def test_parts_are_neither_tiny_nor_huge(size: int, parallel: int) -> None:
    part = part_size(size, parallel)
    assert 4 * MiB <= part <= 64 * MiB
    assert part % MiB == 0


@settings(max_examples=60)
@given(
    size=st.integers(1, 200),
    part=st.integers(1, 50),
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60)), max_size=30),
)
def test_pieces_in_any_order_make_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    part: int,
    cuts: list[tuple[int, int]],
) -> None:
    data = bytes(range(200))[:size]
    folder = tmp_path_factory.mktemp("p") / "x"
    written = 0
    for which, length in cuts:
        with Partial(folder, size, part) as partial:
            index = which % partial.parts
            at = index * part + partial.have(index)
            written += partial.write(at, memoryview(data[at : at + length]))
            assert partial.done == written
    with Partial(folder, size, part) as partial:
        written += partial.write(0, memoryview(data))
        assert written == size
        assert partial.complete
        assert partial.bytes.read_bytes() == data
