"""Which model works with which format: every one converted, run, and held against its source.

    python -m bench.support [--models …] [--plugins …] [--variants class|first|all] [--quick]
                            [--results FILE [--missing]] [--document docs/support.md]

For tiny random models of the real architectures (samples/zoo.py): asks each plugin's `supports`,
converts one variant of each precision class in the hub's sandbox, lets `check` run it, and compares
the greedy choices of the unquantized variants with those of the source in transformers.
Results are kept in a file, cell by cell, so that one plugin can be tried again; the document is
drawn from that file. The exit code is 1 if `supports` said something else than what then happened.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import matrix
from bench.greedy import compare
from hub import asking
from hub.config import ROOT, Settings
from hub.errors import HubError
from hub.formats import Format
from workers import environments, outside

sys.path.append(str(ROOT / "samples"))
import zoo  # type: ignore[import-not-found]

PLUGINS = list(compare.SCRIPTS)
SECONDS = 1.0
"""What `supports` may take, its process and its walls included."""
CLASSES = ("ultra-low", "low", "medium", "half", "full")
QUICK = ("qwen3-0.6b", "gemma-3-1b", "phi-4-mini")
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "only tokenizer.json": ("llama-3.2-1b", {"tokenizer": "json"}),
    "only tokenizer.model": ("llama-3.2-1b", {"tokenizer": "model"}),
    "BitNet, only tokenizer.json": ("bitnet-b1.58-2b", {"tokenizer": "json"}),
    "tied head stored": ("llama-3.2-1b", {"stored_head": True}),
    "tied head not stored": ("qwen3-0.6b", {"stored_head": False}),
    "weights in three files": ("llama-3.2-1b", {"shards": 3}),
    "weights in F16": ("llama-3.2-1b", {"dtype": "F16"}),
    "weights in F32": ("llama-3.2-1b", {"dtype": "F32"}),
}
"""The same model stored in another way, tried with the first variant that can be compared."""
OPTIONS: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    (plugin, model): (
        {"longrope": "short"},
        "mlx-lm has one table of LongRoPE's factors for every length, and the option longrope says"
        " which; compared with longrope=short, which is exact up to 4096 tokens",
    )
    for plugin in ["mlx"]
    for model in ["phi-3.5-mini", "phi-4-mini"]
}
"""Options that a cell is tried with, and what to say of them."""


@dataclass
class Try:
    """One variant of a cell: `ok`, or the error; the agreement if it can be compared."""

    variant: str
    kind: str
    ok: bool = False
    error: str = ""
    log: str = ""
    check: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    agreement: dict[str, Any] | None = None


@dataclass
class Cell:
    """What a plugin said of a model, and what then happened."""

    model: str
    plugin: str
    reason: str | None
    seconds: float
    remark: str = ""
    tries: list[Try] = field(default_factory=list)

    @property
    def works(self) -> bool:
        return all(one.ok for one in self.tries)

    @property
    def agrees(self) -> bool:
        """`supports` said what happened, and said it in time."""
        return self.seconds < SECONDS and (self.reason is None) == self.works


class Bench:
    """Models, environments and references, made when they are first needed."""

    def __init__(self, settings: Settings, work: Path) -> None:
        self.settings, self.work = settings, work
        self._said: dict[str, compare.Said] = {}
        self._python: Path | None = None

    def model(self, row: str) -> Path:
        """The folder of a row of the matrix: a model of the zoo, or another form of one."""
        name, form = FORMS.get(row, (row, {}))
        folder = self.work / "models" / row.replace(" ", "-").replace(",", "")
        return folder if folder.exists() else zoo.write(name, folder, **form)

    def said(self, row: str) -> compare.Said:
        """What the source of a row says."""
        if row not in self._said:
            self._said[row] = compare.reference(self._torch(), self.model(row))
        return self._said[row]

    def _torch(self) -> Path:
        """The python of an environment that has torch and transformers."""
        if self._python is None:
            for name in PLUGINS:
                fmt = outside.ready(self.settings, name)
                python = environments.python(self.settings, fmt)
                packages = python.parent.parent / "lib"
                if all(any(packages.glob(f"*/*/{one}")) for one in ("torch", "transformers")):
                    self._python = python
                    break
            else:
                raise SystemExit("no plugin's environment has torch and transformers")
        return self._python

    def answer(self, fmt: Format, folder: Path) -> tuple[str | None, float]:
        """What `supports` says of a model, and in how many seconds: the best of three."""
        config = json.loads((folder / "config.json").read_bytes())
        files = [path.name for path in folder.iterdir()]
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            reason = asking.supports(self.settings, fmt, config, files)
            best = min(best, time.perf_counter() - began)
            if best < SECONDS:
                break
        return reason, best

    def cell(self, row: str, fmt: Format, variants: list[str]) -> Cell:
        """Ask, convert, check and compare."""
        folder = self.model(row)
        options, remark = OPTIONS.get((fmt.name, row), ({}, ""))
        try:
            cell = Cell(row, fmt.name, *self.answer(fmt, folder), remark)
        except HubError as error:
            failed = Try("supports", "", error=f"{error.message} {error.hint}".strip())
            return Cell(row, fmt.name, None, 0.0, remark, [failed])
        left = variants if cell.reason is None else variants[:1]
        with tempfile.TemporaryDirectory(dir=self.work) as target:
            while left:
                run = outside.convert(self.settings, fmt, folder, left, Path(target), options)
                for name, artefact in run.made.items():
                    cell.tries.append(self._judge(row, fmt, name, artefact))
                left = [name for name in left if name not in run.made]
                if run.error is None:
                    break
                # The first that was not made is the one that failed; the others have their turn.
                variant = fmt.variant(left.pop(0))
                words = f"{run.error.message} {run.error.hint}".strip()
                cell.tries.append(Try(variant.name, variant.class_, error=words, log=run.log))
        cell.tries.sort(key=lambda one: variants.index(one.variant))
        return cell

    def _judge(self, row: str, fmt: Format, name: str, artefact: outside.Artefact) -> Try:
        """What to make of an artefact whose check went well."""
        variant = fmt.variant(name)
        made = Try(name, variant.class_, True, check=artefact.check, seconds=artefact.seconds)
        if variant.class_ not in compare.TOLERANCE or artefact.check.get("ran") is False:
            return made
        python = environments.python(self.settings, fmt)
        source = self.said(row)
        try:
            found = compare.agreement(python, fmt.name, artefact.folder, source, variant.class_)
        except compare.Failed as failed:
            made.ok, made.error = False, f"its comparison failed: {failed}"
            return made
        made.agreement = asdict(found) | {"whole": found.whole, "said": str(found)}
        made.ok = found.holds
        made.error = "" if found.holds else f"it computes something else: {found}"
        return made


def chosen(fmt: Format, which: str) -> list[str]:
    """Variants to try: `first` is one that can be compared, `class` one of each class, `all`."""
    if which == "all":
        return [variant.name for variant in fmt.variants]
    picks = []
    for kind in CLASSES:
        ones = [variant for variant in fmt.variants if variant.class_ == kind]
        if ones:
            best = max(ones, key=lambda one: (one.pick, one.bits))
            picks.append(best)
    if which == "first":
        exact = [one for one in picks if one.class_ in compare.TOLERANCE]
        # Of GenAI's half precision variants none is for the processor.
        on_processor = [one for one in exact if not one.name.startswith(("cuda", "dml", "webgpu"))]
        return [(on_processor or exact or picks)[0].name]
    return [one.name for one in picks]


def refusals(bench: Bench, fmt: Format) -> dict[str, dict[str, Any]]:
    """What the plugin says of inputs that are bad."""
    found = {}
    for what in zoo.BAD:
        folder = bench.work / "bad" / what.replace(" ", "-")
        if not folder.exists():
            zoo.write_bad(what, folder)
        reason, seconds = bench.answer(fmt, folder)
        found[what] = {"reason": reason, "seconds": seconds}
    return found


def line(cell: Cell) -> str:
    """A cell for the terminal."""
    said = "yes" if cell.reason is None else f"no: {cell.reason}"
    parts = [f"{cell.model} / {cell.plugin}: supports says {said} ({cell.seconds:.2f} s)"]
    for one in cell.tries:
        how = "ok" if one.ok else f"FAILED: {one.error}"
        seen = one.agreement["said"] if one.ok and one.agreement else ""
        parts.append(f"    {one.variant:12} {how[:400]} {seen} ({one.seconds:.1f} s)")
    if not cell.agrees:
        parts.append("    supports() DOES NOT AGREE with what happened")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows = [*zoo.MODELS, *FORMS]
    parser.add_argument("--models", nargs="+", choices=rows, metavar="MODEL")
    parser.add_argument("--plugins", nargs="+", choices=PLUGINS, default=PLUGINS)
    parser.add_argument("--variants", choices=["first", "class", "all"], default="class")
    parser.add_argument("--quick", action="store_true", help="three models, one variant each")
    parser.add_argument("--results", type=Path, help="a file that keeps the cells")
    parser.add_argument("--missing", action="store_true", help="only cells that it lacks")
    parser.add_argument("--document", type=Path, help="draw the matrix from what was kept")
    arguments = parser.parse_args()
    models = arguments.models or (QUICK if arguments.quick else rows)
    settings = Settings()
    results = read(arguments.results)
    agree = True
    settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="support-", dir=settings.scratch) as name:
        bench = Bench(settings, Path(name))
        for plugin in arguments.plugins:
            which = "first" if arguments.quick else arguments.variants
            agree &= try_plugin(bench, plugin, models, which, results, arguments)
    if arguments.document:
        if lacking := gaps(results):
            sys.exit(
                f"no document is drawn with gaps, and {len(lacking)} cells were not tried: "
                f"{', '.join(lacking[:5])} …"
            )
        arguments.document.write_text(matrix.document(results, zoo, FORMS), "utf-8")
    sys.exit(not agree)


def try_plugin(
    bench: Bench,
    plugin: str,
    models: Iterable[str],
    which: str,
    results: dict[str, Any],
    arguments: argparse.Namespace,
) -> bool:
    """Fill the cells of a plugin; whether it said of all of them what then happened."""
    fmt = outside.ready(bench.settings, plugin)
    agree = True
    results["plugins"][plugin] = {
        "title": fmt.title,
        "version": fmt.version,
        "tools": environments.tool_versions(bench.settings, fmt),
    }
    cells = results["cells"].setdefault(plugin, {})
    for row in models:
        if arguments.missing and cells.get(row, {}).get("agrees"):
            continue
        variants = chosen(fmt, "first" if row in FORMS else which)
        cell = bench.cell(row, fmt, variants)
        print(line(cell), flush=True)
        agree &= cell.agrees
        cells[row] = asdict(cell) | {"works": cell.works, "agrees": cell.agrees}
        write(arguments.results, results)
    if not arguments.quick and not arguments.models:
        results["bad"][plugin] = refusals(bench, fmt)
        write(arguments.results, results)
        for what, said in results["bad"][plugin].items():
            taken = said["reason"] or "TAKEN"
            print(f"bad input, {what} / {plugin}: {taken} ({said['seconds']:.2f} s)", flush=True)
            # A plugin may know how to read what is quantized; nothing else here can work.
            agree &= bool(said["reason"]) or what in zoo.QUANTIZED
    return agree


def gaps(results: dict[str, Any]) -> list[str]:
    """The cells that were never tried."""
    kept = results["cells"]
    rows = [*zoo.MODELS, *FORMS]
    lacking = [
        f"{row} / {name}" for name in PLUGINS for row in rows if row not in kept.get(name, {})
    ]
    return lacking + [f"bad input / {name}" for name in PLUGINS if name not in results["bad"]]


def read(path: Path | None) -> dict[str, Any]:
    """The cells kept so far."""
    if path is None or not path.exists():
        return {"plugins": {}, "cells": {}, "bad": {}}
    kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return kept


def write(path: Path | None, results: dict[str, Any]) -> None:
    """Keep the cells, whole or not at all."""
    if path is None:
        return
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(results, indent=1, default=str), "utf-8")
    shutil.move(new, path)


if __name__ == "__main__":
    try:
        main()
    except HubError as error:
        sys.exit(f"{error.message} {error.hint}")
