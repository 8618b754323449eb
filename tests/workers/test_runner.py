"""The runner: what a good converter gives, and how each bad ending is named."""

import io
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hub import formats, launch
from hub.config import ROOT, Settings
from hub.errors import Conflict
from hub.formats import Format
from workers import harvest, runner
from workers.runner import Request, _Conversation
from workers.watch import Cancelled, PluginError

MiB = 1 << 20


def launchers() -> list[psutil.Process]:
    """The launchers that this process has started and that still live."""
    found = psutil.Process().children()
    return [one for one in found if str(launch.LAUNCHER) in _command(one)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def test_a_conversion_gives_files_checks_and_progress(convert: Any) -> None:
    outcome = convert(variants=("plain", "loud"), say="converters print")
    assert outcome.error is None
    assert outcome.files == {
        "plain": {"org_model-plain.txt": "org_model is a llama\n"},
        "loud": {"org_model-loud.txt": "ORG_MODEL IS A LLAMA\n"},
    }
    assert [check["runtime"] for check in outcome.checks] == ["echo", "echo"]
    done = [done for done, _ in outcome.progress]
    assert done == sorted(done)
    assert done[-1] > 0.9
    assert "converters print" in outcome.log
    assert outcome.level == "strict"
    assert not launchers()


def test_the_peaks_of_a_conversion_are_known(convert: Any) -> None:
    outcome = convert(allocate=200, sleep=5)  # long enough to be seen: it is looked at in turns
    assert outcome.error is None
    assert 200 * MiB < outcome.memory < 300 * MiB
    assert outcome.scratch < MiB


def test_what_the_converter_made_is_out_of_its_reach(convert: Any) -> None:
    outcome = convert(variants=("plain", "loud"))
    assert list((outcome.folder / "output").iterdir()) == []
    for path in (outcome.folder / "output.host" / "taken").rglob("*.txt"):
        assert path.stat().st_uid == os.geteuid()
        assert path.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("act", "target", "kind", "said"),
    [
        ("crash", "", "plugin_crashed", "was ended by SIGSEGV"),
        ("crash", "9", "plugin_crashed", "was ended by SIGKILL, having used"),
        ("leave", "3", "plugin_crashed", "ended with exit code 3. Its last words: about to leave"),
        ("throw", "", "plugin_crashed", "RuntimeError: nobody expects this"),
        ("refuse", "", "unsupported_model", "This cannot be converted."),
        ("no_such_act", "", "plugin_crashed", "KeyError"),
        ("mute", "", "plugin_garbage", "without saying that it was done"),
        ("garbage", "not json", "plugin_garbage", "not json"),
        ("garbage", "[1]", "plugin_garbage", "[1]"),
        ("garbage", '{"event": "party"}', "plugin_garbage", "party"),
        ("garbage", '{"event": "progress", "variant": "x", "done": 1}', "plugin_garbage", '"x"'),
        ("garbage", '{"event": "artefact", "variant": "../x"}', "plugin_garbage", "../x"),
        ("endless", "", "plugin_garbage", "xxx"),
        ("nofile", "", "no_artefact", "left no files"),
        ("nofolder", "", "no_artefact", "left no files"),
        ("symlink", "", "bad_output", "'link.txt' is a symbolic link"),
        ("folderlink", "", "bad_output", "'folder' is a symbolic link"),
        ("replaced", "", "bad_output", "is not a folder"),
        ("hardlink", "", "bad_output", "is a hard link"),
        ("fifo", "", "bad_output", "'fifo.txt' is a FIFO"),
        ("unixsocket", "", "bad_output", "'s' is a socket"),
        ("badname", "", "bad_output", "not a name that a repo may hold"),
        ("badname", "a%2e", "bad_output", "not a name that a repo may hold"),
    ],
)
@pytest.mark.slow
def test_a_bad_ending_has_a_name(convert: Any, act: str, target: str, kind: str, said: str) -> None:
    outcome = convert(act, target)
    message = outcome.error.message if outcome.error else outcome.found
    assert outcome.kind == kind, message
    assert said in message.replace('\\"', '"')
    assert outcome.error.hint
    assert str(outcome.folder) not in message
    assert not outcome.files
    assert not launchers()


