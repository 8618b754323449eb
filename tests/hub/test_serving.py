"""Which bytes a Range header asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.serving import Span, Unsatisfiable, span


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-5", Span(2, 6)),
        ("bytes=5-", Span(5, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=8-99", Span(8, 10)),
        ("BYTES=0-1", Span(0, 2)),
        ("bytes= 0 - 1 ", Span(0, 2)),
        ("bytes=0-1,4-5", None),
        ("bytes=0-1,10-", Span(0, 2)),
        ("items=0-1", None),
        ("bytes", None),
        ("bytes=", None),
    ],
)
def test_what_is_asked_for(header: str | None, expected: Span | None) -> None:
    assert span(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [
        "10-",
        "10-20",
        "-0",
        "5-2",
        "a-b",
        "-",
        "1-2-3",
        "+1-2",
        "٣-٤",
        "0-99999999999999999999",
        "0-1,x",
        "0x1-2",
    ],
)
def test_what_cannot_be_had(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        span(f"bytes={header}", 10)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-9", "bytes=-5"])
def test_an_empty_file_is_sent_whole(header: str) -> None:
    assert span(header, 0) is None


@given(st.text(max_size=40), st.integers(0, 2**63 - 1))
def test_any_header_is_understood_or_refused(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            part = span(header, size)
        except Unsatisfiable:
            continue
        assert part is None or 0 <= part.start < part.end <= size


@given(st.data(), st.integers(1, 2**62))
def test_a_range_inside_the_file_is_that_range(data: st.DataObject, size: int) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    assert span(f"bytes={first}-{last}", size) == Span(first, last + 1)
    assert span(f"bytes={first}-", size) == Span(first, size)
    assert span(f"bytes=-{size - first}", size) == Span(first, size)
