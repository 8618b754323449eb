"""What commands print."""

import pytest

from hub.commands.output import table


def test_tables_print_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "[red]x[/red] [/]", "made_at": 0.0, "none": None, "ok": True}]
    table(rows, ["name", "made_at", "none", "ok"])
    out = capsys.readouterr().out
    assert "[red]x[/red] [/]" in out
    assert "1970-01-01 00:00" in out
    assert "None" not in out
