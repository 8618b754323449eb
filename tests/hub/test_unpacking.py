"""Folders and archives of strangers: what is taken, and what is refused before it is written."""

import contextlib
import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import unpacking
from hub.errors import Unprocessable

Files = dict[str, bytes]
PLUGIN: Files = {"plugin.toml": b"api = 1\n", "convert.py": b"x", "data/words.txt": b"a b c"}


def folder(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def zipped(path: Path, files: Files, **attributes: int) -> Path:
    path = path.with_name(path.name + ".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = attributes.get("mode", stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return path


def tarred(path: Path, files: Files, **attributes: object) -> Path:
    path = path.with_name(path.name + ".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for key, value in attributes.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))
    return path


def plain_tar(path: Path, files: Files) -> Path:
    packed = tarred(path, files)
    path = packed.with_name(path.name + ".tar")
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


Pack = Callable[..., Path]
PACKS = [folder, zipped, tarred, plain_tar]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "inside" / "taken"
    made.mkdir(parents=True)
    return made


def taken(target: Path) -> Files:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("pack", PACKS)
def test_the_files_of_a_folder_or_an_archive_are_taken(
    pack: Pack, tmp_path: Path, target: Path
) -> None:
    unpacking.take(pack(tmp_path / "toy", PLUGIN), target)
    assert taken(target) == PLUGIN


@pytest.mark.parametrize("pack", [zipped, tarred, plain_tar])
@pytest.mark.parametrize("top", ["toy-main/", "./", "./toy/"])
def test_one_top_folder_is_the_plugins(pack: Pack, tmp_path: Path, target: Path, top: str) -> None:
    unpacking.take(pack(tmp_path / "toy", {top + name: x for name, x in PLUGIN.items()}), target)
    assert taken(target) == PLUGIN


@pytest.mark.parametrize("pack", PACKS)
def test_what_is_hidden_or_compiled_is_left_out(pack: Pack, tmp_path: Path, target: Path) -> None:
    more = {".git/config": b"", ".env": b"SECRET", "__pycache__/convert.pyc": b""}
    unpacking.take(pack(tmp_path / "toy", PLUGIN | more), target)
    assert taken(target) == PLUGIN


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/etc/out", "a\\..\\out", "C:/out", "a\nb", "x\x1b[2J", "a" * 300],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_path_that_leads_out_is_refused(
    pack: Pack, tmp_path: Path, target: Path, name: str
) -> None:
    with pytest.raises(Unprocessable, match=r"Its entry .* path") as caught:
        unpacking.take(pack(tmp_path / "toy", {name: b"x"}), target)
    assert caught.value.kind == "bad_archive"
    assert "nothing of it was added" in caught.value.hint
    assert "\x1b" not in caught.value.message
    assert taken(tmp_path / "inside") == {}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_an_archive_are_refused(
    tmp_path: Path, target: Path, kind: bytes
) -> None:
    path = tarred(tmp_path / "toy", {"plugin.toml": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(Unprocessable, match="is a link or a device"):
        unpacking.take(path, target)
    assert taken(target) == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, target: Path, kind: int) -> None:
    path = zipped(tmp_path / "toy", {"convert.py": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(Unprocessable, match="is a link or a device"):
        unpacking.take(path, target)


@pytest.mark.parametrize("make", [os.symlink, None])
def test_links_and_pipes_in_a_folder_are_refused(
    tmp_path: Path, target: Path, make: Callable[[str, str], None] | None
) -> None:
    origin = folder(tmp_path / "toy", PLUGIN)
    if make:
        make("/etc/passwd", str(origin / "words.txt"))
    else:
        os.mkfifo(origin / "words.txt")
    with pytest.raises(Unprocessable, match=r"'words\.txt' is a link or a device"):
        unpacking.take(origin, target)


def test_a_link_to_a_folder_is_refused(tmp_path: Path, target: Path) -> None:
    origin = folder(tmp_path / "toy", PLUGIN)
    (origin / "more").symlink_to("/etc")
    with pytest.raises(Unprocessable, match="'more' is a link"):
        unpacking.take(origin, target)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, target: Path) -> None:
    for files in ({"a": b"1", "./a": b"2"}, {"a": b"1", "a/b": b"2"}, {"a/b": b"1", "a": b"2"}):
        with pytest.raises(Unprocessable, match="is there twice"):
            unpacking.take(tarred(tmp_path / "toy", files), target)
        for path in sorted(target.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("pack", PACKS)
def test_too_much_is_refused_wherever_it_is_seen(
    pack: Pack, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "BYTES", 1_000_000)
    with pytest.raises(Unprocessable, match=r"more than 2,000 files or 1\.0 MB") as caught:
        unpacking.take(pack(tmp_path / "toy", {"bomb": bytes(1_000_001)}), target)
    assert "requirements.txt" in caught.value.hint


@pytest.mark.parametrize("pack", PACKS)
def test_too_many_are_refused(
    pack: Pack, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FILES", 20)
    with pytest.raises(Unprocessable, match="more than 20 files"):
        unpacking.take(pack(tmp_path / "toy", {f"f{n}": b"" for n in range(21)}), target)


def test_a_header_that_unpacks_to_memory_is_cut(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "BYTES", 100_000)
    path = tarred(tmp_path / "toy", {"a": b""}, pax_headers={"comment": "x" * 1_000_000})
    with pytest.raises(Unprocessable, match="more than"):
        unpacking.take(path, target)


def test_an_encrypted_or_rarely_packed_zip_is_refused(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("convert.py", b"x" * 100)
    with pytest.raises(Unprocessable, match="packed in a rare way"):
        unpacking.take(path, target)
    encrypted = bytearray(zipped(tmp_path / "other", {"a": b"x"}).read_bytes())
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(Unprocessable, match="encrypted"):
        unpacking.take(path, target)


@pytest.mark.parametrize("pack", [zipped, tarred, plain_tar])
def test_a_damaged_archive_is_told_in_words(pack: Pack, tmp_path: Path, target: Path) -> None:
    path = pack(tmp_path / "toy", {"a": os.urandom(5000), "b": b"x" * 5000})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 3], b"", b"nonsense" * 100):
        path.write_bytes(content)
        with contextlib.suppress(Unprocessable):  # and nothing else
            unpacking.take(path, target)
        for made in target.iterdir():
            made.unlink()


def test_a_file_without_a_name_is_refused(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "toy", {"first": b"x", "second": b"x"})
    # Where zipfile meets a zero byte, a name ends.
    path.write_bytes(path.read_bytes().replace(b"first", b"\0irst"))
    with pytest.raises(Unprocessable, match="has no name"):
        unpacking.take(path, target)


def test_no_bytes_of_an_archive_break_the_reader(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("fuzz")
    sound = {pack: pack(place / pack.__name__, PLUGIN) for pack in (zipped, tarred, plain_tar)}
    contents = {path: path.read_bytes() for path in sound.values()}

    @given(st.sampled_from(sorted(contents)), st.integers(0, 10_000), st.integers(0, 255))
    def damaged(path: Path, where: int, value: int) -> None:
        content = bytearray(contents[path])
        content[where % len(content)] = value
        path.write_bytes(content)
        target = Path(tmp_path_factory.mktemp("taken"))
        with contextlib.suppress(Unprocessable):
            unpacking.take(path, target)
        assert not [one for one in target.rglob("*") if one.is_symlink()]

    damaged()


@pytest.mark.parametrize(
    ("name", "said"), [("nothing", "neither a folder nor a file"), ("toy.rar", "is no archive")]
)
def test_what_cannot_be_unpacked_says_what_can(
    tmp_path: Path, target: Path, name: str, said: str
) -> None:
    (tmp_path / "toy.rar").write_bytes(b"x")
    with pytest.raises(Unprocessable, match=said):
        unpacking.take(tmp_path / name, target)


@pytest.mark.parametrize("pack", PACKS)
def test_a_program_can_be_started(pack: Pack, tmp_path: Path, target: Path) -> None:
    origin = tmp_path / "toy"
    if pack is folder:
        (folder(origin, {"run.sh": b"#!"}) / "run.sh").chmod(0o700)
        unpacking.take(origin, target)
    elif pack is zipped:
        unpacking.take(pack(origin, {"run.sh": b"#!"}, mode=stat.S_IFREG | 0o4755), target)
    elif pack is tarred:
        unpacking.take(pack(origin, {"run.sh": b"#!"}, mode=0o4755), target)
    else:
        return
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
