"""Tests of hub/mirror.py: from a fake hub on loopback into the store."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakehub import Content, FakeHub, tiny_model, tiny_safetensors

from hub import db, listing, mirror, patience, repos
from hub.blobs import BlobStore
from hub.config import ROOT, Settings
from hub.errors import HubError, InvalidRequest, NoSpace, TooLarge, Unprocessable, UpstreamFailed
from hub.models import File
from hub.partial import MiB
from hub.safetensors import BadSafetensors
from hub.sizes import size

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)


@pytest.fixture
def upstream() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def at(settings: Settings, upstream: FakeHub) -> Settings:
    return settings.model_copy(update={"upstream": upstream.url})


def run(settings: Settings, repo: str = "org/model", revision: str = "main", **more: Any) -> str:
    made = mirror.plan(settings, repo, revision, **more)
    return mirror.mirror(settings, made, report=lambda *_: None)


def stored(settings: Settings, repo: str = "org/model", revision: str = "main") -> dict[str, File]:
    with db.reading(settings.database) as session:
        commit = repos.resolve(session, repos.find(session, repo), revision)
        return {file.path: file for file in repos.files(session, commit)}


def content(settings: Settings, file: File) -> bytes:
    with BlobStore(settings.blobs).open(file.sha256) as blob:
        return blob.read()


def without(*paths: str, **more: Content) -> dict[str, Content]:
    return {path: data for path, data in tiny_model().items() if path not in paths} | more


def test_what_is_mirrored_is_what_upstream_has(at: Settings, upstream: FakeHub) -> None:
    files = tiny_model()
    sha = upstream.add("org/model", files)
    assert run(at) == sha
    found = stored(at)
    assert set(found) == set(files) - {".gitattributes"}
    for path, file in found.items():
        assert content(at, file) == files[path]
        theirs = upstream.repos["org/model"].commits[sha][path]
        assert (file.git_sha1, file.lfs) == (theirs.git_sha1, theirs.lfs)
    assert not list((at.data / "partial").iterdir())


def test_the_facts_come_from_the_headers(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", tiny_model(rows=100))
    run(at)
    with db.reading(at.database) as session:
        repo = repos.find(session, "org/model")
        assert (repo.parameters, repo.tier, repo.license) == (6400, "tiny", "apache-2.0")
        assert repo.architecture == "LlamaForCausalLM"
        assert repo.facts["has_chat_template"] is True
        assert repo.upstream == upstream.url


def test_progress_is_told_in_bytes(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", tiny_model())
    plan = mirror.plan(at, "org/model")
    seen: list[tuple[int, int, str]] = []
    mirror.mirror(at, plan, report=lambda *now: seen.append(now))
    assert seen[0][0] == 0
    assert seen[-1][:2] == (plan.size, plan.size)
    assert seen[0][2].endswith(f" files: 0 bytes of {size(plan.size)}")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_mirroring_again_transfers_nothing(at: Settings, upstream: FakeHub) -> None:
    sha = upstream.add("org/model", tiny_model())
    run(at)
    plan = mirror.plan(at, "org/model")
    assert plan.missing == []
    upstream.forget()
    assert mirror.mirror(at, plan, report=lambda *_: None) == sha
    assert upstream.sent() == 0


def test_only_what_changed_is_transferred(at: Settings, upstream: FakeHub) -> None:
    first = upstream.add("org/model", tiny_model())
    run(at)
    second = upstream.add("org/model", tiny_model() | {"README.md": b"# New\n"})
    plan = mirror.plan(at, "org/model")
    assert [file.path for file in plan.missing] == ["README.md"]
    upstream.forget()
    mirror.mirror(at, plan, report=lambda *_: None)
    assert upstream.sent() == upstream.sent("README.md") == 6
    assert content(at, stored(at)["README.md"]) == b"# New\n"
    assert content(at, stored(at, revision=first)["README.md"]).startswith(b"---")
    assert second != first


def test_a_size_that_is_a_lie_is_found_without_a_transfer(at: Settings, upstream: FakeHub) -> None:
    files = tiny_model() | {"tokenizer.model": b"x" * 100}
    upstream.add("org/model", files)
    run(at)
    sha = upstream.add("org/liar", files)
    upstream.repos["org/liar"].commits[sha]["tokenizer.model"].size = 5
    with pytest.raises(UpstreamFailed, match=r"tokenizer\.model.* 5 bytes.* 100") as caught:
        mirror.plan(at, "org/liar")
    assert caught.value.kind == "size_mismatch"


def test_a_branch_is_a_ref_and_main_stays(at: Settings, upstream: FakeHub) -> None:
    first = upstream.add("org/model", tiny_model())
    run(at)
    other = upstream.add("org/model", tiny_model(128), revision="v2")
    assert run(at, revision="v2") == other
    assert run(at, revision=other) == other
    with db.reading(at.database) as session:
        repo = repos.find(session, "org/model")
        assert repo.main == first
        assert repos.resolve(session, repo, "v2").sha == other


def test_a_renamed_repo_is_stored_under_its_new_name(at: Settings, upstream: FakeHub) -> None:
    upstream.add("old/model", tiny_model())
    upstream.rename("old/model", "org/model")
    run(at, "old/model")
    assert WEIGHTS in stored(at)


def test_a_commit_that_moves_meanwhile_is_not_mixed(at: Settings, upstream: FakeHub) -> None:
    sha = upstream.add("org/model", tiny_model())
    plan = mirror.plan(at, "org/model")
    upstream.add("org/model", tiny_model(128))
    assert mirror.mirror(at, plan, report=lambda *_: None) == sha
    assert content(at, stored(at)[WEIGHTS]) == tiny_model()[WEIGHTS]


INDEX = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
SHARDS: dict[str, Content] = {
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-1.safetensors": tiny_safetensors({"a": ("F32", [4, 4])}),
    "model-2.safetensors": tiny_safetensors({"b": ("F32", [4, 4])}),
}


def test_shards_are_taken_as_the_index_names_them(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", without(WEIGHTS) | SHARDS)
    run(at)
    assert set(SHARDS) <= set(stored(at))


def refused(settings: Settings, upstream: FakeHub, error: type[HubError], kind: str) -> str:
    """The message of a refusal; nothing of the weights was sent, and nothing is visible."""
    with pytest.raises(error) as caught:
        run(settings)
    assert caught.value.kind == kind
    assert caught.value.hint
    assert upstream.sent(WEIGHTS) <= mirror.HEADER_GUESS
    assert not list(BlobStore(settings.blobs).iter())
    with db.reading(settings.database) as session:
        assert listing.page(session)[0] == []
    return caught.value.message


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        (without(WEIGHTS), "no_safetensors", WEIGHTS),
        (without(WEIGHTS, **{"pytorch_model.bin": b"x"}), "pickles_only", "pytorch_model.bin"),
        (without(WEIGHTS, **{"adapter_model.safetensors": b"x"}), "adapter_only", "adapter_model"),
        (without("tokenizer.json"), "no_tokenizer", "tokenizer.json"),
        (without("config.json"), "no_config", "config.json"),
        (tiny_model(**{"config.json": b"[]"}), "bad_config", "config.json"),
        (without(WEIGHTS, "config.json") | {"model.gguf": b"x"}, "no_safetensors", WEIGHTS),
    ],
)
def test_what_makes_no_model_is_refused(
    at: Settings, upstream: FakeHub, files: dict[str, Content], kind: str, words: str
) -> None:
    upstream.add("org/model", files)
    assert words in refused(at, upstream, Unprocessable, kind)


def test_a_missing_shard_is_named(at: Settings, upstream: FakeHub) -> None:
    shards = {path: data for path, data in SHARDS.items() if path != "model-2.safetensors"}
    upstream.add("org/model", without(WEIGHTS) | shards)
    assert "model-2.safetensors" in refused(at, upstream, BadSafetensors, "bad_safetensors")


GOOD = tiny_safetensors({"a": ("F32", [64, 64])})


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (GOOD[:-1], [str(len(GOOD)), str(len(GOOD) - 1)]),
        (GOOD + b"x", [str(len(GOOD)), str(len(GOOD) + 1)]),
        (GOOD[:4], ["4 bytes"]),
        (b"", ["0 bytes"]),
        (struct.pack("<Q", 2**40) + GOOD[8:], [str(2**40)]),
        (GOOD.replace(b"16384]", b"99999]"), ["16384", "99999"]),
    ],
)
def test_weights_that_lie_are_refused_by_name(
    at: Settings, upstream: FakeHub, weights: bytes, words: list[str]
) -> None:
    upstream.add("org/model", tiny_model(**{WEIGHTS: weights}))
    message = refused(at, upstream, BadSafetensors, "bad_safetensors")
    for word in [WEIGHTS, *words]:
        assert word in message


def test_a_model_above_the_limit_is_refused_with_both_figures(
    at: Settings, upstream: FakeHub
) -> None:
    upstream.add("org/model", tiny_model(rows=64))
    small = at.model_copy(update={"max_parameters": 4095})
    message = refused(small, upstream, TooLarge, "model_too_large")
    assert "4096" in message
    assert "4095" in message


def test_a_small_disk_is_refused_with_both_figures(
    at: Settings, upstream: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiny_model()
    upstream.add("org/model", files)
    usage = shutil._ntuple_diskusage(100, 50, 1234)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refused(at, upstream, NoSpace, "disk_too_small")
    needed = sum(len(data) for path, data in files.items() if path != ".gitattributes")
    assert f"needs {size(int(needed * mirror.MARGIN))} of disk, and 1.2 kB are free" in message


@pytest.mark.parametrize("path", ["a\\x.json", "a%2e.json", "x\u202e.json", "x\0.json"])
def test_paths_with_tricks_are_refused(at: Settings, upstream: FakeHub, path: str) -> None:
    upstream.add("org/model", tiny_model(**{path: b"{}"}))
    refused(at, upstream, InvalidRequest, "bad_path")


@pytest.mark.parametrize(
    "path", ["..\\evil.json", "../../evil.json", "/etc/evil.json", "a/../../evil.json"]
)
def test_paths_that_lead_out_are_not_taken(at: Settings, upstream: FakeHub, path: str) -> None:
    upstream.add("org/model", tiny_model(**{path: b"{}"}))
    run(at)
    assert not any("evil" in name for name in stored(at))
    assert not list(at.data.parent.rglob("*evil*"))


def test_the_hubs_own_namespace_is_refused(at: Settings, upstream: FakeHub) -> None:
    with pytest.raises(Unprocessable, match="writes itself"):
        run(at, f"{at.namespace}/model")
    assert not upstream.asked


def test_pickles_and_code_stay_where_they_are(at: Settings, upstream: FakeHub) -> None:
    more = dict.fromkeys(["pytorch_model.bin", "modeling.py", "x.pkl", "training_args.bin"], b"x")
    upstream.add("org/model", tiny_model(**more))
    run(at)
    assert not set(more) & set(stored(at))
    allowed = at.model_copy(update={"allow_pickle": True})
    run(allowed)
    assert set(more) - set(stored(at)) == {"modeling.py"}


def test_a_repo_of_pickles_when_the_operator_allows_them(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", without(WEIGHTS, **{"pytorch_model.bin": b"x"}))
    run(at.model_copy(update={"allow_pickle": True}))
    assert "pytorch_model.bin" in stored(at)


def test_wrong_bytes_leave_the_old_commit(at: Settings, upstream: FakeHub) -> None:
    old = upstream.add("org/model", tiny_model())
    run(at)
    new = tiny_model(rows=128)[WEIGHTS]
    assert isinstance(new, bytes)
    upstream.add("org/model", tiny_model(rows=128))
    upstream.lie("org/model", WEIGHTS, new[:-1] + b"\xff")
    with pytest.raises(UpstreamFailed) as caught:
        run(at)
    assert caught.value.kind == "digest_mismatch"
    with db.reading(at.database) as session:
        assert repos.find(session, "org/model").main == old
    assert content(at, stored(at)[WEIGHTS]) == tiny_model()[WEIGHTS]
    assert not list((at.data / "partial").iterdir())


def test_a_cancelled_mirror_is_not_visible(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", tiny_model())
    upstream.fault(f"*/{WEIGHTS}", server="cdn", skip=1, times=None, cut=1000, stall=30)
    plan = mirror.plan(at, "org/model")
    with pytest.raises(mirror.Cancelled):
        mirror.mirror(at, plan, report=lambda *_: None, cancelled=lambda: True)
    with db.reading(at.database) as session:
        assert listing.page(session)[0] == []


def test_xet_traces_do_not_confuse(at: Settings, upstream: FakeHub) -> None:
    upstream.xet = True
    upstream.add("org/model", tiny_model())
    run(at)
    assert not upstream.requests("*xet*")


def test_whoever_guards_the_publication_can_prevent_it(at: Settings, upstream: FakeHub) -> None:
    upstream.add("org/model", tiny_model())

    def lost(session: object) -> None:
        raise RuntimeError("lost")

    plan = mirror.plan(at, "org/model")
    with pytest.raises(RuntimeError):
        mirror.mirror(at, plan, report=lambda *_: None, guard=lost)
    with db.reading(at.database) as session:
        assert listing.page(session)[0] == []


# A local folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for path, data in tiny_model(**{"code.py": b"1/0", ".git/config": b"x"}).items():
        (made / path).parent.mkdir(exist_ok=True)
        assert isinstance(data, bytes)
        (made / path).write_bytes(data)
    return made


def test_a_folder_is_mirrored_like_a_repo(settings: Settings, folder: Path) -> None:
    sha = run(settings, folder=folder)
    found = stored(settings)
    assert set(found) == set(tiny_model()) - {".gitattributes"}
    assert all(content(settings, file) == tiny_model()[path] for path, file in found.items())
    assert found[WEIGHTS].lfs
    assert not found["config.json"].lfs
    assert mirror.plan(settings, "org/model", folder=folder).missing == []
    assert run(settings, folder=folder) == sha
    (folder / "README.md").write_text("# New\n")
    assert run(settings, folder=folder) != sha


def test_a_folder_that_changes_meanwhile_is_refused(settings: Settings, folder: Path) -> None:
    plan = mirror.plan(settings, "org/model", folder=folder)
    (folder / "README.md").write_bytes(b"x" * (folder / "README.md").stat().st_size)
    with pytest.raises(HubError, match=r"README\.md"):
        mirror.mirror(settings, plan, report=lambda *_: None)
    with db.reading(settings.database) as session:
        assert listing.page(session)[0] == []


# Kills

CHILD = """
import sys
from hub import mirror
from hub.config import Settings

