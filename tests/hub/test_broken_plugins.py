"""Plugins that are broken, too old, not built or of a name that is taken: shown, and harmless."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commanding import Slmhub
from flask.testing import FlaskClient
from furnished import MANIFEST, add_artefact, add_model, add_plugin

from hub import formats, queue
from hub.app import create_app
from hub.config import Settings

BROKEN = {
    "torn": ("api = ", "plugin.toml: "),
    "old": (MANIFEST.replace("api = 1", "api = 0"), "api: 0 is not spoken here; this hub speaks 1"),
    "young": (MANIFEST.replace("api = 1", "api = 2"), "api: 2 is not spoken here"),
    "misspelt": (
        MANIFEST.replace("licenses", "licences"),
        "licences: is not a known key; 'licenses' is",
    ),
    "typed": (MANIFEST.replace("bits = 32", 'bits = "32"'), "variants.0.bits: Input should be a"),
    "twice": (
        MANIFEST.replace('"toy"', '"twice"', 1).replace('"q8"', '"q4"'),
        "variants: 'q4' is there twice",
    ),
    "moved": (MANIFEST, "name: 'toy' must be the name of its folder, 'moved'"),
    "deep": ("a = " + "[" * 5000, "plugin.toml: it is nested too deeply"),
    "large": ("#" * (formats.LIMIT + 1), "plugin.toml: it is larger than 1,048,576 bytes"),
    "binary": ("\0\0", "plugin.toml: "),
}


@pytest.fixture
def crowd(settings: Settings, tmp_path: Path) -> Settings:
    """A hub with a sound plugin among broken ones of every kind, which come first."""
    parent = tmp_path / "a"
    for name, (text, _) in BROKEN.items():
        (parent / name).mkdir(parents=True)
        (parent / name / "plugin.toml").write_text(text)
        (parent / name / "convert.py").write_text("raise SystemExit('it ran')")
        (parent / name / "requirements.txt").touch()
    clash = parent / "echo"
    clash.mkdir()
    (clash / "plugin.toml").write_text(MANIFEST.replace('"toy"', '"echo"', 1))
    (clash / "convert.py").touch()
    (clash / "requirements.txt").touch()
    settings.plugins.append(parent)
    add_plugin(tmp_path / "b", settings)
    return settings


@pytest.fixture
def client(crowd: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr(queue, "ring", lambda *_: None)
    with create_app(crowd).test_client() as client:
        yield client


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_listed_with_its_reason(crowd: Settings, client: FlaskClient, name: str) -> None:
    fmt = formats.formats(crowd)[name]
    assert str(fmt.problem).startswith(BROKEN[name][1]), fmt.problem
    assert fmt.remedy
    listed = client.get("/api/v1/plugins").json
    assert listed is not None
    (found,) = [one for one in listed["items"] if one["name"] == name]
    assert (found["state"], found["reason"]) == ("broken", fmt.problem)
    assert BROKEN[name][1] in client.get("/plugins").text.replace("&#39;", "'")


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_refused_when_it_is_asked_for(client: FlaskClient, name: str) -> None:
    body = {"repo": "org/model", "plugin": name, "variants": ["q4"]}
    answer = client.post("/api/v1/conversions", json=body)
    assert answer.json is not None
    assert (answer.status_code, answer.json["kind"]) == (422, "broken_plugin")
    assert BROKEN[name][1] in answer.json["detail"]
    assert answer.json["hint"]


def test_none_harms_the_sound_ones(crowd: Settings, client: FlaskClient) -> None:
    add_artefact(crowd, add_model(crowd))
    assert formats.get(crowd, "echo").title == "Echo"
    body = {"repo": "org/model", "plugin": "toy", "variants": ["q4"]}
    assert client.post("/api/v1/conversions", json=body).status_code == 202
    for page in ("/", "/org/model", "/plugins", "/jobs", "/hub/org_model-TOY"):
        assert client.get(page).status_code == 200
    assert "taken by a plugin of an earlier folder" in client.get("/plugins").text
    listed = client.get("/api/v1/plugins").json
    assert listed is not None
    used, lost = (one for one in listed["items"] if one["name"] == "echo")
    assert used["state"] != "broken"
    assert "taken by a plugin of an earlier folder" in lost["reason"]


def test_the_command_line_lists_them_all(
    crowd: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slmhub = Slmhub(monkeypatch, capsys)
    slmhub.set(HUB_DATA=str(crowd.data), HUB_PLUGINS=",".join(map(str, crowd.plugins)))
    rows = slmhub("plugins", "list", "--json").json
    states = {row["name"]: row["state"] for row in rows}
    assert {name for name, state in states.items() if state == "broken"} == {*BROKEN, "echo"}
    assert states["toy"] == "ready"


def test_a_manifest_that_is_a_pipe_or_a_folder_is_not_waited_for(
    settings: Settings, tmp_path: Path
) -> None:
    for name in ("pipe", "folder"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / "plugin.toml")
    (tmp_path / "folder" / "plugin.toml").mkdir()
    (tmp_path / "lost").symlink_to("nowhere")
    settings.plugins.append(tmp_path)
    assert "pipe" not in formats.formats(settings)


def test_a_folder_of_plugins_that_is_gone_or_a_file_harms_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings.plugins += [tmp_path / "gone", tmp_path / "file"]
    assert "echo" in formats.formats(settings)


def test_a_folder_that_may_not_be_read_is_broken(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "plugins" / "shut"
    shut.mkdir(parents=True)
    settings.plugins.append(shut.parent)

    # Not by chmod: root may read everything.
    def refuse(path: Path, *given: object) -> bool:
        if shut in path.parents:
            raise PermissionError(13, "Permission denied")
        return bool(is_file(path, *given))

    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", refuse)
    fmt = formats.formats(settings)["shut"]
    assert fmt.problem == "plugin.toml: No such file or directory"  # as far as root can see
    assert "echo" in formats.formats(settings)
