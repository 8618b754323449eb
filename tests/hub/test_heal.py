"""Lost blobs come back from where they were mirrored, and from nowhere else."""

from collections.abc import Iterator

import pytest
from fakehub import FakeHub, tiny_model
from published import publish

from hub import fsck, mirror
from hub.blobs import BlobStore
from hub.config import Settings
from hub.heal import from_upstream


@pytest.fixture
def upstream() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add("org/model", tiny_model())
        yield hub


@pytest.fixture
def mirrored(settings: Settings, upstream: FakeHub) -> Settings:
    """A hub that has the model of its upstream, and a file that was made of it."""
    settings = settings.model_copy(update={"upstream": upstream.url})
    plan = mirror.plan(settings, "org/model", "main")
    mirror.mirror(settings, plan, report=lambda *_: None, cancelled=lambda: False)
    publish(settings, "hub/org_model-TOY", {"a.toy": b"derived"}, kind="derived")
    return settings


def blobs(settings: Settings) -> list[str]:
    return sorted(BlobStore(settings.blobs).iter())


def damage(settings: Settings, sha256: str) -> None:
    path = BlobStore(settings.blobs).path(sha256)
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)


def test_what_was_mirrored_is_fetched_again_and_what_was_made_is_reported(
    mirrored: Settings,
) -> None:
    before = blobs(mirrored)
    for number, sha256 in enumerate(before):
        if number % 2:
            damage(mirrored, sha256)
        else:
            BlobStore(mirrored.blobs).path(sha256).unlink()
    found = fsck.check(mirrored, heal=from_upstream(mirrored))
    lost = [finding for finding in found.findings if not finding.healed]
    assert len(found.findings) == len(before)
    assert ["a.toy" in path for finding in lost for path in finding.paths] == [True]
    assert set(blobs(mirrored)) == set(before) - {lost[0].sha256}
    assert not list((mirrored.data / "partial").rglob("*"))
    # The bytes are right again, and stay reported where they could not be had.
    again = fsck.check(mirrored)
    assert [finding.sha256 for finding in again.findings] == [lost[0].sha256]


def test_without_healing_nothing_is_asked(mirrored: Settings, upstream: FakeHub) -> None:
    damage(mirrored, blobs(mirrored)[0])
    asked = len(upstream.asked)
    assert not fsck.check(mirrored).ok
    assert len(upstream.asked) == asked


def test_an_upstream_that_lies_or_has_lost_it_heals_nothing(
    mirrored: Settings, upstream: FakeHub
) -> None:
    whole = blobs(mirrored)
    for sha256 in whole:
        damage(mirrored, sha256)
    upstream.fault("*", status=404, times=None)
    found = fsck.check(mirrored, heal=from_upstream(mirrored))
    assert not any(finding.healed for finding in found.findings)
    assert blobs(mirrored) == []


def test_the_token_goes_to_its_own_endpoint_only(
    mirrored: Settings, upstream: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    elsewhere = Settings(data=mirrored.data, upstream="https://other.example")
    assert elsewhere.hf_token == "hf_secret"
    for sha256 in blobs(mirrored):
        damage(mirrored, sha256)
    upstream.asked.clear()
    found = fsck.check(elsewhere, heal=from_upstream(elsewhere))
    assert sum(not finding.healed for finding in found.findings) == 1  # the one that was made
    assert upstream.asked
    assert not any("authorization" in one.headers for one in upstream.asked)


def test_files_of_a_local_folder_have_no_upstream(settings: Settings) -> None:
    publish(settings, "org/local", {"a.bin": b"aaa"}, upstream="a local folder")
    (sha256,) = blobs(settings)
    damage(settings, sha256)
    assert not fsck.check(settings, heal=from_upstream(settings)).ok
