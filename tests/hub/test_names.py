"""Names of repos, paths of files, revisions: what is taken, and that it is harmless."""

import contextlib
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hub.errors import InvalidRequest, Unprocessable
from hub.names import check_foreign, check_name, check_path, check_revision


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-0.6B", "hub/Qwen_Qwen3-0.6B-GGUF", "a/b", "_a/b_", "o/" + "n" * 94]
)
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt2",
        "a/b/c",
        "/a",
        "a/",
        "../b",
        "a/..",
        "a/.b",
        "a./b",
        "-a/b",
        "a/b-",
        "a--b/c",
        "a/b..c",
        "a/b.git",
        "a/b c",
        "a/b%2e",
        "a\\b/c",
        "a/b\0",
        "a/b\n",
        "ä/b",
        "٣/b",
        "o/" + "n" * 95,
        "api/model",
        "API/model",
        "static/x",
        "v2/x",
        "models/x",
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_name(name)
    assert raised.value.kind == "bad_repo_name"
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.c", ".gitattributes", "a/...", "ordner/größe.txt", "模型.gguf", "a b", "s" * 255],
)
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "..\\a",
        "%2e%2e/a",
        "a%00",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\u202eb",
        "a\u2028b",
        "a\ud800",
        "s" * 256,
        "/".join(["s" * 200] * 6),
    ],
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_path(path)
    assert raised.value.kind == "bad_path"
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    "revision",
    ["main", "v1.0", "refs/pr/12", "feature/x", "a" * 40, "a" * 7, "gguf-Q4_K_M", "x" * 255],
)
def test_good_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "..",
        "a..b",
        "/a",
        "a/",
        "a//b",
        "-x",
        ".a",
        "a/.b",
        "a./b",
        "a.",
        "a%2fb",
        "a\\b",
        "a\x00",
        "a b",
        "a\n",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a@{1}",
        "x" * 256,
        "ä",
    ],
)
def test_bad_revisions(revision: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_revision(revision)
    assert raised.value.kind == "bad_revision"
    assert raised.value.message.isprintable()


tricky = st.text(st.sampled_from(list("aZ0._-/\\%@~\0\n é٣\u202e\ud800")), max_size=20) | st.text()


@given(tricky)
@examples(max_examples=300)
def test_a_name_that_passes_is_harmless(name: str) -> None:
    with contextlib.suppress(InvalidRequest):
        organisation, _slash, model = check_name(name).partition("/")
        assert set(organisation + model) <= set(string.ascii_letters + string.digits + "._-")
        assert ".." not in name
        assert not {organisation[0], organisation[-1], model[0], model[-1]} & {".", "-"}


@given(tricky)
@examples(max_examples=300)
def test_a_path_that_passes_stays_in_its_folder(path: str) -> None:
    with contextlib.suppress(InvalidRequest):
        check_path(path)
        assert not {"", ".", ".."} & set(path.split("/"))
        assert not set("\\%\0") & set(path)
        assert all(unicodedata.category(letter)[0] != "C" for letter in path)
        path.encode()


@given(tricky)
@examples(max_examples=300)
def test_a_revision_that_passes_is_harmless(revision: str) -> None:
    with contextlib.suppress(InvalidRequest):
        check_revision(revision)
        assert not {"", ".", ".."} & set(revision.split("/"))
        assert revision.isascii()
        assert revision.isprintable()


def test_the_hubs_own_organisation_is_not_mirrored_into() -> None:
    assert check_foreign("org/hub", "hub") == "org/hub"
    for name in ("hub/x", "Hub/x"):
        with pytest.raises(Unprocessable, match="writes itself") as caught:
            check_foreign(name, "hub")
        assert caught.value.kind == "own_namespace"
