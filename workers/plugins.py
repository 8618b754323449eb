"""`python -m workers.plugins install|check NAME`: what the commands let a worker's process do."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hub import formats
from hub.commands.output import complain, show, table
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from hub.launch import Request
from hub.sample import sample_folder
from workers import environments, runner


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    step: str
    result: str
    seconds: float = 0.0
    ok: bool = True


def main(arguments: list[str] | None = None) -> int:
    """Install or check one plugin; the exit code tells whether all is well."""
    parser = argparse.ArgumentParser(prog="slmhub plugins")
    parser.add_argument("action", choices=("install", "check"))
    parser.add_argument("name")
    parser.add_argument("--force", action="store_true", help="build it anew even when it is ready")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    settings = Settings()
    try:
        fmt = formats.get(settings, given.name)
        if given.action == "install":
            environments.install(settings, fmt, _say, force=given.force)
            _installed(settings, fmt, given.json)
            return 0
        findings = list(check(settings, fmt))
    except HubError as error:
        complain(error.message, error.hint, kind=error.kind, json_=given.json)
        return 1
    rows = [asdict(finding) for finding in findings]
    show(rows, given.json, lambda all_: table(all_, ["step", "result", "seconds"]))
    return 0 if all(finding.ok for finding in findings) else 1


def check(settings: Settings, fmt: Format) -> Iterator[Finding]:
    """Try all of a plugin: its environment, its imports, the sample model in every variant."""
    yield Finding("manifest", f"{len(fmt.variants)} variants, {len(fmt.options)} options")
    began = time.monotonic()
    environments.install(settings, fmt, _say)
    versions = environments.tool_versions(settings, fmt)
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield Finding("environment", shown or "nothing to record", _since(began))
    source = sample_folder()
    config = json.loads((source / "config.json").read_bytes())
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    began = time.monotonic()
    reason = formats.supports(settings, fmt, config, files)
    yield Finding("supports", reason or "takes the sample model", _since(began), reason is None)
    if reason is None:
        for variant in fmt.variants:
            yield _convert(settings, fmt, variant.name, source)


def _convert(settings: Settings, fmt: Format, variant: str, source: Path) -> Finding:
    began = time.monotonic()
    sizes: list[int] = []

    def on_artefact(_variant: str, made: Path, _check: object, _seconds: float) -> None:
        sizes.extend(path.stat().st_size for path in made.rglob("*") if path.is_file())

    _say(f"converting the sample model to {variant}")
    settings.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=settings.scratch))
    places = {name: folder / name for name in ("source", "output", "work")}
    shutil.copytree(source, places["source"])
    places["output"].mkdir()
    places["work"].mkdir()
    request = Request(
        action="convert",
        name=fmt.name,
        variants=[variant],
        options=dict(fmt.validate_options({})),
        source_name=formats.source_name(f"{source.parent.name}/{source.name}"),
        source=places["source"],
        output=places["output"],
        scratch=places["work"],
    )
    try:
        runner.run(
            settings,
            fmt,
            request,
            on_progress=lambda _done, _message: None,
            on_artefact=on_artefact,
            log=cast(BinaryIO, sys.stderr.buffer),
            cancelled=lambda: False,
        )
    except HubError as error:
        return Finding(variant, f"{error.kind}: {error.message}", _since(began), False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Finding(variant, f"{len(sizes)} files, {sum(sizes):,} bytes", _since(began))


def _installed(settings: Settings, fmt: Format, json_: bool) -> None:
    state = formats.state(settings, fmt)
    row = {"name": fmt.name, "state": state.name, "reason": state.reason}
    row["tools"] = json.dumps(environments.tool_versions(settings, fmt))
    show(row, json_, lambda all_: print(f"{all_['name']} is {state}."))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
