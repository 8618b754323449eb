"""`slmhub fsck` and `slmhub gc`."""

import pytest
from commanding import Slmhub
from published import publish

from hub.blobs import BlobStore
from hub.config import Settings


def damage(settings: Settings, content: bytes) -> str:
    store = BlobStore(settings.blobs)
    sha256 = store.add_bytes(content).sha256
    store.path(sha256).chmod(0o644)
    store.path(sha256).write_bytes(b"x" * len(content))
    return sha256


def test_a_whole_store(slmhub: Slmhub, settings: Settings) -> None:
    publish(settings, "org/model", {"a.bin": b"aaa", "b.bin": b"bbbb"})
    done = slmhub("fsck", "--json")
    assert (done.code, done.json["ok"], done.json["blobs"], done.json["bytes"]) == (0, True, 2, 7)
    assert slmhub("fsck").out == "2 blobs, 7 bytes hashed.\nEverything is in order.\n"


@pytest.mark.parametrize("heal", ["--heal", "--no-heal"])
def test_a_converted_file_that_is_lost_is_told_with_its_name(
    slmhub: Slmhub, settings: Settings, heal: str
) -> None:
    publish(settings, "hub/org_model-TOY", {"a.toy": b"aaa"}, kind="derived")
    sha256 = damage(settings, b"aaa")
    done = slmhub("fsck", heal, "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    (finding,) = done.json["findings"]
    assert (finding["sha256"], finding["problem"], finding["healed"]) == (sha256, "damaged", False)
    assert "a.toy" in finding["paths"][0]
    people = slmhub("fsck", heal)
    assert people.code == 1
    assert "request the conversion again" in people.out


@pytest.mark.parametrize("part", ["1", "a/b", "0/3", "4/3", "1/0", "/", "-1/2"])
def test_parts_that_are_none(slmhub: Slmhub, part: str) -> None:
    done = slmhub("fsck", "--json", f"--subset={part}")
    assert (done.code, done.out, done.failure["kind"]) == (1, "", "bad_subset")
    assert "1/4" in done.failure["hint"]


def test_the_parts_are_the_whole(slmhub: Slmhub, settings: Settings) -> None:
    publish(settings, "org/model", {f"{i}.bin": b"%d" % i for i in range(20)})
    seen = [slmhub("fsck", "--subset", f"{part}/3", "--json").json["blobs"] for part in (1, 2, 3)]
    assert sum(seen) == 20


def test_collecting(slmhub: Slmhub, settings: Settings) -> None:
    publish(settings, "org/model", {"a.bin": b"kept"})
    left = BlobStore(settings.blobs).stage()
    left.write_bytes(b"left")
    assert slmhub("gc", "--json").json["staged"] == 0  # it is younger than a day
    assert left.exists()
    assert slmhub("gc", "--dry-run").out.startswith("Would remove 0 blobs")
    assert slmhub("gc").code == 0
    done = slmhub("gc", "--hours", "0", "--json")
    assert done.code == 1  # a running hub may still need it
    assert done.failure["hint"]
    assert slmhub("fsck", "--json").json["ok"]
