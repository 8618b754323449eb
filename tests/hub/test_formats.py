"""Manifests: what is read, what is refused with key and cause, and what options accept."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hub import formats
from hub.config import ROOT, Settings
from hub.errors import Unprocessable
from hub.manifest import Manifest, Option, Run, Variant

MANIFEST = """
api = 1
name = "toy"
title = "Toy"
runtime = "none"
summary = "A toy"
needs = ["config.json", "*.safetensors"]
repo = "{source}-Toy-{variant}"
[[variants]]
name = "4bit"
bits = 4.5
class = "low"
note = "Default"
[[variants]]
name = "8bit"
bits = 8
class = "medium"
note = "Larger"
[options.group]
type = "integer"
choices = [32, 64]
default = 64
help = "Weights that share a scale"
[options.ratio]
type = "number"
minimum = 0
maximum = 1
default = 0.5
help = "Part"
[options.awq]
type = "boolean"
default = false
help = "Slower"
"""


def toy(parent: Path, text: str = MANIFEST, name: str = "toy") -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(text)
    (folder / "requirements.txt").write_text("")
    (folder / "convert.py").write_text("def convert(source, output, variant, options, job): ...\n")
    return folder


@pytest.fixture
def outside(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"plugins": [tmp_path / "outside"]})


def test_a_sound_manifest_is_read_whole(tmp_path: Path) -> None:
    fmt = formats.read(toy(tmp_path))
    assert fmt.problem is None
    assert [variant.name for variant in fmt.variants] == ["4bit", "8bit"]
    assert fmt.variant("4bit").class_ == "low"
    assert fmt.options["group"].choices == [32, 64]
    assert len(fmt.lock_digest) == 64


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*")), ids=lambda path: path.name)
def test_the_plugins_that_are_shipped_are_sound(path: Path) -> None:
    assert formats.read(path).problem is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "Toy"', 'title = "Toy"\ncolour = "red"', "colour: is not a known key"),
        ('title = "Toy"', 'tittle = "Toy"', "tittle: is not a known key; 'title' is"),
        ("bits = 4.5", "bit = 4.5", "variants.0.bit: is not a known key; 'bits' is"),
        ('note = "Default"', "", "variants.0.note: is missing"),
        (
            'class = "low"',
            'class = "low"\npicks = true',
            "variants.0.picks: is not a known key; 'pi",
        ),
        ('title = "Toy"', "title = 3", "title: Input should be a valid string"),
        ('title = "Toy"', "", "title: is missing"),
        ("bits = 4.5", 'bits = "4.5"', "variants.0.bits: "),
        ("bits = 4.5", "bits = 0", "variants.0.bits: "),
        ('class = "low"', 'class = "tiny"', "variants.0.class: "),
        ('name = "8bit"', 'name = "4BIT"', "variants: '4BIT' is there twice"),
        ('name = "4bit"', 'name = "../x"', "variants.0.name: "),
        ('name = "toy"', 'name = "Toy!"', "name: "),
        ('name = "toy"', 'name = "other"', "name: 'other' must be the name of its folder"),
        ("{source}-Toy-{variant}", "{sauce}", "repo: only {source} and {variant}"),
        ("{source}-Toy-{variant}", "{source.__class__}", "repo: "),
        ("{source}-Toy-{variant}", "{source}/x", "repo: must hold {source}"),
        ("{source}-Toy-{variant}", "fixed", "repo: must hold {source}"),
        ("default = 64", "default = 48", "options.group: the default 48 is not allowed"),
        ("default = 64", "default = true", "options.group: True is not of type integer"),
        ("default = 0.5", "default = nan", "options.ratio: nan is not of type number"),
        ("minimum = 0", "minimum = 2", "options.ratio: minimum is above maximum"),
        ("[options.awq]", '[options."A B"]', "options."),
        ("api = 1", "api = 0", "api: 0 is not spoken here; this hub speaks 1"),
        ("api = 1", "api = true", "api: True is not spoken here"),
        ("api = 1", "", "api: None is not spoken here"),
        ("api = 1", "api = ", "plugin.toml: "),
        ("api = 1", 'api = 1\ncommand = "sh x"', "command: "),
    ],
)
def test_a_wrong_manifest_names_key_and_cause(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in MANIFEST
    fmt = formats.read(toy(tmp_path, MANIFEST.replace(old, new, 1)))
    assert fmt.problem is not None
    assert fmt.problem.startswith(said), fmt.problem
    assert fmt.name == "toy"


@pytest.mark.parametrize("missing", ["convert.py", "requirements.txt"])
def test_a_missing_file_is_a_problem(tmp_path: Path, missing: str) -> None:
    folder = toy(tmp_path)
    (folder / missing).unlink()
    assert str(formats.read(folder).problem).startswith(f"{missing}: is missing")


def test_a_manifest_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    folder = toy(tmp_path)
    (folder / "plugin.toml").write_bytes(b"\xff\xfe\0")
    assert formats.read(folder).problem


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(Manifest.model_fields)),
)
def test_no_value_of_any_key_breaks_the_reader(value: Any, key: str) -> None:
    raw = tomllib.loads(MANIFEST) | {key: value}
    try:
        Manifest.model_validate(raw)
    except ValueError:
        return


def test_broken_plugins_are_listed_and_harm_nobody(outside: Settings) -> None:
    toy(outside.plugins[0])
    toy(outside.plugins[0], "api = ", "wreck")
    (outside.plugins[0] / "not-a-plugin").mkdir()
    known = formats.formats(outside)
    assert {"echo", "gguf", "toy", "wreck"} <= set(known)
    assert "not-a-plugin" not in known
    assert formats.state(outside, known["wreck"]).name == "broken"
    with pytest.raises(Unprocessable, match="'wreck' is broken: plugin") as caught:
        formats.get(outside, "wreck")
    assert caught.value.kind == "broken_plugin"


def test_of_two_plugins_of_one_name_the_first_wins_and_the_other_is_told(
    outside: Settings,
) -> None:
    toy(outside.plugins[0], MANIFEST.replace('"toy"', '"echo"', 1), "echo")
    assert formats.formats(outside)["echo"].title == "Echo"
    *_, lost = formats.shown(outside)
    assert lost.title == "Toy"
    assert "taken" in str(lost.problem)


def test_a_plugin_itself_may_be_named_among_the_folders(settings: Settings, tmp_path: Path) -> None:
    settings.plugins.append(toy(tmp_path / "outside"))
    assert formats.get(settings, "toy").folder == tmp_path / "outside" / "toy"


def test_what_was_added_comes_last(settings: Settings, tmp_path: Path) -> None:
    toy(settings.added_plugins)
    assert formats.get(settings, "toy").folder.parent == settings.added_plugins
    settings.plugins.append(tmp_path / "outside")
    toy(settings.plugins[0])
    assert formats.get(settings, "toy").folder.parent == settings.plugins[0]
    toys = [fmt for fmt in formats.shown(settings) if fmt.name == "toy"]
    assert [fmt.folder.parent for fmt in toys] == [settings.plugins[0], settings.added_plugins]


def test_an_unknown_plugin_names_the_known(settings: Settings) -> None:
    with pytest.raises(Unprocessable) as caught:
        formats.get(settings, "nonsense")
    assert caught.value.kind == "unknown_plugin"
    assert "echo" in caught.value.hint


def test_an_unknown_variant_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable) as caught:
        formats.read(toy(tmp_path)).variant("5bit")
    assert caught.value.kind == "unknown_variant"
    assert "4bit, 8bit" in caught.value.hint


def test_options_are_typed_and_defaults_filled_in(tmp_path: Path) -> None:
    fmt = formats.read(toy(tmp_path))
    assert fmt.validate_options({}) == {"group": 64, "ratio": 0.5, "awq": False}
    given = {"group": "32", "ratio": "0.25", "awq": "true"}
    assert fmt.validate_options(given) == {"group": 32, "ratio": 0.25, "awq": True}
    assert fmt.validate_options({"ratio": 1}) == {"group": 64, "ratio": 1.0, "awq": False}


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("group", 48, "one of 32, 64"),
        ("group", "x", "one of 32, 64"),
        ("group", 64.5, "one of 32, 64"),
        ("group", True, "one of 32, 64"),
        ("ratio", 1.01, "a number from 0 to 1"),
        ("ratio", "nan", "a number from 0 to 1"),
        ("ratio", "inf", "a number from 0 to 1"),
        ("ratio", None, "a number from 0 to 1"),
        ("awq", "maybe", "true or false"),
        ("awq", [True], "true or false"),
        ("bits", 4, "group, ratio, awq"),
    ],
)
def test_a_wrong_option_names_what_is_allowed(
    tmp_path: Path, name: str, value: object, hint: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        formats.read(toy(tmp_path)).validate_options({name: value})
    assert hint in caught.value.hint
    assert name in caught.value.message


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_an_option_gives_an_allowed_value_or_a_value_error(value: object) -> None:
    option = Option(type="integer", minimum=-5, maximum=5, default=0, help="x")
    try:
        parsed = option.parse(value)
    except ValueError:
        return
    assert type(parsed) is int
    assert -5 <= parsed <= 5


def test_names_of_derived_repos_follow_the_community(settings: Settings, tmp_path: Path) -> None:
    fmt = formats.read(toy(tmp_path))
    assert formats.derived_repo(fmt, settings, "Qwen/Qwen3-0.6B", "4bit") == (
        "hub/Qwen_Qwen3-0.6B-Toy-4bit"
    )


def test_a_command_keeps_braces_that_are_no_placeholder() -> None:
    run = Run(title="x", command="""curl {hub} -d '{"model": "{repo}"}'""")
    assert run.fill(hub="H", repo="R") == """curl H -d '{"model": "R"}'"""


def test_what_is_needed_is_checked_by_name(tmp_path: Path) -> None:
    fmt = formats.read(toy(tmp_path))
    assert fmt.lacks(["config.json", "model.safetensors"]) is None
    assert "*.safetensors" in str(fmt.lacks(["config.json", "model.bin"]))


def test_the_state_says_what_to_do(outside: Settings) -> None:
    toy(outside.plugins[0])
    fmt = formats.get(outside, "toy")
    assert str(formats.state(outside, fmt)).startswith("not installed: run `slmhub plugins install")
    place = formats.environment(outside, fmt)
    place.parent.mkdir(parents=True)
    place.with_name(place.name + ".broken").write_text("no wheel\n")
    assert str(formats.state(outside, fmt)) == "broken: no wheel"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('platforms = ["amiga-68k"]', "it runs on amiga-68k"),
        ('command = ["no-such-program"]', "its program 'no-such-program' is not"),
    ],
)
def test_what_cannot_run_here_says_so(outside: Settings, line: str, reason: str) -> None:
    toy(outside.plugins[0], MANIFEST.replace("api = 1", f"api = 1\n{line}"))
    state = formats.state(outside, formats.get(outside, "toy"))
    assert state.name == "unsupported here"
    assert state.reason.startswith(reason)


def test_other_pins_ask_for_another_environment(outside: Settings) -> None:
    folder = toy(outside.plugins[0])
    before = formats.environment(outside, formats.get(outside, "toy"))
    (folder / "requirements.txt").write_text("six==1.17.0\n")
    assert formats.environment(outside, formats.get(outside, "toy")) != before
    shutil.rmtree(folder)


@pytest.mark.parametrize("table", [Manifest, Variant, Option, Run])
def test_every_key_of_the_manifest_is_documented(table: type[BaseModel]) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    for name, field in table.model_fields.items():
        assert f"`{field.alias or name}`" in text
