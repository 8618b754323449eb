"""Publishing: whole or not at all, once, and only by the one who holds the job."""

import threading
from pathlib import Path
from typing import Any

import pytest
from published import publish as mirrored
from sqlalchemy import update
from sqlmodel import Session, col, select

from hub import artefacts, db, leases, repos
from hub.artefacts import Made, Recipe, Source
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from hub.leases import Claim, LostLease
from hub.manifest import Variant
from hub.models import Artefact, Blob, Commit, Job
from hub.repos import Entry

FORMAT = Format(
    folder=Path("/nowhere"),
    name="gguf",
    title="GGUF",
    version="1",
    runtime="llama.cpp",
    summary="any CPU",
    repo="{source}-GGUF",
    variants=[Variant(name=f"Q{n}", bits=n, class_="low", note=f"note {n}") for n in range(1, 9)],
)
NAME = "hub/org_model-GGUF"
FACTS = {"license": "mit", "parameters": 10**9, "tier": "micro", "languages": ["en"]}
RECIPE = Recipe({"o": 1}, {"tool": "2"}, "strict")


def claim(settings: Settings, key: str = "job") -> Claim:
    with db.writing(settings.database) as session:
        job = Job(kind="convert", request_key=key, repo="org/model")
        session.add(job)
    found = leases.claim(settings, job.id or 0, "w")
    assert found is not None
    return found


def source(settings: Settings, weights: bytes = b"w") -> Source:
    files = {"LICENSE": b"free", "docs/LICENSE": b"no", "config.json": b"{}", "w": weights}
    sha = mirrored(settings, "org/model", files, facts=FACTS)
    with db.reading(settings.database) as session:
        commit = repos.resolve(session, repos.find(session, "org/model"), sha)
        entries = [
            Entry(file.path, file.sha256, file.size, file.git_sha1)
            for file in repos.files(session, commit)
        ]
    return Source("org/model", sha, entries, FACTS)


def made(tmp_path: Path, variant: str, content: bytes | None = None, name: str = "") -> Made:
    folder = tmp_path / f"{variant}-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / (name or f"m-{variant}.gguf")).write_bytes(content or variant.encode())
    return Made(variant, folder, {"tokens": 3}, 1.5)


def main_files(session: Session) -> dict[str, Any]:
    repo = repos.find(session, NAME)
    return {file.path: file for file in repos.files(session, repos.resolve(session, repo, "main"))}


def read_card(settings: Settings) -> str:
    with db.reading(settings.database) as session:
        card = main_files(session)["README.md"]
    with BlobStore(settings.blobs).open(card.sha256) as file:
        return file.read().decode()


def test_each_variant_is_a_commit(either: Settings, tmp_path: Path) -> None:
    held, origin = claim(either), source(either)
    rows = [
        artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, name))
        for name in ("Q4", "Q8")
    ]
    with db.reading(either.database) as session:
        repo = repos.find(session, NAME)
        assert (repo.kind, repo.source, repo.plugin) == ("derived", "org/model", "gguf")
        assert (repo.license, repo.parameters, repo.tier) == ("mit", 10**9, "micro")
        assert repo.main == rows[1].commit
        assert set(main_files(session)) == {"README.md", "LICENSE", "m-Q4.gguf", "m-Q8.gguf"}
        first = repos.resolve(session, repo, rows[0].commit)
        assert {file.path for file in repos.files(session, first)} == {
            "README.md",
            "LICENSE",
            "m-Q4.gguf",
        }
        assert repos.resolve(session, repo, "main").parent == first.sha
    card = read_card(either)
    assert card.index("m-Q4.gguf") < card.index("m-Q8.gguf")
    assert "note 4" in card
    assert "note 8" in card
    (row,) = [row for row in rows if row.variant == "Q4"]
    assert row.files == [{"path": "m-Q4.gguf", "size": 2, "sha256": row.files[0]["sha256"]}]
    assert (row.seconds, row.sandbox, row.tools) == (1.5, "strict", {"tool": "2"})


def test_variants_of_one_repo_share_only_what_is_the_same(
    settings: Settings, tmp_path: Path
) -> None:
    held, origin = claim(settings), source(settings)

    def publish(variant: str, content: bytes, fmt: Format = FORMAT) -> Artefact:
        one = made(tmp_path, variant)
        (one.folder / "config.json").write_bytes(content)
        return artefacts.publish(settings, held, fmt, origin, RECIPE, one)

    publish("Q4", b"shared")
    publish("Q8", b"shared")
    with pytest.raises(
        HubError, match=r"Q5 has another config\.json than Q[48], and both"
    ) as error:
        publish("Q5", b"own")
    assert error.value.kind == "bad_output"
    with db.reading(settings.database) as session:
        assert set(artefacts.made(session, origin, FORMAT)) == {"Q4", "Q8"}
    # A later version of the plugin writes as it likes.
    later = FORMAT.model_copy(update={"version": "2"})
    publish("Q5", b"own", later)
    with db.reading(settings.database) as session:
        assert {
            variant: [entry.path for entry in entries]
            for variant, entries in artefacts.made(session, origin, later).items()
        } == {"Q5": ["config.json", "m-Q5.gguf"]}