@pytest.mark.slow
def test_a_bad_file_of_one_variant_leaves_the_others(convert: Any, tmp_path: Path) -> None:
    # The first variant is copied while the converter lives: the same rules hold there.
    outcome = convert("symlink", variants=("plain", "loud"))
    assert outcome.kind == "bad_output"
    assert not outcome.files


@pytest.mark.parametrize("level", ["strict", "weak"])
@pytest.mark.parametrize(
    ("act", "target", "options", "limits", "kind", "figures"),
    [
        (
            "nothing",
            "",
            {"allocate": 400, "sleep": 40},  # until it is seen
            {"memory_limit": 150 * MiB},
            "out_of_memory",
            "150 MiB",
        ),
        ("map_shared", "400", {}, {"memory_limit": 150 * MiB}, "out_of_memory", "150 MiB"),
        ("fork", "60", {}, {"process_limit": 20}, "too_many_processes", "20 are allowed"),
        ("deleted", "40", {}, {"output_limit": 20 * MiB}, "output_too_large", "20,971,520"),
        ("deleted", "15", {"write": 10}, {"output_limit": 20 * MiB}, "output_too_large", "20,971"),
        (
            "nothing",
            "",
            {"write": 15},
            {"output_limit": 10 * MiB},
            "output_too_large",
            "10,485,760",
        ),
        ("hang", "", {}, {"idle_timeout": 1}, "plugin_silent", "1 s"),
        ("nothing", "", {"sleep": 600}, {"job_timeout": 1}, "timeout", "1 s"),
    ],
)
@pytest.mark.slow
def test_a_limit_ends_it_with_figures(
    convert: Any,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    act: str,
    target: str,
    options: dict[str, Any],
    limits: dict[str, Any],
    kind: str,
    figures: str,
) -> None:
    monkeypatch.setattr(launch, "level", lambda _settings: level)
    monkeypatch.setattr("workers.watch.GRACE", 0.5)
    outcome = convert(act, target, limits=limits, **options)
    assert outcome.error is not None
    assert outcome.kind == kind, outcome.error.message
    assert figures in outcome.error.message
    assert not launchers()


@pytest.mark.slow
def test_memory_in_tmp_counts(convert: Any) -> None:
    outcome = convert("fill_tmp", 400, limits={"memory_limit": 150 * MiB})
    assert outcome.kind == "out_of_memory" or "No space left" in outcome.found


@pytest.mark.slow
def test_a_hole_larger_than_the_limit_is_refused(convert: Any) -> None:
    assert "File too large" in convert("sparse", 1 << 40).found
    outcome = convert("sparse", 1 << 29, limits={"output_limit": 1 << 29})
    assert outcome.kind == "output_too_large"


@pytest.mark.slow
def test_the_log_is_cut_where_it_grows_too_large(convert: Any) -> None:
    outcome = convert("babble", 40)
    assert outcome.error is None
    assert len(outcome.log) < runner.LOG + 1000
    assert "the log is cut here" in outcome.log


