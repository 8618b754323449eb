"""Adding and removing plugins: one step, no name taken twice, nothing left behind, nothing lost."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from furnished import add_job, add_plugin

from hub import adding, environments, formats
from hub.config import ROOT, Settings
from hub.errors import Conflict, HubError, NotFound, Unprocessable
from hub.formats import Format
from hub.models import JobState

MANIFEST = """
api = 1
name = "toy"
version = "1"
title = "Toy"
runtime = "none"
summary = "A toy"
repo = "{source}-Toy"
[[variants]]
name = "only"
bits = 4
class = "low"
note = "Default"
"""


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The folder of a plugin that is not the hub's, under a name that is not the plugin's."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "requirements.txt").write_text("six==1.17.0 \\\n    --hash=sha256:00\n# note\n")
    # If anything of it ran in this process, the tests would end here.
    (folder / "convert.py").write_text("raise SystemExit('run')\n")
    return folder


def add(settings: Settings, origin: Path, *, replace: bool = False) -> Format:
    with adding.offered(settings, origin, replace=replace) as offer:
        return adding.put(settings, offer)


def left(settings: Settings) -> list[str]:
    """What lies among the added plugins, but for the lock."""
    return sorted(
        path.relative_to(settings.added_plugins).as_posix()
        for path in settings.added_plugins.rglob("*")
        if path.name not in (".lock", ".added")
    )


def environment(settings: Settings, fmt: Format) -> Path:
    """Say that the environment of a plugin is there."""
    place = formats.environment(settings, fmt)
    folder = place.with_name(place.name + ".1")
    (folder / "bin").mkdir(parents=True)
    (folder / ".ready").touch()
    place.symlink_to(folder.name)
    (place.parent / ".lock").touch()
    return place


def test_a_plugin_is_shown_then_put_then_found(settings: Settings, origin: Path) -> None:
    with adding.offered(settings, origin) as offer:
        assert (offer.fmt.name, offer.files, offer.replaces) == ("toy", 3, None)
        assert offer.requirements == ["six==1.17.0"]
        assert offer.from_elsewhere == []
        assert "toy" not in formats.formats(settings)
        fmt = adding.put(settings, offer)
    assert fmt.folder == settings.added_plugins / "toy"
    assert formats.get(settings, "toy").title == "Toy"
    shutil.rmtree(origin)
    assert formats.read(fmt.folder).problem is None


def test_what_was_offered_and_not_put_leaves_nothing(settings: Settings, origin: Path) -> None:
    with adding.offered(settings, origin):
        pass
    assert left(settings) == []
    with pytest.raises(KeyboardInterrupt), adding.offered(settings, origin):
        raise KeyboardInterrupt
    assert left(settings) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "plugin.toml").unlink(), "There is no plugin.toml in it"),
        (lambda folder: (folder / "convert.py").unlink(), "broken: convert.py: is missing"),
        (lambda folder: (folder / "requirements.txt").unlink(), "broken: requirements.txt: is mis"),
        (
            lambda folder: (folder / "plugin.toml").write_text(MANIFEST.replace("= 1", "= 0", 1)),
            "broken: api: 0 is not spoken here; this hub speaks 1",
        ),
        (
            lambda folder: (folder / "plugin.toml").write_text("verison = 1" + MANIFEST),
            "broken: verison: is not a known key; 'version' is",
        ),
        (
            lambda folder: (folder / "plugin.toml").write_text(MANIFEST.replace('"toy"', '"../x"')),
            "broken: name: ",
        ),
        (lambda folder: (folder / "plugin.toml").write_text("name = "), "broken: plugin.toml: "),
        (lambda folder: (folder / "link").symlink_to("/etc"), "is a link"),
    ],
)
def test_what_is_no_sound_plugin_is_refused_and_leaves_nothing(
    settings: Settings, origin: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(origin)
    with pytest.raises(Unprocessable) as caught:
        add(settings, origin)
    assert said in caught.value.message
    assert caught.value.hint
    assert left(settings) == []


def test_requirements_from_elsewhere_are_told(settings: Settings, origin: Path) -> None:
    lines = ["--index-url https://a.example", "x @ https://b.example/x.whl", "./native", "six==1"]
    (origin / "requirements.txt").write_text("\n".join(lines))
    with adding.offered(settings, origin) as offer:
        assert offer.from_elsewhere == lines[:3]


def test_a_second_version_takes_the_place_only_when_told_to(
    settings: Settings, origin: Path
) -> None:
    add(settings, origin)
    (origin / "plugin.toml").write_text(MANIFEST.replace('version = "1"', 'version = "2"'))
    with pytest.raises(Conflict, match=r"'toy' was added before \(version 1\)") as caught:
        add(settings, origin)
    assert "--replace" in caught.value.hint
    assert formats.get(settings, "toy").version == "1"
    assert add(settings, origin, replace=True).version == "2"
    assert formats.get(settings, "toy").version == "2"
    stored = [path for path in left(settings) if path.count("/") == 1]
    assert len(stored) == 1  # the first is gone


def test_a_name_that_others_have_is_not_to_be_had(
    settings: Settings, origin: Path, tmp_path: Path
) -> None:
    for name, said in (("echo", "one of the hub's own"), ("toy", "by way of HUB_PLUGINS")):
        if name == "toy":
            add_plugin(tmp_path / "mine", settings, ready=False)
        (origin / "plugin.toml").write_text(MANIFEST.replace('"toy"', f'"{name}"'))
        for replace in (False, True):
            with pytest.raises(Conflict, match=f"The name '{name}' is taken: .*{said}"):
                add(settings, origin, replace=replace)
    assert left(settings) == []


def test_an_authors_folder_is_neither_replaced_nor_removed(
    settings: Settings, origin: Path
) -> None:
    own = settings.added_plugins / "toy"
    shutil.copytree(origin, own)
    with pytest.raises(Conflict, match="its author keeps it in"):
        add(settings, origin, replace=True)
    with pytest.raises(Unprocessable, match="its author keeps it in"):
        adding.remove(settings, "toy")
    assert (own / "convert.py").exists()


def test_what_was_added_is_removed_with_its_environments(settings: Settings, origin: Path) -> None:
    place = environment(settings, add(settings, origin))
    assert adding.remove(settings, "toy") == [place.name]
    assert not place.parent.exists()
    assert left(settings) == []
    assert "toy" not in formats.formats(settings)
    with pytest.raises(NotFound, match="no plugin 'toy'"):
        adding.remove(settings, "toy")


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.PUBLISHING])
def test_a_plugin_with_jobs_that_are_not_over_stays(
    settings: Settings, origin: Path, state: JobState
) -> None:
    add(settings, origin)
    add_job(settings, kind="convert", plugin="toy", state=state)
    for change in (
        lambda: adding.remove(settings, "toy"),
        lambda: add(settings, origin, replace=True),
    ):
        with pytest.raises(Conflict, match="A job of toy is not over") as caught:
            change()
        assert "slmhub jobs list --state active" in caught.value.hint
    assert formats.get(settings, "toy").problem is None


def test_a_plugin_whose_jobs_are_over_goes(settings: Settings, origin: Path) -> None:
    add(settings, origin)
    add_job(settings, kind="convert", plugin="toy", state=JobState.DONE)
    assert adding.remove(settings, "toy") == []


def test_an_environment_that_is_used_or_built_keeps_its_plugin(
    settings: Settings, origin: Path
) -> None:
    place = environment(settings, add(settings, origin))
    with environments.in_use(place), pytest.raises(Conflict, match="being built or used"):
        adding.remove(settings, "toy")
    assert (place / ".ready").exists()
    assert formats.get(settings, "toy").problem is None


@pytest.mark.parametrize("name", ["gguf", "../data", "toy/../..", ".added", ""])
def test_only_what_was_added_is_removed(settings: Settings, origin: Path, name: str) -> None:
    add(settings, origin)
    with pytest.raises(HubError) as caught:
        adding.remove(settings, name)
    assert caught.value.hint
    assert formats.get(settings, "toy").problem is None
    assert (ROOT / "plugins" / "gguf").is_dir()


def test_a_hub_that_never_ran_can_add_and_remove(tmp_path: Path, origin: Path) -> None:
    settings = Settings(data=tmp_path / "fresh")
    add(settings, origin)
    adding.remove(settings, "toy")
    assert not (settings.data / "hub.sqlite").exists()


def test_of_many_at_once_one_is_put(settings: Settings, origin: Path) -> None:
    outcomes: list[str] = []

    def try_it() -> None:
        try:
            outcomes.append(add(settings, origin).name)
        except Conflict as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["plugin_exists"] * 5 + ["toy"]
    assert formats.get(settings, "toy").problem is None
    assert len([path for path in left(settings) if path.count("/") == 1]) == 1


def test_what_a_killed_process_left_is_swept_later(
    settings: Settings, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = settings.added_plugins / ".added" / "dead" / "taken"
    stale.mkdir(parents=True)
    add(settings, origin)
    assert stale.exists()  # somebody may be asking about it
    monkeypatch.setattr(adding, "HOUR", -1)
    adding.remove(settings, "toy")
    assert left(settings) == []
