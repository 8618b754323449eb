"""The commands of an artefact: words of a shell, whatever the names in them hold."""

import shlex
from pathlib import Path

import pytest

from hub import cards
from hub.commandlines import commands
from hub.config import Settings
from hub.formats import Format
from hub.manifest import Run, Variant
from hub.models import Artefact

HUB = "http://127.0.0.1:8080"
FORMAT = Format(
    folder=Path("/nowhere"),
    name="toy",
    title="Toy",
    runtime="toy",
    summary="toys",
    variants=[Variant(name="q8", bits=8.5, class_="medium", note="Nearly all")],
    run=[Run(title="Play", command="toy {hub} {repo} {variant} {file} {url} {other}")],
)


def artefact(*paths: str) -> Artefact:
    return Artefact(
        key="k",
        source="org/model",
        source_commit="c" * 40,
        plugin="toy",
        plugin_version="1",
        lock_digest="ab" * 32,
        variant="q8",
        repo="hub/org_model-TOY",
        commit="d" * 40,
        files=[{"path": path, "size": 1, "sha256": "e" * 64} for path in paths],
        size=len(paths),
        sandbox="strict",
    )


def words(*paths: str) -> dict[str, list[str]]:
    return {one.title: shlex.split(one.text) for one in commands(HUB, FORMAT, artefact(*paths))}


def test_a_plain_name() -> None:
    url = f"{HUB}/hub/org_model-TOY/resolve/main/model-q8.toy"
    fetch = [f"HF_ENDPOINT={HUB}", "hf", "download", "hub/org_model-TOY", "model-q8.toy"]
    assert words("model-q8.toy") == {
        "curl": ["curl", "-LO", url],
        "Hugging Face client": [*fetch, "--local-dir", "."],
        "Play": ["toy", HUB, "hub/org_model-TOY", "q8", "model-q8.toy", url, "{other}"],
    }


@pytest.mark.parametrize(
    "path", ["a b.toy", "a'; rm -rf ~ #.toy", "$(id)`id`.toy", "{url}.toy", "sub/q8.toy", "é.toy"]
)
def test_the_file_is_one_word_and_the_same_in_all(path: str) -> None:
    made = words(path)
    # curl would keep the name as the address has it: it is told where to put the file.
    assert made["curl"][:4] == ["curl", "-L", "--create-dirs", "-o"]
    assert made["curl"][4] == path
    assert made["Hugging Face client"][4] == path
    assert made["Play"][4] == path
    assert made["curl"][5] == made["Play"][5]
    assert made["Play"][6:] == ["{other}"]


def test_several_files_are_fetched_at_once() -> None:
    made = words("config.json", "sub/weights.toy")
    assert "curl" not in made
    assert made["Hugging Face client"][4:6] == ["config.json", "sub/weights.toy"]
    assert made["Play"][4] == "config.json"


def test_without_a_format_it_can_still_be_fetched() -> None:
    assert [one.title for one in commands(HUB, None, artefact("x"))] == [
        "curl",
        "Hugging Face client",
    ]
    assert commands(HUB, FORMAT, artefact()) == []


def test_the_card_has_the_same_commands(settings: Settings) -> None:
    row = artefact("a b.toy")
    card = cards.card(settings, FORMAT, {}, [row])
    made = commands(settings.base_url, FORMAT, row)
    assert len(made) == 3
    for one in made:
        assert f"{one.title}:\n\n```\n{one.text}\n```\n" in card
