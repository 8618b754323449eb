"""The options of a plugin as flags of `slmhub convert`: from its manifest, by way of the hub."""

from pathlib import Path

import pytest
from commanding import Slmhub
from furnished import add_model, add_plugin

from hub.config import Settings

pytestmark = pytest.mark.usefixtures("hub")
CONVERT = ["convert", "org/model", "toy", "q4"]
DEFAULTS = {"group_size": 64, "careful": True, "ratio": 0.5}


@pytest.fixture(autouse=True)
def _model(settings: Settings, tmp_path: Path) -> None:
    add_plugin(tmp_path / "plugins", settings)
    add_model(settings)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--group-size", "32"], {"group_size": 32}),
        (["--group-size=32", "--no-careful"], {"group_size": 32, "careful": False}),
        (["--careful", "--ratio", "0.25"], {"ratio": 0.25}),
        (["--ratio", "1", "--option", "group_size=32"], {"ratio": 1.0, "group_size": 32}),
        (["--option", "group_size=32"], {"group_size": 32}),
        ([], {}),
    ],
)
def test_every_option_is_a_flag(
    slmhub: Slmhub, arguments: list[str], options: dict[str, object]
) -> None:
    made = slmhub(*CONVERT, *arguments, "--json")
    assert made.code == 0, made.err
    assert made.json["options"] == DEFAULTS | options
    assert made.json["variants"] == ["q4"]


def test_a_flag_may_come_before_the_variants_but_not_before_the_plugin(slmhub: Slmhub) -> None:
    made = slmhub("convert", "org/model", "toy", "--group-size", "32", "q4", "q8", "--json")
    assert (made.json["variants"], made.json["options"]["group_size"]) == (["q4", "q8"], 32)
    early = slmhub("convert", "--group-size", "32", "org/model", "toy", "q4", "--json")
    assert early.code == 2
    assert "Write REPO and PLUGIN before --group-size" in early.failure["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--group-size", "7"], 1, "one of 32, 64"),
        (["--ratio", "x"], 1, "a number from 0 to 1"),
        (["--groupsize", "32"], 2, "--group-size"),
        (["--group-size", "32", "--option", "group_size=64"], 1, "given twice"),
        (["--careful", "--option", "careful=false"], 1, "given twice"),
    ],
)
def test_a_wrong_flag_names_what_is_right(
    slmhub: Slmhub, arguments: list[str], code: int, said: str
) -> None:
    done = slmhub(*CONVERT, *arguments, "--json")
    assert (done.code, done.out) == (code, "")
    assert said in done.failure["message"] + done.failure["hint"]


def test_help_after_a_plugin_shows_its_options(slmhub: Slmhub) -> None:
    shown = slmhub("convert", "org/model", "toy", "--help")
    assert shown.code == 0
    for words in (
        "--group-size INTEGER",
        "Weights that share one scale (one of 32, 64; else 64)",
        "--careful / --no-careful",
        "Takes longer (else true)",
        "--wait",
    ):
        assert words in " ".join(shown.out.split())
    plain = slmhub("convert", "--help")
    assert plain.code == 0
    assert "--group-size" not in plain.out


def test_flags_of_an_unknown_plugin_name_the_known(slmhub: Slmhub) -> None:
    done = slmhub("convert", "org/model", "tin", "q4", "--group-size", "32", "--json")
    assert (done.code, done.failure["kind"]) == (1, "unknown_plugin")
    assert "toy" in done.failure["hint"]


def test_an_option_named_like_a_flag_of_the_command_is_given_by_option(
    slmhub: Slmhub, settings: Settings, tmp_path: Path
) -> None:
    manifest = tmp_path / "plugins" / "toy" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("[options.careful]", "[options.wait]"))
    made = slmhub(*CONVERT, "--option", "wait=false", "--group-size", "32", "--json")
    assert made.code == 0, made.err
    assert made.json["options"] == {"group_size": 32, "wait": False, "ratio": 0.5}


def test_without_a_hub_a_flag_fails_in_words(slmhub: Slmhub) -> None:
    slmhub.set(HUB_URL="http://127.0.0.1:9")
    done = slmhub(*CONVERT, "--group-size", "32", "--json")
    assert (done.code, done.failure["kind"]) == (1, "no_hub")
    assert slmhub("convert", "org/model", "toy", "--help").code == 0
