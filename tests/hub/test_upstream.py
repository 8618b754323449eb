"""Tests of hub/upstream.py: what a repo holds, and every way in which upstream says no."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakehub import FakeHub, tiny_model

from hub import patience
from hub.config import Settings
from hub.errors import (
    Forbidden,
    HubError,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
)
from hub.local import LocalUpstream
from hub.mirror import upstream
from hub.upstream import HttpUpstream, retry_after


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as made:
        yield made


def snapshot(hub: FakeHub, repo: str = "org/model", revision: str = "main", **more: Any) -> Any:
    source = HttpUpstream(hub.url, **more)
    try:
        return source.snapshot(repo, revision)
    finally:
        source.close()


def test_a_snapshot_lists_every_page_at_one_commit(hub: FakeHub) -> None:
    hub.page = 3
    sha = hub.add("org/model", tiny_model())
    found = snapshot(hub)
    assert (found.repo, found.sha) == ("org/model", sha)
    assert {file.path for file in found.files} == set(tiny_model())
    weights = found.file("model.safetensors")
    assert len(weights.sha256) == 64
    assert found.file("config.json").sha256 is None
    assert len(found.file("config.json").git_sha1) == 40
    assert all(sha in asked.path for asked in hub.requests("*/tree/*"))


def test_a_commit_that_moves_between_two_calls_changes_nothing(hub: FakeHub) -> None:
    sha = hub.add("org/model", tiny_model())
    hub.before_tree = lambda: hub.add("org/model", tiny_model() | {"new.json": b"{}"})
    found = snapshot(hub)
    assert found.sha == sha
    assert found.file("new.json") is None


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_renamed_repo_is_found_under_its_new_name(hub: FakeHub, status: int) -> None:
    hub.add("old/model", tiny_model())
    hub.rename("old/model", "later/model", status)
    assert snapshot(hub, "old/model").repo == "later/model"


def test_a_branch_and_a_commit_can_be_named(hub: FakeHub) -> None:
    first = hub.add("org/model", tiny_model())
    other = hub.add("org/model", tiny_model(128), revision="v2")
    assert snapshot(hub, revision="v2").sha == other
    assert snapshot(hub, revision=first).sha == first


def refused(kind: str, error: type[HubError], hub: FakeHub, **more: Any) -> HubError:
    with pytest.raises(error) as caught:
        snapshot(hub, **more)
    assert caught.value.kind == kind
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("anonymous_401", [True, False])
def test_a_repo_that_does_not_exist(hub: FakeHub, codes: bool, anonymous_401: bool) -> None:
    hub.error_codes, hub.anonymous_401 = codes, anonymous_401
    error = refused("repo_not_found", NotFound, hub)
    assert "org/model" in error.message
    assert ("private" in error.message) == anonymous_401


def test_a_private_repo_is_read_with_the_right_token_only(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model(), private=True, readers={"hf_good"})
    hub.tokens |= {"hf_good", "hf_other"}
    assert "HF_TOKEN" in refused("repo_not_found", NotFound, hub).hint
    assert "no access" in refused("repo_not_found", NotFound, hub, token="hf_other").message
    assert snapshot(hub, token="hf_good").repo == "org/model"


def test_a_token_that_is_not_accepted(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    error = refused("bad_upstream_token", Unauthorized, hub, token="hf_secret")
    assert "hf_secret" not in error.message + error.hint


def test_a_disabled_repo(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model(), disabled=True)
    refused("repo_disabled", Forbidden, hub)


def test_a_revision_that_does_not_exist(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    assert "v9" in refused("revision_not_found", NotFound, hub, revision="v9").message


def read(hub: FakeHub, **more: Any) -> bytes:
    source = HttpUpstream(hub.url, **more)
    try:
        return source.read(source.snapshot("org/model", "main"), "config.json", 0, 10)
    finally:
        source.close()


def test_a_gated_repo_tells_what_to_do_without_and_with_a_token(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model(), gated=True, readers={"hf_good"})
    hub.tokens |= {"hf_good", "hf_other"}
    with pytest.raises(Forbidden) as without:
        read(hub)
    with pytest.raises(Forbidden) as other:
        read(hub, token="hf_other")
    assert without.value.kind == other.value.kind == "repo_gated"
    assert "Accept" in without.value.hint
    assert "Ask for access" in other.value.hint
    assert read(hub, token="hf_good") == tiny_model()["config.json"][:10]


def test_a_passing_fault_of_the_metadata_is_tried_again(hub: FakeHub) -> None:
    sha = hub.add("org/model", tiny_model())
    hub.fault("/api/*", status=502, times=2)
    hub.fault("*/tree/*", status=503, times=1)
    assert snapshot(hub).sha == sha


def test_a_lasting_fault_is_given_up(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    hub.fault("/api/*", status=500, times=None)
    refused("upstream_failed", UpstreamFailed, hub)
    assert len(hub.requests("/api/*")) == patience.ATTEMPTS


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=0', "Retry-After": "1"}]
)
def test_429_is_obeyed(hub: FakeHub, headers: dict[str, str]) -> None:
    sha = hub.add("org/model", tiny_model())
    hub.fault("/api/*", status=429, headers=headers)
    began = time.monotonic()
    assert snapshot(hub).sha == sha
    assert time.monotonic() - began >= 0.9


def test_429_for_an_hour_is_told_at_once(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    hub.fault("/api/*", status=429, times=None, headers={"Retry-After": "3600"})
    error = refused("upstream_busy", TooManyRequests, hub)
    assert isinstance(error, TooManyRequests)
    assert error.retry_after == 3600
    assert len(hub.requests("/api/*")) == 1


def test_a_wait_for_upstream_can_be_cancelled(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    hub.fault("/api/*", status=429, times=None, headers={"Retry-After": "500"})
    source = HttpUpstream(hub.url)
    began = time.monotonic()
    with pytest.raises(patience.Cancelled):
        source.snapshot("org/model", "main", lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 100


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id": "org/model"}', b'{"id": 3}', b"null"])
def test_what_is_no_hub_is_told_so(hub: FakeHub, body: bytes) -> None:
    hub.fault("/api/*", body=body, headers={"Content-Type": "application/json"})
    refused("upstream_garbage", UpstreamFailed, hub)


def test_an_unreachable_upstream() -> None:
    with FakeHub() as gone:
        pass
    error = refused("upstream_failed", UpstreamFailed, gone)
    assert "127.0.0.1" in error.message


@pytest.mark.parametrize(
    "target", ["http://localhost:1/api", "https://evil.example/x", "http://169.254.169.254/"]
)
def test_metadata_and_its_token_stay_on_the_endpoint(hub: FakeHub, target: str) -> None:
    hub.add("org/model", tiny_model())
    hub.tokens.add("hf_good")
    hub.fault("/api/models/org/model/revision/*", location=target)
    refused("redirect_refused", UpstreamFailed, hub, token="hf_good")


def test_a_next_page_elsewhere_is_refused(hub: FakeHub) -> None:
    hub.add("org/model", tiny_model())
    link = {"Link": '<http://localhost:1/x>; rel="next"', "Content-Type": "application/json"}
    hub.fault("*/tree/*", body=b"[]", headers=link)
    refused("redirect_refused", UpstreamFailed, hub)


@pytest.mark.parametrize("repo", ["gpt2", "../x", "a/b/c", "org/..", "org/a%2fb", "org/a\0"])
def test_names_with_tricks_reach_nobody(hub: FakeHub, repo: str) -> None:
    with pytest.raises(InvalidRequest):
        snapshot(hub, repo)
    assert not hub.asked


def test_offline_means_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("offline", Unavailable, hub)
    assert not hub.asked


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        HttpUpstream("ftp://example.org")


def test_the_upstream_of_a_folder_is_local(settings: Settings) -> None:
    assert isinstance(upstream(settings, settings.data), LocalUpstream)
    assert isinstance(upstream(settings), HttpUpstream)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 30}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 56),
        ({"RateLimit": '"api";r=3;t=55', "Retry-After": "2"}, 2),
        ({"RateLimit": "nonsense"}, None),
        ({}, None),
    ],
)
def test_what_upstream_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"id": 5, "sha": 1e400, "siblings": [[]]}'])
def test_json_that_breaks_parsers_is_no_answer(hub: FakeHub, body: bytes) -> None:
    hub.add("org/model", tiny_model())
    hub.fault("/api/models/*", body=body)
    with pytest.raises(UpstreamFailed, match="no answer of a model hub"):
        snapshot(hub)
