"""`slmhub plugins`: states without running a plugin, failures in words, adding and removing."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from commanding import Slmhub
from furnished import MANIFEST

from hub import formats, unpacking
from hub.config import Settings


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The toy plugin as somebody sends it. If anything ran its code, the tests would notice."""
    files = {
        "plugin.toml": MANIFEST.replace(
            'title = "Toy"', 'title = "Toy"\nplatforms = ["amiga-68k"]'
        ),
        "convert.py": "raise SystemExit('it ran')\n",
        "requirements.txt": "six==1.17.0\nx @ https://elsewhere.example/x.whl\n",
    }
    with tarfile.open(tmp_path / "toy.tar.gz", "w:gz") as packed:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"toy-main/{name}")
            entry.size = len(text)
            packed.addfile(entry, io.BytesIO(text.encode()))
    return tmp_path / "toy.tar.gz"


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_the_list_has_every_plugin_and_its_state(slmhub: Slmhub, tmp_path: Path) -> None:
    broken = tmp_path / "mine" / "torn"
    broken.mkdir(parents=True)
    (broken / "plugin.toml").write_text("api = ")
    slmhub.set(HUB_PLUGINS=str(broken.parent))
    rows = {row["name"]: row for row in slmhub("plugins", "list", "--json").json}
    assert {"echo", "gguf", "torn"} <= set(rows)
    assert rows["torn"]["state"] == "broken"
    assert rows["torn"]["reason"]
    assert "Q4_K_M" in rows["gguf"]["variants"]
    people = slmhub("plugins", "list")
    assert (people.code, people.err) == (0, "")
    assert "not installed" in people.out


@pytest.mark.slow
@pytest.mark.parametrize("command", ["install", "check"])
def test_an_unknown_plugin_names_the_known(settings: Settings, command: str) -> None:
    argv = [sys.executable, "-m", "hub.cli", "plugins", command, "nope", "--json"]
    env = {"HUB_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=120, check=False
    )  # it starts a process of the workers, whose words and exit code it hands on
    assert (done.returncode, done.stdout) == (1, "")
    assert '"kind": "unknown_plugin"' in done.stderr
    assert "echo, gguf" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["install", "check"])
