"""The documents name what the code has, and nothing it has not."""

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest

from hub.app import create_app
from hub.cli import cli
from hub.config import Settings
from hub.manifest import Manifest, Option, Run, Variant

ROOT = Path(__file__).parent.parent
OPERATING = (ROOT / "docs" / "operating.md").read_text()


def test_every_setting_is_in_the_operators_table() -> None:
    rows = set(re.findall(r"^\| `HUB_(\w+)` \|", OPERATING, re.M))
    assert rows == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_does(name: str) -> None:
    assert Settings.model_fields[name].description


def test_the_documents_use_only_settings_that_exist() -> None:
    known = {f"HUB_{name.upper()}" for name in Settings.model_fields} | {"HUB_URL", "HUB_TOKEN"}
    known |= {"HUB_TEST_POSTGRES_URL", "HUB_TEST_NO_SKIP"}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        used = set(re.findall(r"\bHUB_[A-Z_]+[A-Z]\b", path.read_text()))
        assert used <= known, path


def commands(group: click.Group, prefix: str = "slmhub") -> list[str]:
    found = []
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        found += commands(command, path) if isinstance(command, click.Group) else [path]
    return found


@pytest.mark.parametrize("command", commands(cli))
def test_every_command_is_documented(command: str) -> None:
    assert f"`{command}" in (ROOT / "docs" / "cli.md").read_text()


def test_every_key_of_a_manifest_is_in_the_authors_table() -> None:
    plugins = (ROOT / "docs" / "plugins.md").read_text()
    table = plugins[plugins.index("## The manifest") : plugins.index("## States")]
    named = set(re.findall(r"`([a-z]+)`", table))
    for model in (Manifest, Variant, Option, Run):
        for name, field in model.model_fields.items():
            assert (field.alias or name) in named


def test_every_route_is_documented(settings: Settings) -> None:
    api = (ROOT / "docs" / "api.md").read_text()
    for rule in create_app(settings).url_map.iter_rules():
        shown = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        assert f"`{'` `'.join(methods)} {shown}`" in api, f"{methods} {shown}"


def test_the_wire_is_documented_whole() -> None:
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    shim = (ROOT / "workers" / "shim.py").read_text()
    for key in set(re.findall(r"request\[\"(\w+)\"\]", shim)):
        assert f"`{key}`" in protocol
    for event in ("progress", "artefact", "done", "error"):
        assert f"| `{event}` |" in protocol


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("plugins/*/plugin.toml")), ids=lambda p: p.parent.name
)
def test_every_plugin_has_a_readme_that_names_its_variants(path: Path) -> None:
    readme = (path.parent / "README.md").read_text()
    for variant in tomllib.loads(path.read_text())["variants"]:
        assert variant["name"] in readme


def test_the_support_matrix_is_of_these_plugins_and_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / "docs" / "support.md").read_text("utf-8")
    for path in sorted(ROOT.glob("plugins/*/plugin.toml")):
        manifest = tomllib.loads(path.read_text("utf-8"))
        if not manifest.get("hidden"):
            row = f"| {manifest['title']} | {manifest['name']} {manifest['version']} |"
            assert row in text, "draw it anew: python -m bench.support"
    monkeypatch.syspath_prepend(ROOT / "samples")
    for model in importlib.import_module("zoo").MODELS.values():
        assert f"| {model.published} |" in text
    assert "| not tried" not in text
    assert "though it works" not in text


def test_the_readme_shows_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
