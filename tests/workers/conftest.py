"""A converter to drive: the echo plugin in an environment of its own, made once a session."""

import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub import asking, formats, launch
from hub.config import ROOT, Settings
from hub.errors import HubError
from hub.formats import Format
from hub.launch import Request
from workers import environments, runner


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins that are asked have the time that a busy machine takes."""
    monkeypatch.setattr(asking, "SECONDS", 120)


@dataclass
class Outcome:
    """What became of one run."""

    level: str = ""
    memory: int = 0
    scratch: int = 0
    error: HubError | None = None
    log: str = ""
    found: str = ""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    progress: list[tuple[float, str]] = field(default_factory=list)
    folder: Path = Path()

    @property
    def kind(self) -> str:
        return self.error.kind if self.error else ""


@dataclass
class Driver:
    """Runs the echo plugin with options and settings; hostile acts are options too."""

    settings: Settings
    fmt: Format
    folder: Path
    numbers: Any = field(default_factory=itertools.count)

    def source(self) -> Path:
        source = self.folder / f"source{next(self.numbers)}"
        source.mkdir()
        (source / "config.json").write_text(json.dumps({"model_type": "llama"}))
        return source

    def __call__(
        self,
        act: str = "nothing",
        target: object = "",
        *,
        variants: tuple[str, ...] = ("plain",),
        cancelled: Callable[[], bool] = lambda: False,
        limits: dict[str, Any] | None = None,
        fmt: Format | None = None,
        source: Path | None = None,
        **options: Any,
    ) -> Outcome:
        fmt = fmt or self.fmt
        outcome = Outcome(folder=self.folder / f"job{next(self.numbers)}")
        outcome.folder.mkdir()
        places = [outcome.folder / "output", outcome.folder / "scratch"]
        for place in places:
            place.mkdir()

        def on_artefact(variant: str, folder: Path, check: dict[str, Any], _seconds: float) -> None:
            outcome.checks.append(check)
            outcome.files[variant] = {
                path.relative_to(folder).as_posix(): path.read_bytes()[:10_000].decode()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }

        if fmt.options:
            options |= {"act": act, "target": str(target)}
        request = Request(
            "convert",
            fmt.name,
            list(variants),
            dict(fmt.validate_options(options)),
            "org_model",
            source or self.source(),
            *places,
        )
        log = io.BytesIO()
        try:
            made = runner.run(
                self.settings.model_copy(update=limits or {}),
                fmt,
                request,
                on_progress=lambda done, message: outcome.progress.append((done, message)),
                on_artefact=on_artefact,
                log=log,
                cancelled=cancelled,
            )
            outcome.level, outcome.memory, outcome.scratch = (
                made.isolation,
                made.memory,
                made.scratch,
            )
        except HubError as error:
            outcome.error = error
        finally:
            outcome.log = log.getvalue().decode("utf-8", "replace")
        for files in outcome.files.values():
            outcome.found += files.get("found.txt", "")
        return outcome


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Format]:
    """Settings of a hub in which a copy of the echo plugin is installed."""
    folder = tmp_path_factory.mktemp("echo")
    shutil.copytree(
        ROOT / "plugins" / "echo",
        folder / "plugins" / "echo",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    fmt = formats.read(folder / "plugins" / "echo")
    settings = Settings(
        data=folder / "data", memory_limit=1 << 30, job_timeout=50, output_limit=1 << 30
    )
    settings.data.mkdir()
    environments.install(settings, fmt, lambda _line: None)
    return settings, fmt


@pytest.fixture
def convert(echo: tuple[Settings, Format], tmp_path: Path) -> Driver:
    """Run a conversion with the echo plugin."""
    return Driver(*echo, tmp_path)


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conversions run without walls."""
    monkeypatch.setattr(launch, "level", lambda _settings: "weak")


@pytest.fixture
def rooted() -> bool:
    """Whether the tests run as root: an act without walls can then do more."""
    return os.geteuid() == 0
