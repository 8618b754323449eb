"""Tests of hub/transfer.py: bytes arrive whole, checked, and hardly any twice."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakehub import FakeHub, tiny_model, tiny_safetensors

from hub import patience
from hub.blobs import BlobStore, DigestMismatch, Stored
from hub.errors import Forbidden, NoSpace, TooManyRequests, UpstreamFailed
from hub.partial import MiB, Partial
from hub.transfer import Transfer, key
from hub.upstream import BLOCK, HttpUpstream, RemoteFile

WEIGHTS = "model.safetensors"
# 9 MiB: three parts.
LARGE = tiny_safetensors({"model.embed_tokens.weight": ("F32", [9 * MiB // 256, 64])})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as made:
        made.add("org/model", tiny_model() | {WEIGHTS: LARGE})
        yield made


class Fetch:
    """Transfers of chosen files of org/model into one store."""

    def __init__(self, hub: FakeHub, folder: Path) -> None:
        self.hub = hub
        self.store = BlobStore(folder / "blobs")
        self.partial = folder / "partial"
        self.silence = 60.0
        self.seen: list[int] = []

    def __call__(
        self, *paths: str, parallel: int = 4, cancelled: Callable[[], bool] = lambda: False
    ) -> dict[str, Stored]:
        source = HttpUpstream(self.hub.url)
        source.web.silence = self.silence
        try:
            snapshot = source.snapshot("org/model", "main")
            files = [file for file in snapshot.files if file.path in (paths or (WEIGHTS,))]
            transfer = Transfer(source, snapshot, self.store, self.partial, parallel=parallel)
            stored = transfer.run(files, self.seen.append, cancelled)
            return {file.path: stored[key(file)] for file in files}
        finally:
            source.close()

    def content(self, stored: Stored) -> bytes:
        with self.store.open(stored.sha256) as blob:
            return blob.read()

    def is_right(self, stored: dict[str, Stored]) -> bool:
        """Whether what arrived is what upstream promised, and nothing of the work is left."""
        return self.content(stored[WEIGHTS]) == LARGE and not list(self.partial.iterdir())


@pytest.fixture
def fetch(hub: FakeHub, tmp_path: Path) -> Fetch:
    return Fetch(hub, tmp_path)


@pytest.mark.parametrize("parallel", [1, 4, 16])
def test_parts_make_the_file(fetch: Fetch, hub: FakeHub, parallel: int) -> None:
    assert fetch.is_right(fetch(parallel=parallel))
    assert hub.sent(WEIGHTS) == len(LARGE)
    assert fetch.seen[-1] == len(LARGE)
    assert fetch.seen == sorted(fetch.seen)


def test_one_resolve_serves_many_parts(fetch: Fetch, hub: FakeHub) -> None:
    assert fetch.is_right(fetch(parallel=1))
    assert len(hub.requests(f"*/resolve/*/{WEIGHTS}")) == 1
    assert len(hub.requests(f"*/{WEIGHTS}", server="cdn")) == 3


def test_small_files_are_known_by_the_id_git_gives_them(fetch: Fetch, hub: FakeHub) -> None:
    stored = fetch("config.json", "README.md")
    assert fetch.content(stored["config.json"]) == tiny_model()["config.json"]
    files = hub.repos["org/model"].commits[hub.repos["org/model"].refs["main"]]
    assert stored["README.md"].git_sha1 == files["README.md"].git_sha1


def test_an_empty_file(fetch: Fetch, hub: FakeHub) -> None:
    hub.add("org/model", {"empty.txt": b""})
    assert fetch.content(fetch("empty.txt")["empty.txt"]) == b""


def test_cut_connections_go_on_where_they_were(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault(f"*/{WEIGHTS}", server="cdn", times=8, cut=1_000_000)
    assert fetch.is_right(fetch())
    assert hub.sent(WEIGHTS) < len(LARGE) * 1.05


def test_passing_errors_are_tried_again(fetch: Fetch, hub: FakeHub) -> None:
    for status in (500, 502, 503, 504, 408):
        hub.fault(f"*/{WEIGHTS}", server="cdn", status=status)
    hub.fault(f"*/{WEIGHTS}", server="hub", status=502)
    assert fetch.is_right(fetch())


def test_lasting_errors_are_given_up_and_the_rest_is_kept(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault(f"*/{WEIGHTS}", server="cdn", skip=2, times=None, status=503)
    with pytest.raises(UpstreamFailed, match="503"):
        fetch(parallel=1)
    before = hub.sent(WEIGHTS)
    assert before > 0
    hub.heal()
    assert fetch.is_right(fetch())
    assert hub.sent(WEIGHTS) == len(LARGE)


def test_429_on_bytes_is_obeyed(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault(f"*/{WEIGHTS}", server="hub", status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    assert fetch.is_right(fetch())
    assert time.monotonic() - began >= 0.9
    # The other connections waited too, instead of asking again.
    assert len(hub.requests(f"*/resolve/*/{WEIGHTS}")) <= 8


def test_429_without_end_is_told(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault("*/resolve/*", times=None, status=429, headers={"Retry-After": "7200"})
    with pytest.raises(TooManyRequests, match="7200"):
        fetch()


def test_a_silent_connection_is_replaced(fetch: Fetch, hub: FakeHub) -> None:
    fetch.silence = 5  # a busy machine must not be silent for as long
    hub.fault(f"*/{WEIGHTS}", server="cdn", times=2, cut=500_000, stall=120)
    began = time.monotonic()
    assert fetch.is_right(fetch())
    assert time.monotonic() - began < 100


def test_an_address_that_ran_out_is_asked_for_again(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault(f"*/{WEIGHTS}", server="cdn", skip=1, times=1, status=403)
    assert fetch.is_right(fetch(parallel=1))
    assert len(hub.requests(f"*/resolve/*/{WEIGHTS}")) == 2


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("fault", ["no_range", "gzip"])
def test_a_server_without_ranges(fetch: Fetch, hub: FakeHub, parallel: int, fault: str) -> None:
    hub.fault(f"*/{WEIGHTS}", server="cdn", times=None, **{fault: True})
    assert fetch.is_right(fetch(parallel=parallel))


def test_a_server_without_ranges_that_cuts(fetch: Fetch, hub: FakeHub) -> None:
    for cut in (3_000_000, 7_000_000, None):
        hub.fault(f"*/{WEIGHTS}", server="cdn", times=1, no_range=True, cut=cut)
    assert fetch.is_right(fetch(parallel=1))


def test_a_small_file_that_a_proxy_compressed(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault("*/config.json", gzip=True)
    stored = fetch("config.json")["config.json"]
    assert fetch.content(stored) == tiny_model()["config.json"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_wrong_bytes_of_the_right_size_are_refused(fetch: Fetch, hub: FakeHub, path: str) -> None:
    good = LARGE if path == WEIGHTS else tiny_model()[path]
    assert isinstance(good, bytes)
    hub.lie("org/model", path, flipped(good, len(good) // 2))
    with pytest.raises(DigestMismatch) as caught:
        fetch(path)
    file = next(iter(hub.repos["org/model"].commits.values()))[path]
    assert path in caught.value.message
    assert (file.sha256 if file.lfs else file.git_sha1) == caught.value.expected
    assert caught.value.actual in caught.value.message
    assert not list(fetch.partial.iterdir())
    assert not list(fetch.store.iter())


@pytest.mark.parametrize("size", [0, 1, 5_000_000, len(LARGE) - 1, len(LARGE) + 1])
def test_another_size_than_promised_is_told_with_both(
    fetch: Fetch, hub: FakeHub, size: int
) -> None:
    hub.lie("org/model", WEIGHTS, (LARGE + b"x")[:size])
    with pytest.raises(UpstreamFailed) as caught:
        fetch()
    assert caught.value.kind == "size_mismatch"
    for part in (WEIGHTS, str(size), str(len(LARGE))):
        assert part in caught.value.message


def test_bytes_that_rotted_between_two_runs_are_fetched_again(fetch: Fetch, hub: FakeHub) -> None:
    hub.fault(f"*/{WEIGHTS}", server="cdn", skip=2, times=None, status=503)
    with pytest.raises(UpstreamFailed):
        fetch(parallel=1)
    hub.heal()
    (partial,) = fetch.partial.iterdir()
    with (partial / "bytes").open("r+b") as file:
        file.write(b"rotten")
    assert fetch.is_right(fetch())


def test_a_file_that_is_in_the_store_is_not_fetched(fetch: Fetch, hub: FakeHub) -> None:
    fetch()
    hub.forget()
    assert fetch.is_right(fetch())
    assert hub.sent() == 0


def test_the_same_content_under_two_names_is_fetched_once(fetch: Fetch, hub: FakeHub) -> None:
    hub.add("org/model", {"a.safetensors": LARGE, "b.safetensors": LARGE})
    stored = fetch("a.safetensors", "b.safetensors")
    assert stored["a.safetensors"] == stored["b.safetensors"]
    assert hub.sent() == len(LARGE)


def test_a_cancelled_transfer_ends_at_once_and_can_go_on(fetch: Fetch, hub: FakeHub) -> None:
    # Whole blocks, so that all three connections are silent and nothing lies unread in one.
    assert MiB % BLOCK == 0
    hub.fault(f"*/{WEIGHTS}", server="cdn", times=None, cut=MiB, stall=120)
    began = time.monotonic()
    with pytest.raises(patience.Cancelled):
        fetch(cancelled=lambda: bool(fetch.seen) and fetch.seen[-1] >= 3 * MiB)
    assert time.monotonic() - began < 100
    hub.heal()
    assert fetch.is_right(fetch())
    assert hub.sent(WEIGHTS) < len(LARGE) * 1.1


def test_two_transfers_of_one_file_fetch_it_once(fetch: Fetch, hub: FakeHub) -> None:
    hub.rate = 8_000_000
    results: list[dict[str, Stored]] = []
    threads = [threading.Thread(target=lambda: results.append(fetch())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fetch.is_right(stored) for stored in results] == [True, True]
    assert hub.sent(WEIGHTS) == len(LARGE)


def test_a_full_disk_is_told_and_nothing_is_stored(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Partial, offset: int, data: memoryview) -> None:
        raise NoSpace("disk_full", "The disk is full")

    monkeypatch.setattr(Partial, "_put", full)
    with pytest.raises(NoSpace):
        fetch()
    assert not list(fetch.store.iter())


def test_access_that_ends_meanwhile_is_told(fetch: Fetch, hub: FakeHub) -> None:
    hub.repos["org/model"].gated = True
    with pytest.raises(Forbidden, match="gated"):
        fetch()


def test_a_file_without_a_digest_has_a_key_of_its_own() -> None:
    assert key(RemoteFile("a", 1, git_sha1="0" * 40)) != key(RemoteFile("a", 2, git_sha1="0" * 40))
