"""Ranges of durations in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.spans import between


@pytest.mark.parametrize(
    ("least", "most", "words"),
    [
        (0, 0, "under 1 s"),
        (0.01, 3, "up to 3 s"),
        (31, 31, "about 31 s"),
        (20.4, 29.6, "20 to 30 s"),
        (45, 240, "0.8 to 4 min"),
        (1200, 1201, "about 20 min"),
        (1800, 7200, "0.5 to 2 h"),
    ],
)
def test_a_range(least: float, most: float, words: str) -> None:
    assert between(least, most) == words


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_any_range_is_words(one: float, other: float) -> None:
    assert between(min(one, other), max(one, other)).split()[-1] in ("s", "min", "h")
