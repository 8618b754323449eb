"""Tests of hub/mirror.py: from a fake hub on loopback into the store."""

from collections.abc import Iterator

import pytest
from fakehub import FakeHub, tiny_model

from hub import db, mirror, repos
from hub.blobs import BlobStore
from hub.config import Settings


@pytest.fixture
def upstream() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def at(settings: Settings, upstream: FakeHub) -> Settings:
    return settings.model_copy(update={"upstream": upstream.url})


def run(settings: Settings, repo: str = "org/model", revision: str = "main") -> str:
    return mirror.mirror(settings, mirror.plan(settings, repo, revision), report=lambda *_: None)


def test_what_is_mirrored_is_what_upstream_has(at: Settings, upstream: FakeHub) -> None:
    files = tiny_model()
    sha = upstream.add("org/model", files)
    assert run(at) == sha
    store = BlobStore(at.blobs)
    with db.reading(at.database) as session:
        repo = repos.find(session, "org/model")
        commit = repos.resolve(session, repo, "main")
        assert commit.sha == sha
        found = {file.path: file for file in repos.files(session, commit)}
    assert set(found) == set(files) - {".gitattributes"}
    for path, file in found.items():
        with store.open(file.sha256) as blob:
            assert blob.read() == files[path]
        theirs = upstream.repos["org/model"].commits[sha][path]
        assert (file.git_sha1, file.lfs) == (theirs.git_sha1, theirs.lfs)
    assert repo.parameters == 64 * 64
    assert repo.license == "apache-2.0"
    assert not list((at.data / "partial").iterdir())
