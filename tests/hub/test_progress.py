"""Progress without a terminal: few lines, each of which says something new."""

import pytest

from hub.progress import bar


def test_a_line_for_every_tenth_and_every_kind_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("mirror org/model") as report:
        report(None, "waiting")
        for done in range(1001):
            report(done / 1000, f"downloading {done} of 1000")
        report(1.0, "publishing")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "mirror org/model: waiting"
    assert lines[1] == "mirror org/model:   0% downloading 0 of 1000"
    assert lines[-1] == "mirror org/model: 100% publishing"
    assert len(lines) == 13


def test_a_failure_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), bar("title") as report:
        report(1 / 0, "never")


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with bar("fsck") as report:
        report(None, "counting")
        report(0.5, "half [/done]")
    assert "half [/done]" in capsys.readouterr().err
