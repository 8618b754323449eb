"""The life of a plugin from the command line: `python -m workers.plugins install|check NAME`.

A process of its own, started by `slmhub plugins`, because the hub does not import the workers.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from uv import find_uv_bin

from hub import asking, formats, launch
from hub.cli import edge
from hub.commands.output import as_json, show, table
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from hub.progress import bar
from hub.sample import sample_folder
from hub.sizes import size
from workers import environments, runner
from workers.harvest import BadOutput

PYTEST = "pytest==9.2.0"
CONFIG = ["-p", "no:cacheprovider", "-q", "--rootdir"]


@dataclass(frozen=True)
class Step:
    """One step of a check: `ok` or not, how long it took, what was seen."""

    step: str
    ok: bool
    seconds: float
    seen: str


@click.group()
@click.pass_context
def cli(context: click.Context) -> None:
    """Build and check the environments of plugins."""
    context.obj = Settings()


@cli.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Build it anew even when it is ready.")
@as_json
@click.pass_obj
def install(settings: Settings, name: str, force: bool, json_: bool) -> None:
    """Build the environment of a plugin."""
    fmt = formats.get(settings, name)
    with bar(f"install {name}") as report:
        environments.install(settings, fmt, lambda line: report(None, line), force=force)
    tools = environments.tool_versions(settings, fmt)
    made = {"name": name, "state": "ready", "tools": tools}
    show(made, json_, lambda _one: print(f"{name} is ready: {_versions(tools)}"))


def _versions(tools: dict[str, str]) -> str:
    return ", ".join(f"{tool} {version}" for tool, version in tools.items()) or "it needs no tools"


@cli.command()
@click.argument("name")
@click.option("--test-only", is_flag=True, help="Only the plugin's own test.")
@as_json
@click.pass_obj
def check(settings: Settings, name: str, test_only: bool, json_: bool) -> None:
    """Test a plugin: manifest, environment, its own test, the sample in every variant."""
    fmt = formats.get(settings, name)
    steps = []
    with bar(f"check {name}") as report:
        for step in _steps(settings, fmt, test_only, lambda line: report(None, line)):
            steps.append(step)
            report(None, f"{step.step}: {step.seen}")
    show(
        [asdict(step) for step in steps],
        json_,
        lambda rows: table(rows, ["step", "ok", "seconds", "seen"]),
    )
    if not all(step.ok for step in steps):
        raise SystemExit(1)


def _steps(
    settings: Settings, fmt: Format, test_only: bool, report: Callable[[str], None]
) -> Iterator[Step]:
    """The steps, until one fails that the others need."""
    if fmt.problem:
        yield Step("manifest", False, 0, fmt.problem)
        return
    yield Step("manifest", True, 0, f"{len(fmt.variants)} variants")
    ready = _step("environment", lambda: _environment(settings, fmt, report))
    yield ready
    if not ready.ok:
        return
    if (fmt.folder / "test_convert.py").exists():
        report("its own test runs")
        yield _step("own test", lambda: _own_test(settings, fmt))
    if test_only:
        return
    takes = _step("supports", lambda: _supports(settings, fmt))
    yield takes
    if takes.ok:
        for variant in fmt.variants:
            report(f"converting the sample to {variant.name}")
            yield _step(variant.name, lambda name=variant.name: _convert(settings, fmt, name))  # type: ignore[misc]


def _step(name: str, act: Callable[[], str]) -> Step:
    """Do one step; a failure that has words is a row of the table, not the end."""
    started = time.monotonic()
    try:
        ok, seen = True, act()
    except HubError as error:
        ok, seen = False, error.message
    return Step(name, ok, round(time.monotonic() - started, 2), seen)


def _environment(settings: Settings, fmt: Format, report: Callable[[str], None]) -> str:
    environments.install(settings, fmt, report)
    return _versions(environments.tool_versions(settings, fmt))


def _supports(settings: Settings, fmt: Format) -> str:
    sample = sample_folder()
    config = json.loads((sample / "config.json").read_bytes())
    reason = asking.supports(settings, fmt, config, [path.name for path in sample.iterdir()])
    if reason:
        raise HubError("not_supported", reason)
    return "takes the sample model"


def _own_test(settings: Settings, fmt: Format) -> str:
    """Run the plugin's test in its own environment, with pytest beside it and not in it."""
    beside = settings.environments / f".{PYTEST}"
    python = environments.python(settings, fmt)
    if not beside.exists():
        command = [find_uv_bin(), "pip", "install", "--quiet", "--python", str(python)]
        subprocess.run([*command, "--target", str(beside), PYTEST], check=True)
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(python), "-m", "pytest", *CONFIG, str(fmt.folder), str(fmt.folder)],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": home,
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(beside),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode:
        sys.stderr.write(done.stdout[-8000:] + done.stderr[-2000:])
        raise HubError("test_failed", last, "The output of the test is above.")
    return last


def _convert(settings: Settings, fmt: Format, variant: str) -> str:
    """Convert the sample, as a worker does; returns the size and what `check` saw."""
    sample = sample_folder()
    settings.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=settings.scratch))
    seen: list[str] = []

    def on_artefact(_variant: str, made: Path, result: dict[str, Any], _seconds: float) -> None:
        total = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        seen.append(f"{size(total)} {result.get('text', result.get('runtime', ''))!r:.60}")

    try:
        places = {name: folder / name for name in ("source", "output", "work")}
        shutil.copytree(sample, places["source"])
        places["output"].mkdir()
        places["work"].mkdir()
        with (folder / "log").open("wb") as log:
            runner.run(
                settings,
                fmt,
                launch.Request(
                    action="convert",
                    name=fmt.name,
                    variants=[variant],
                    options=fmt.validate_options({}),
                    source_name=formats.source_name(f"{sample.parent.name}/{sample.name}"),
                    source=places["source"],
                    output=places["output"],
                    scratch=places["work"],
                ),
                on_progress=lambda *_event: None,
                on_artefact=on_artefact,
                log=log,
                cancelled=lambda: False,
            )
    finally:
        shutil.rmtree(folder)
    if not seen:
        raise BadOutput("no_artefact", "It left no files.", "Write into the folder `output`.")
    return seen[0]


if __name__ == "__main__":
    edge(cli)