def test_the_same_again_is_the_same_artefact(either: Settings, tmp_path: Path) -> None:
    held, origin = claim(either), source(either)
    first = artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, "Q4"))
    again = artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, "Q4", b"other"))
    assert (again.id, again.commit) == (first.id, first.commit)
    with db.reading(either.database) as session:
        assert len(session.exec(select(Artefact)).all()) == 1
        assert main_files(session)["m-Q4.gguf"].sha256 == first.files[0]["sha256"]


def test_a_new_source_commit_replaces_the_variant(either: Settings, tmp_path: Path) -> None:
    held = claim(either)
    old = source(either)
    first = artefacts.publish(
        either, held, FORMAT, old, RECIPE, made(tmp_path, "Q4", name="old.gguf")
    )
    artefacts.publish(either, held, FORMAT, old, RECIPE, made(tmp_path, "Q8"))
    new = source(either, b"new")
    artefacts.publish(either, held, FORMAT, new, RECIPE, made(tmp_path, "Q4", b"new"))
    with db.reading(either.database) as session:
        assert set(main_files(session)) == {"README.md", "LICENSE", "m-Q4.gguf", "m-Q8.gguf"}
        repo = repos.find(session, NAME)
        kept = repos.files(session, repos.resolve(session, repo, first.commit))
        assert "old.gguf" in {file.path for file in kept}
    card = read_card(either)
    assert old.commit in card
    assert new.commit in card


def test_a_lost_lease_publishes_nothing(either: Settings, tmp_path: Path) -> None:
    held, origin = claim(either), source(either)
    with db.writing(either.database) as session:
        session.connection().execute(update(Job).values(lease_until=1.0))
    leases.take_back(either)
    for _ in range(2):
        with pytest.raises(LostLease):
            artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, "Q4"))
        leases.claim(either, held.id, "other")
    with db.reading(either.database) as session:
        assert session.exec(select(Artefact)).all() == []
        with pytest.raises(HubError):
            repos.find(session, NAME)


def test_a_damaged_artefact_is_made_again(either: Settings, tmp_path: Path) -> None:
    held, origin = claim(either), source(either)
    first = artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, "Q4"))
    digest = first.files[0]["sha256"]
    with db.writing(either.database) as session:
        session.connection().execute(
            update(Blob).where(col(Blob.sha256) == digest).values(quarantined=True)
        )
    BlobStore(either.blobs).quarantine(digest)
    with db.reading(either.database) as session:
        assert artefacts.published(session, [first.key]) == {}
    again = artefacts.publish(either, held, FORMAT, origin, RECIPE, made(tmp_path, "Q4"))
    assert again.key == first.key
    with db.reading(either.database) as session:
        assert set(artefacts.published(session, [first.key])) == {first.key}
        assert len(session.exec(select(Artefact)).all()) == 1
        # The bytes are the same: there is no empty commit.
        assert len(session.exec(select(Commit).where(col(Commit.repo_id) != 1)).all()) == 1


def test_the_same_steps_make_the_same_commits(settings: Settings, tmp_path: Path) -> None:
    origin = source(settings)
    shas = []
    for turn in range(2):
        held = claim(settings, f"job {turn}")
        rows = [
            artefacts.publish(settings, held, FORMAT, origin, RECIPE, made(tmp_path, name))
            for name in ("Q4", "Q8")
        ]
        shas.append([row.commit for row in rows])
        with db.writing(settings.database) as session:
            repos.remove(session, NAME)
    assert shas[0] == shas[1]


def test_publishers_of_one_repo_do_not_lose_each_other(either: Settings, tmp_path: Path) -> None:
    origin = source(either)
    work = [(claim(either, f"job {n}"), made(tmp_path, f"Q{n}")) for n in range(1, 7)]
    gate = threading.Barrier(len(work))
    failures: list[BaseException] = []

    def run(held: Claim, one: Made) -> None:
        gate.wait()
        try:
            artefacts.publish(either, held, FORMAT, origin, RECIPE, one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=args) for args in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with db.reading(either.database) as session:
        assert set(main_files(session)) == {"README.md", "LICENSE"} | {
            f"m-Q{n}.gguf" for n in range(1, 7)
        }
    card = read_card(either)
    assert all(f"m-Q{n}.gguf" in card for n in range(1, 7))


def test_what_cannot_be_published(settings: Settings, tmp_path: Path) -> None:
    held, origin = claim(settings), source(settings)
    linked = made(tmp_path, "Q1")
    (linked.folder / "link").symlink_to("/etc/passwd")
    strange = made(tmp_path, "Q2", name="a\\b")
    card = made(tmp_path, "Q3", name="README.md")
    for bad in (linked, strange, card):
        with pytest.raises(HubError):
            artefacts.publish(settings, held, FORMAT, origin, RECIPE, bad)
    with db.reading(settings.database) as session:
        assert session.exec(select(Artefact)).all() == []


def test_keys_depend_on_all_that_decides() -> None:
    base = ("org/model", "c" * 40, FORMAT, "Q4", {"o": 1})
    keys = {artefacts.artefact_key(*base)}
    for place, other in enumerate(
        ["org/other", "d" * 40, FORMAT.model_copy(update={"version": "2"}), "Q8", {"o": 2}]
    ):
        changed: list[Any] = list(base)
        changed[place] = other
        keys.add(artefacts.artefact_key(*changed))
    locked = FORMAT.model_copy(update={"lock_digest": "x"})
    keys.add(artefacts.artefact_key("org/model", "c" * 40, locked, "Q4", {"o": 1}))
    assert len(keys) == 7
