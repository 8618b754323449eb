"""What commands print."""

import pytest

from hub.commands.output import plain, table


def test_tables_print_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "[red]x[/red] [/]", "made_at": 0.0, "none": None, "ok": True}]
    table(rows, ["name", "made_at", "none", "ok"])
    out = capsys.readouterr().out
    assert "[red]x[/red] [/]" in out
    assert "1970-01-01 00:00" in out
    assert "None" not in out


@pytest.mark.parametrize("time", [1e12, 1e30, float("inf"), float("nan"), -1e15])
def test_a_time_beyond_the_calendar_does_not_break_the_table(
    time: float, capsys: pytest.CaptureFixture[str]
) -> None:
    table([{"name": "laptop", "expires_at": time}], ["name", "expires_at"])
    assert "laptop" in (out := capsys.readouterr().out)
    assert f"{time:g} s" in out


def test_what_a_converter_said_does_not_steer_the_terminal() -> None:
    said = "a\tb\r\n\x1b[31mred\x1b]0;title\x07\n10 %\r20 %\r\n"
    assert plain(said) == "a\tb\n\ufffd[31mred\ufffd]0;title\ufffd\n20 %\n"
