"""Tests of hub/local.py: a folder as upstream, and nothing beside the folder."""

import os
from pathlib import Path

import pytest

from hub import local
from hub.errors import HubError, InvalidRequest, NotFound
from hub.local import LocalUpstream
from hub.patience import Cancelled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "model"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "secret.json").write_text("secret")
    return made


def test_the_commit_is_a_digest_of_what_is_taken(folder: Path) -> None:
    first = LocalUpstream(folder).snapshot("org/model", "main")
    assert len(first.sha) == 40
    (folder / "notes.py").write_text("1/0")
    (folder / "huge.gguf").write_bytes(b"not taken")
    assert LocalUpstream(folder).snapshot("org/model", "main").sha == first.sha
    (folder / "config.json").write_text("{ }")
    assert LocalUpstream(folder).snapshot("org/model", "main").sha != first.sha


def test_bytes_are_read_from_the_folder(folder: Path) -> None:
    source = LocalUpstream(folder)
    snapshot = source.snapshot("org/model", "main")
    assert source.read(snapshot, "model.safetensors", 1, 4) == b"eig"
    with pytest.raises(HubError):
        source.read(snapshot, "model.safetensors", 1, 400)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "added.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(NotFound, match="leads out"):
        LocalUpstream(folder).snapshot("org/model", "main")


@pytest.mark.parametrize("path", ["../../secret.json", "/etc/passwd", "a\0b", "..", "missing.json"])
def test_paths_stay_inside(folder: Path, path: str) -> None:
    with pytest.raises(HubError):
        LocalUpstream(folder).path(path)


def test_a_named_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(NotFound):
        LocalUpstream(folder).snapshot("org/model", "main")


def test_a_hugging_face_cache_is_read_through_its_links(tmp_path: Path) -> None:
    root = tmp_path / "models--org--model"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / "abc").write_text("{}")
    snapshot = root / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    found = LocalUpstream(snapshot).snapshot("org/model", "main")
    assert [file.path for file in found.files] == ["config.json"]


@pytest.mark.parametrize("folder", [Path("relative"), Path("/does/not/exist"), Path("/etc/passwd")])
def test_what_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest):
        LocalUpstream(folder)


def test_hashing_can_be_cancelled(folder: Path) -> None:
    with pytest.raises(Cancelled):
        LocalUpstream(folder).snapshot("org/model", "main", lambda: True)


def test_a_file_that_may_not_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(local, "hash_file", refuse)
    with pytest.raises(HubError, match=r"may not read config\.json"):
        LocalUpstream(folder).snapshot("org/model", "main")


def test_a_folder_behind_a_closed_one_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert not local.readable(folder)
    with pytest.raises(InvalidRequest, match="may read"):
        LocalUpstream(folder)