@pytest.mark.slow
@pytest.mark.parametrize("act", ["nothing", "hang"])
def test_cancel_ends_all(convert: Any, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    monkeypatch.setattr("workers.watch.GRACE", 1)
    wanted = threading.Event()
    timer = threading.Timer(0.7, wanted.set)
    timer.start()
    with pytest.raises(Cancelled):
        convert(act, sleep=600 if act == "nothing" else 0, cancelled=wanted.is_set)
    timer.join()
    assert not launchers()


@pytest.mark.slow
def test_an_error_of_the_publisher_ends_the_converter(
    echo: tuple[Settings, Format], tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise LookupError

    request = request_in(tmp_path, ["plain", "loud"])
    request.options["sleep"] = 1.0
    with pytest.raises(LookupError):
        runner.run(
            *echo,
            request,
            on_progress=lambda *_: None,
            on_artefact=refuse,
            log=io.BytesIO(),
            cancelled=lambda: False,
        )
    assert not launchers()


def request_in(folder: Path, variants: list[str]) -> Request:
    for name in ("source", "output", "scratch"):
        (folder / name).mkdir()
    (folder / "source" / "config.json").write_text("{}")
    options = {"sleep": 0.0, "allocate": 0, "write": 0, "say": "", "act": "nothing", "target": ""}
    places = [folder / name for name in ("source", "output", "scratch")]
    return Request("convert", "echo", variants, options, "org_model", *places)


def test_a_plugin_that_is_not_installed_is_refused(
    echo: tuple[Settings, Format], settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(Conflict, match="not installed") as caught:
        runner.run(
            settings,
            echo[1],
            request_in(tmp_path, ["plain"]),
            on_progress=lambda *_: None,
            on_artefact=lambda *_: None,
            log=io.BytesIO(),
            cancelled=lambda: False,
        )
    assert caught.value.kind == "plugin_not_ready"


PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SHELL = PROTOCOL.partition("```sh\n")[2].partition("```")[0]
SHELL_MANIFEST = """
api = 1
name = "shell"
title = "Shell"
runtime = "sh"
summary = "A converter that is no Python"
repo = "{source}-Shell"
command = ["/bin/sh", "convert.sh"]
[[variants]]
name = "only"
bits = 8
class = "medium"
note = "One"
"""


def test_a_converter_may_be_a_shell_script(convert: Any, tmp_path: Path) -> None:
    folder = tmp_path / "shell"
    folder.mkdir()
    (folder / "plugin.toml").write_text(SHELL_MANIFEST)
    (folder / "convert.sh").write_text(SHELL)
    fmt = formats.read(folder)
    assert fmt.problem is None
    assert formats.state(convert.settings, fmt).ready
    outcome = convert(fmt=fmt, variants=("only",))
    assert outcome.error is None
    assert outcome.files["only"]["size.txt"].strip() == "23"
    assert outcome.checks == [{"runtime": "sh"}]
    assert outcome.log == "counting\n"
    assert outcome.progress[0][1] == "only: half"


def conversation(folder: Path, heard: list[Any]) -> _Conversation:
    settings = Settings(data=folder / "data")
    fmt = Format(folder=folder, name="echo", title="Echo")
    request = Request("convert", variants=["plain"], output=folder / "output")
    return _Conversation(
        settings,
        fmt,
        request,
        folder,
        SimpleNamespace(peak=0, weigh_scratch=lambda: 0),  # type: ignore[arg-type]
        lambda *given: heard.append(given),
        lambda *given: heard.append(given),
    )


@given(st.one_of(
    st.binary(),
    st.text().map(str.encode),
    st.dictionaries(
        st.sampled_from(["event", "variant", "done", "message", "check", "seconds", "x"]),
        st.one_of(
            st.sampled_from(["progress", "artefact", "done", "error", "plain"]),
            st.none(), st.booleans(), st.floats(), st.text(), st.lists(st.integers(), max_size=2),
        ),
    ).map(lambda event: json.dumps(event).encode()),
))  # fmt: skip
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_line_is_an_event_or_garbage(tmp_path: Path, line: bytes) -> None:
    heard: list[Any] = []
    talk = conversation(tmp_path, heard)
    try:
        talk.hear(line)
    except PluginError:
        return
    for done, message in heard:
        assert 0 <= done <= 1
        message.encode()


def test_a_text_for_users_has_no_path_of_the_machine(tmp_path: Path) -> None:
    text = conversation(tmp_path, []).scrub(f"{tmp_path}/output/x \ud800\0 {tmp_path}/data")
    assert text == "output/x ?? data"


def test_the_harvest_is_bounded_and_nested(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "onnx").mkdir(parents=True)
    (made / "onnx" / "model.onnx").write_bytes(b"x" * 3000)
    (made / "config.json").write_text("{}")
    taken = harvest.take(made, tmp_path / "taken", limit=3002, move=False)
    assert [path.as_posix() for path in taken] == ["config.json", "onnx/model.onnx"]
    assert (tmp_path / "taken" / "onnx" / "model.onnx").read_bytes() == b"x" * 3000
    assert not made.exists()
    with pytest.raises(harvest.BadOutput, match="3,000 bytes, and 100 are left"):
        harvest.take(tmp_path / "taken" / "onnx", tmp_path / "again", limit=100, move=True)
