"""`slmhub plugins new`: what it writes is a sound plugin, and nothing is overwritten."""

from pathlib import Path

import pytest

from hub import formats, scaffold
from hub.config import Settings
from hub.errors import Conflict, HubError, InvalidRequest


def test_a_new_plugin_is_sound_and_found(settings: Settings) -> None:
    folder = scaffold.write(settings, "my-fmt", settings.added_plugins)
    assert {path.name for path in folder.iterdir()} == {
        "plugin.toml", "convert.py", "test_convert.py", "README.md", "requirements.in",
        "requirements.txt",
    }  # fmt: skip
    fmt = formats.get(settings, "my-fmt")
    assert (fmt.folder, fmt.title, fmt.repo) == (folder, "My Fmt", "{source}-MY-FMT")
    assert formats.state(settings, fmt).name == "not installed"
    for path in folder.iterdir():
        assert "skeleton" not in path.read_text().lower()


@pytest.mark.parametrize("name", ["0", "0-0", "a-", "class", "a" * 40])
def test_any_name_makes_a_sound_one(settings: Settings, tmp_path: Path, name: str) -> None:
    folder = scaffold.write(settings, name, tmp_path)
    assert formats.read(folder).problem is None
    for path in folder.glob("*.py"):
        compile(path.read_text(), path, "exec")


@pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a b", "../a", "a/b", "é", "a" * 41, "a\n"])
def test_a_bad_name_is_refused_with_what_is_good(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of a plugin") as caught:
        scaffold.write(settings, name, tmp_path / "parent")
    assert "a-z, 0-9 and '-'" in caught.value.hint
    assert not (tmp_path / "parent").exists()


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("plugins", "reserved_name", "word of the hub's own addresses"),
        ("gguf", "plugin_exists", "There is a plugin 'gguf' already"),
        ("mine", "folder_exists", "There is a folder or file mine in"),
    ],
)
def test_a_name_that_is_taken_is_refused(
    settings: Settings, tmp_path: Path, name: str, kind: str, said: str
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(HubError, match=said) as caught:
        scaffold.write(settings, name, tmp_path)
    assert caught.value.kind == kind
    assert caught.value.hint
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_that_is_none_is_told(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="cannot be written to: Not a directory"):
        scaffold.write(settings, "mine", tmp_path / "file")
    with pytest.raises(Conflict):
        scaffold.write(settings, "file", tmp_path)
