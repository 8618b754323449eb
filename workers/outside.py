"""A conversion outside a job, as trials and benchmarks need it: one folder in, folders out."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub import formats, launch
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from workers import environments, runner

TAIL = 4000
"""Bytes of a log that are kept with a failure."""


@dataclass(frozen=True)
class Artefact:
    """What a variant became: a folder, what `check` saw, seconds with the check."""

    folder: Path
    check: dict[str, Any]
    seconds: float

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Run:
    """How a conversion went. `error` is why it ended early; the peaks are bytes, 0 if it did."""

    made: dict[str, Artefact] = field(default_factory=dict)
    error: HubError | None = None
    log: str = ""
    memory: int = 0
    scratch: int = 0


def ready(settings: Settings, name: str) -> Format:
    """A plugin with its environment, which is built if it is not there."""
    fmt = formats.get(settings, name)
    environments.install(settings, fmt, lambda _line: None)
    return fmt


def convert(
    settings: Settings,
    fmt: Format,
    source: Path,
    variants: list[str],
    target: Path,
    options: dict[str, Any] | None = None,
) -> Run:
    """Convert a model in the hub's own sandbox; variant by variant, artefacts go into `target`."""
    run = Run()

    def on_artefact(variant: str, folder: Path, check: dict[str, Any], seconds: float) -> None:
        kept = target / variant
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, kept)
        run.made[variant] = Artefact(kept, check, seconds)

    settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outside-", dir=settings.scratch) as name:
        work = Path(name)
        for folder in ("output", "work"):
            (work / folder).mkdir()
        with (work / "log").open("w+b") as log:
            try:
                outcome = runner.run(
                    settings,
                    fmt,
                    launch.Request(
                        action="convert",
                        name=fmt.name,
                        variants=variants,
                        options=fmt.validate_options(options or {}),
                        source_name=formats.source_name(f"{source.parent.name}/{source.name}"),
                        source=source,
                        output=work / "output",
                        scratch=work / "work",
                    ),
                    on_progress=lambda *_event: None,
                    on_artefact=on_artefact,
                    log=log,
                    cancelled=lambda: False,
                )
                run.memory, run.scratch = outcome.memory, outcome.scratch
            except HubError as error:
                run.error = error
                log.seek(max(0, log.seek(0, 2) - TAIL))
                run.log = log.read().decode("utf-8", "replace")
    return run
