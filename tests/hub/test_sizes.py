"""Numbers of bytes."""

import pytest

from hub.sizes import size


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (5.2e6, "5.2 MB"),
        (397_800_000, "397.8 MB"),
        (2e9, "2.0 GB"),
        (3.2e12, "3.2 TB"),
        (3e15, "3,000.0 TB"),
    ],
)
def test_sizes(count: float, shown: str) -> None:
    assert size(count) == shown
