import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.views import figures


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (None, "unknown"),
        (0, "0"),
        (999, "999"),
        (1_500_000, "1.5 M"),
        (134_515_008, "135 M"),
        (596_049_920, "596 M"),
        (999_885_952, "1 B"),
        (1_720_574_976, "1.72 B"),
        (23_572_403_200, "23.6 B"),
    ],
)
def test_parameters_are_short(number: int | None, words: str) -> None:
    assert figures.count(number).replace("\u00a0", " ") == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1 bytes"), (1234, "1.23 kB"), (999_999, "1 MB"), (1_192_099_840, "1.19 GB")],
)
def test_sizes_are_decimal(number: int, words: str) -> None:
    assert figures.size(number).replace("\u00a0", " ") == words


@pytest.mark.parametrize(
    ("tokens", "words"), [(512, "512"), (40960, "40 K"), (131072, "128 K"), (2**20, "1 M")]
)
def test_context_counts_in_powers_of_two(tokens: int, words: str) -> None:
    assert figures.context(tokens).replace("\u00a0", " ") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0 s"), (3.21, "3.2 s"), (59.9, "59 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")],
)
def test_spans(seconds: float, words: str) -> None:
    assert figures.span(seconds).replace("\u00a0", " ") == words


def test_a_range_that_is_not_known() -> None:
    assert figures.between(None) == "unknown yet"
    assert figures.between((60.0, 120.0)) == "1\u00a0to\u00a02\u00a0min"


def test_moments_are_relative_and_exact() -> None:
    shown = figures.ago(time.time() - 7200)
    assert "2\u00a0h ago" in shown
    assert 'datetime="' in shown
    assert figures.ago(None) == ""


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_a_word_of_a_command_stays_one_word(text: str) -> None:
    assert shlex.split(f"curl {figures.shell(text)}") == ["curl", text]


@given(st.text(), st.text())
def test_addresses_of_files_stay_on_this_hub(revision: str, name: str) -> None:
    address = figures.file_url("org/name", revision, name)
    assert address.startswith("/org/name/resolve/")
    assert not set(address) & set("<>\"' ?#\\\n")