def test_folders_of_the_caller_are_not_taken_for_the_hubs_code(
    settings: Settings, tmp_path: Path, command: str
) -> None:
    for name in ("hub", "workers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not the hub')")
    argv = [sys.executable, "-P", "-m", "hub.cli", "plugins", command, "nope"]
    env = {"HUB_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "There is no plugin 'nope'" in done.stderr


def test_the_list_tells_what_to_do_about_what_is_wrong(slmhub: Slmhub, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    manifests = {"old": "api = 0", "echo": MANIFEST.replace('"toy"', '"echo"', 1)}
    for name, text in manifests.items():
        (mine / name).mkdir(parents=True)
        (mine / name / "plugin.toml").write_text(text)
        (mine / name / "convert.py").touch()
        (mine / name / "requirements.txt").touch()
    slmhub.set(HUB_PLUGINS=str(mine))
    people = slmhub("plugins", "list").out
    assert "old: Take a version of the plugin that speaks it." in people
    assert "echo: Rename it, in its manifest and as that of its folder." in people
    rows = slmhub("plugins", "list", "--json").json
    assert [row["state"] for row in rows if row["name"] == "echo"] == ["not installed", "broken"]
    assert all(row["hint"] for row in rows if row["state"] == "broken")


def test_a_new_plugin_comes_with_its_next_steps(
    slmhub: Slmhub, settings: Settings, tmp_path: Path
) -> None:
    made = slmhub("plugins", "new", "mine")
    assert made.code == 0
    assert "slmhub plugins check mine" in made.out
    assert "HUB_PLUGINS" not in made.out  # the hub looks there anyway
    assert formats.get(settings, "mine").folder == settings.data / "plugins" / "mine"
    elsewhere = slmhub("plugins", "new", "yours", "--folder", str(tmp_path / "a b"), "--json").json
    assert elsewhere["folder"] == str(tmp_path / "a b" / "yours")
    assert elsewhere["next"][0] == f"export HUB_PLUGINS='{tmp_path}/a b'"
    again = slmhub("plugins", "new", "mine", "--json")
    assert (again.code, again.failure["kind"]) == (1, "plugin_exists")


def test_nothing_is_added_unseen(slmhub: Slmhub, settings: Settings, archive: Path) -> None:
    done = slmhub("plugins", "add", str(archive), "--json")
    assert (done.code, done.out, done.failure["kind"]) == (1, "", "not_confirmed")
    assert "--yes" in done.failure["hint"]
    for words in (
        "toy 1.2.3: Toy (toy-rt)", "Runs on toys", "convert.py, by Python, in the sandbox",
        "{source}-TOY", "q4: Default: small", "six==1.17.0", "MIT", "amiga-68k",
        "group_size: Weights that share one scale (one of 32, 64; else 64)",
        "fetched from where it says", "3 files",
    ):  # fmt: skip
        assert words in done.err, words
    assert "toy" not in formats.formats(settings)


@pytest.mark.parametrize(("typed", "added"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_somebody_at_a_terminal_is_asked(
    slmhub: Slmhub, settings: Settings, archive: Path, typed: str, added: bool
) -> None:
    slmhub.monkeypatch.setattr(sys, "stdin", Terminal(typed))
    done = slmhub("plugins", "add", str(archive))
    assert done.code == (0 if added else 1)
    assert ("toy" in formats.formats(settings)) is added
    assert "Add toy, install what it requires and let it convert models? [y/N]" in done.err


def test_what_was_added_is_replaced_and_removed(
    slmhub: Slmhub, settings: Settings, archive: Path
) -> None:
    made = slmhub("plugins", "add", str(archive), "--yes", "--no-install", "--json")
    assert made.code == 0, made.err
    assert made.json["state"] == "unsupported here"
    assert made.json["replaced"] is None
    twice = slmhub("plugins", "add", str(archive), "--yes", "--json")
    assert (twice.code, twice.failure["kind"]) == (1, "plugin_exists")
    assert "--replace" in twice.failure["hint"]
    replaced = slmhub("plugins", "add", str(archive), "--yes", "--replace", "--json")
    assert replaced.json["replaced"] == "1.2.3"
    assert "of the same version" in replaced.err
    gone = slmhub("plugins", "remove", "toy")
    assert (gone.code, gone.out) == (0, "toy was removed. What it made is still there.\n")
    builtin = slmhub("plugins", "remove", "gguf", "--json")
    assert (builtin.code, builtin.failure["kind"]) == (1, "not_added")
    assert "one of the hub's own" in builtin.failure["message"]


@pytest.mark.parametrize("name", ["nothing.zip", "/etc/passwd", "."])
def test_what_is_no_plugin_says_so(slmhub: Slmhub, settings: Settings, name: str) -> None:
    slmhub.monkeypatch.chdir(settings.data)
    done = slmhub("plugins", "add", name, "--yes", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.failure["kind"] in ("bad_archive", "no_plugin")
    assert done.failure["hint"]


@pytest.mark.slow
def test_an_added_plugin_is_installed_by_a_process_of_its_own(
    settings: Settings, tmp_path: Path, archive: Path
) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    unpacking.take(archive, folder)
    (folder / "plugin.toml").write_text(
        MANIFEST.replace("toy-tools", "pip").replace("tools =", "#")
    )
    (folder / "requirements.txt").write_text("")
    argv = [sys.executable, "-m", "hub.cli", "plugins", "add", str(folder), "--yes", "--json"]
    env = {"HUB_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "ready"
    gone = subprocess.run(
        [*argv[:4], "remove", "toy", "--json"], env=env, capture_output=True, text=True, check=False
    )
    assert json.loads(gone.stdout) == {"name": "toy", "environments": 1}
    assert not (settings.environments / "toy").exists()
