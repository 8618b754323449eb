"""What commands print."""

import pytest

from hub.commands.output import size, table


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5.2e6, "5.2 MB"), (2e9, "2.0 GB"),
     (3.2e12, "3.20 TB"), (3e15, "3000.00 TB")],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_tables_print_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "[red]x[/red] [/]", "made_at": 0.0, "none": None, "ok": True}]
    table(rows, ["name", "made_at", "none", "ok"])
    out = capsys.readouterr().out
    assert "[red]x[/red] [/]" in out
    assert "1970-01-01 00:00" in out
    assert "None" not in out