settings = Settings(data=sys.argv[1], upstream=sys.argv[2])
plan = mirror.plan(settings, "org/model")
told = False

def report(done, total, message):
    global told
    if done > int(sys.argv[3]) and not told:
        told = True
        print("there", flush=True)
        sys.stdin.read()  # the connections go on meanwhile, and whoever kills may be late

print(mirror.mirror(settings, plan, report=report))
"""


def kill_and_finish(at: Settings, upstream: FakeHub, size: int, kills: int) -> float:
    """Kill a mirroring process again and again; return the share of bytes sent twice."""
    command = [sys.executable, "-c", CHILD, str(at.data), upstream.url]
    chance = random.Random(size)
    sha = upstream.repos["org/model"].refs["main"]
    # Killed once so many bytes are there, at any moment within the next few.
    for number in range(kills):
        goal = size * number // kills + chance.randrange(size // kills // 2)
        with subprocess.Popen(
            [*command, str(goal)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        ) as child:
            assert child.stdout
            assert child.stdout.readline() == b"there\n"
            child.send_signal(signal.SIGKILL)
    done = subprocess.run(
        [*command, "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT, check=True
    )
    assert done.stdout.split()[-1].decode() == sha
    assert not list((at.data / "partial").iterdir())
    return upstream.sent(WEIGHTS) / size - 1


@pytest.mark.slow
def test_a_killed_mirror_goes_on_where_it_was(at: Settings, upstream: FakeHub) -> None:
    weights = tiny_safetensors({"a": ("F32", [32 * MiB // 256, 64])})
    upstream.add("org/model", tiny_model(**{WEIGHTS: weights}))
    upstream.rate = 8_000_000
    again = kill_and_finish(at, upstream, len(weights), 2)
    assert again < 0.5  # from the start each time would be 1; bench.mirror --kills measures it
    assert content(at, stored(at)[WEIGHTS]) == weights


@pytest.mark.slow
def test_twenty_kills_on_a_gigabyte_cost_little(
    at: Settings, upstream: FakeHub, tmp_path: Path
) -> None:
    rows = 1_000_000_000 // 256
    tensor = {"a": {"dtype": "F32", "shape": [rows, 64], "data_offsets": [0, rows * 256]}}
    header = json.dumps(tensor).encode()
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in range(rows * 256 // 1_000_000):
            file.write(os.urandom(1_000_000))
        file.write(bytes(rows * 256 % 1_000_000))
    upstream.add("org/model", tiny_model() | {WEIGHTS: weights})
    upstream.rate = 20_000_000
    again = kill_and_finish(at, upstream, weights.stat().st_size, 20)
    assert again < 0.5  # from the start each time would be ten; bench.mirror --kills measures it


def test_two_mirrors_of_one_repo_at_once(at: Settings, upstream: FakeHub) -> None:
    sha = upstream.add("org/model", tiny_model())
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(run(at))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [sha] * 3
