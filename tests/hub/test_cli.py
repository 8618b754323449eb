"""The edge of the command line: every failure is a sentence, a next step and an exit code."""

import logging
import sqlite3

import click
import pytest
from commanding import Slmhub
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from hub import cli
from hub.config import Settings


@pytest.fixture
def slmhub(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Slmhub:
    made = Slmhub(monkeypatch, capsys)
    made.set(HUB_DATA=str(settings.data), HUB_PORT="", HUB_HOST="")
    return made


@pytest.fixture
def failing(slmhub: Slmhub, monkeypatch: pytest.MonkeyPatch) -> Slmhub:
    """`slmhub` with a further command that raises what the test puts into `error`."""

    @click.command()
    @click.option("--json", "json_", is_flag=True)
    def fail(json_: bool) -> None:
        raise slmhub.error  # type: ignore[attr-defined]

    monkeypatch.setitem(cli.cli.commands, "fail", fail)
    return slmhub


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "0"),
        ("SANDBOX", "none"),
        ("LEASE", "-1"),
        ("SLOTS", "many"),
        ("DATABASE_URL", "mysql://user:secret@host/x"),
        ("DATABASE_URL", "nonsense"),
    ],
)
def test_a_wrong_setting_is_named(slmhub: Slmhub, name: str, value: str) -> None:
    slmhub.set(**{f"HUB_{name}": value})
    done = slmhub("gc", "--json")
    assert (done.code, done.out, done.failure["kind"]) == (1, "", "setting")
    assert f"HUB_{name} is wrong" in done.failure["message"]
    assert "operating.md" in done.failure["hint"]
    assert slmhub("gc").err.startswith(f"Error: The setting HUB_{name} is wrong: ")
    assert "secret" not in done.err


def test_all_wrong_settings_are_named(slmhub: Slmhub) -> None:
    slmhub.set(HUB_PORT="x", HUB_LEASE="y")
    assert [line.split()[3] for line in slmhub("gc").err.splitlines() if "Error" in line] == [
        "HUB_PORT",
        "HUB_LEASE",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["jobs", "nothing"], ["convert"], ["jobs", "show", "x"], ["gc", "--what"],
     ["jobs", "list", "--limit", "0"]],
)  # fmt: skip
def test_a_command_that_is_none(slmhub: Slmhub, arguments: list[str]) -> None:
    done = slmhub(*arguments, "--json")
    assert (done.code, done.out, done.failure["kind"]) == (2, "", "usage")
    assert "--help" in done.failure["hint"]
    assert "Error: " in slmhub(*arguments).err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["jobs", "--help"]])
def test_help_is_no_failure(slmhub: Slmhub, arguments: list[str]) -> None:
    done = slmhub(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize(
    "url", ["sqlite:", "postgresql://user:secret@127.0.0.1:1/x", "sqlite:////proc/x"]
)
def test_a_database_that_cannot_be_used(slmhub: Slmhub, url: str) -> None:
    slmhub.set(HUB_DATABASE_URL=url)
    done = slmhub("token", "list", "--json")
    assert (done.code, done.out, done.failure["kind"]) == (1, "", "database_away")
    assert "HUB_DATABASE_URL" in done.failure["hint"]
    assert "secret" not in done.err


def test_an_empty_database_says_what_makes_the_tables(slmhub: Slmhub, settings: Settings) -> None:
    slmhub.set(HUB_DATABASE_URL=f"sqlite:///{settings.data}/other.sqlite")
    assert "slmhub migrate" in slmhub("token", "list", "--json").failure["hint"]


def test_the_unexpected_has_a_number_and_goes_to_the_log(
    failing: Slmhub, caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = RuntimeError("private words")  # type: ignore[attr-defined]
    done = failing("fail", "--json")
    assert (done.code, done.failure["kind"]) == (1, "error")
    assert "private words" not in done.err
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.exc_info
    assert record.getMessage().split()[-1] in done.failure["message"]


def test_only_settings_are_called_settings(failing: Slmhub) -> None:
    class Other(BaseModel):
        size: int

    with pytest.raises(ValueError, match="size") as caught:
        Other.model_validate({"size": "x"})
    failing.error = caught.value  # type: ignore[attr-defined]
    assert "HUB_SIZE" not in failing("fail", "--json").err


def test_the_first_line_of_a_databases_words(failing: Slmhub) -> None:
    cause = sqlite3.OperationalError("database is locked\nand more")
    failing.error = OperationalError("SELECT secret", {}, cause)  # type: ignore[attr-defined]
    done = failing("fail")
    assert done.err.startswith("Error: The database cannot be used: database is locked.\n")
    assert "SELECT" not in done.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_no_error_of_the_hub(failing: Slmhub, error: BaseException) -> None:
    failing.error = error  # type: ignore[attr-defined]
    done = failing("fail")
    assert (done.code, done.err.strip()) == (130, "")
