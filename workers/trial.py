"""The trial of a plugin, step by step: what `slmhub plugins check` runs and shows.

Manifest, environment, imports, the plugin's own test, then the sample model: whether it is taken,
what each variant is estimated at, and what it becomes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hub import asking, outline
from hub.asking import Estimate
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from hub.outline import Outline
from hub.sample import sample_folder
from hub.sizes import size
from workers import environments, outside
from workers.harvest import BadOutput

OWN_TEST = "test_convert.py"
PYTEST = "pytest==9.2.0"
TEST_SECONDS = 1800
SIZE_OFF, SIZE_SLACK = 0.03, 4096
"""How far the size of an artefact may be from its estimate: a share of it, and bytes."""
MEMORY_OVER = 0.10
"""How far the memory of a conversion may be above its estimate."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One step of a trial: how it went, how long it took, what was seen."""

    step: str
    result: str
    """ok, warning or failed"""
    seconds: float
    seen: str

    @property
    def ok(self) -> bool:
        return self.result != "failed"


class _Doubt(Exception):
    """A step went well but for what its authors should know: what was seen."""


def trial(
    settings: Settings, fmt: Format, report: Report, *, test_only: bool = False
) -> Iterator[Step]:
    """The steps, until one fails that the others need."""
    if fmt.problem:
        yield Step("manifest", "failed", 0, f"{fmt.problem}. {fmt.remedy}")
        return
    yield Step("manifest", "ok", 0, f"{fmt.name} {fmt.version}, {_counted(fmt)}")
    for name, act in (("environment", _environment), ("imports", _imports)):
        step = _step(name, lambda act=act: act(settings, fmt, report))  # type: ignore[misc]
        yield step
        if not step.ok:
            return
    report("its own test runs")
    yield _step("own test", lambda: _own_test(settings, fmt))
    if test_only:
        return
    model = outline.of_folder(sample_folder())
    takes = _step("supports", lambda: _supports(settings, fmt, model))
    yield takes
    if not takes.ok:
        return
    estimates: dict[str, Estimate] = {}
    yield _step("estimate", lambda: _estimate(settings, fmt, model, estimates))
    for variant in fmt.variants:
        report(f"converting the sample to {variant.name}")
        expected = estimates.get(variant.name)
        yield _step(
            variant.name,
            lambda name=variant.name, expected=expected: _convert(settings, fmt, name, expected),  # type: ignore[misc]
        )


def _step(name: str, act: Callable[[], str]) -> Step:
    """Do one step; a failure that has words is a row of the table, not the end."""
    started = time.monotonic()
    try:
        result, seen = "ok", act()
    except _Doubt as doubt:
        result, seen = "warning", str(doubt)
    except HubError as error:
        result, seen = "failed", f"{error.message} {error.hint}".strip()
    return Step(name, result, round(time.monotonic() - started, 2), seen)


def _counted(fmt: Format) -> str:
    count = len(fmt.variants)
    return f"{count} variant{'s' * (count != 1)}"


def _environment(settings: Settings, fmt: Format, report: Report) -> str:
    environments.install(settings, fmt, report)
    return "ready"


def _imports(settings: Settings, fmt: Format, report: Report) -> str:
    versions = environments.prove(settings, fmt, report)
    found = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    return found or ("nothing is to be imported" if not fmt.smoke else "all modules import")


def _own_test(settings: Settings, fmt: Format) -> str:
    """Run the plugin's test in its own environment, with pytest beside it and not in it."""
    if not (fmt.folder / OWN_TEST).exists():
        raise _Doubt(f"it has no {OWN_TEST}")
    python = environments.python(settings, fmt)
    if not python.exists():
        raise _Doubt(f"it has no environment to run {OWN_TEST} in")
    beside = _pytest(settings, python)
    with tempfile.TemporaryDirectory() as home:
        try:
            done = subprocess.run(
                [
                    *(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                    *("--rootdir", str(fmt.folder), str(fmt.folder / OWN_TEST)),
                ],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": home,
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": str(beside),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "HF_HUB_OFFLINE": "1",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HubError(
                "test_failed",
                f"It ran for longer than {TEST_SECONDS} s.",
                "Let it use smaller models.",
            ) from None
    last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1].strip("= ")
    if done.returncode:
        sys.stderr.write(done.stdout[-8000:] + done.stderr[-2000:])
        raise HubError("test_failed", last, "Its output is above.")
    return last


def _pytest(settings: Settings, python: Path) -> Path:
    """A folder that holds pytest, beside the environments: made once, whole or not at all."""
    beside = settings.environments / f".{PYTEST}"
    if not beside.exists():
        with tempfile.TemporaryDirectory(prefix=".pytest-", dir=settings.environments) as folder:
            made = Path(folder, "made")
            environments.add(python, PYTEST, made)
            try:
                made.rename(beside)
            except OSError:
                if not beside.exists():  # another trial may have been quicker
                    raise
    return beside


def _supports(settings: Settings, fmt: Format, model: Outline) -> str:
    reason = asking.appraise(settings, fmt, model).reason
    if reason:
        raise HubError("not_supported", reason)
    if fmt.command is not None and not fmt.appraises:
        return "the files that it needs are there"
    return "takes the sample model"


def _estimate(
    settings: Settings, fmt: Format, model: Outline, estimates: dict[str, Estimate]
) -> str:
    """Ask what every variant will cost; those that the plugin answers for go into `estimates`."""
    names = [variant.name for variant in fmt.variants]
    options = fmt.validate_options({})
    found = asking.appraise(settings, fmt, model, names, options).estimates
    estimates |= {name: one for name, one in found.items() if not one.rough}
    lacking = [name for name in names if name not in estimates]
    if len(lacking) == len(names):
        raise _Doubt("it gives none: the hub guesses from the bits of each variant")
    if lacking:
        raise _Doubt(f"it gives none for {', '.join(lacking)}")
    return f"for {_counted(fmt)}"


def _convert(settings: Settings, fmt: Format, variant: str, expected: Estimate | None) -> str:
    """Convert the sample, as a worker does; what was made, held against what was expected."""
    settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="check-", dir=settings.scratch) as folder:
        run = outside.convert(settings, fmt, sample_folder(), [variant], Path(folder))
        if run.error:
            sys.stderr.write(run.log)
            raise run.error
        made = run.made.get(variant)
        if made is None:
            raise BadOutput("no_artefact", "It left no files.", "Write into the folder `output`.")
        seen = made.check.get("text") or made.check.get("note") or made.check.get("runtime")
        said = f"{seen or 'not checked'!r:.60}"
        return _compared(made.size, run.memory, expected, said)


def _compared(total: int, memory: int, expected: Estimate | None, said: str) -> str:
    """What was made, beside its estimate; _Doubt where the two are too far apart."""
    took = f", {size(memory)} of memory" if memory else ""  # it was over before anyone looked
    if expected is None:
        return f"{size(total)}{took}: {said}"
    off = (expected.size - total) / total if total else 0.0
    took += f" (estimate {size(expected.memory)})" if memory else ""
    seen = f"{size(total)} (estimate {off:+.1%}){took}: {said}"
    if abs(expected.size - total) > max(SIZE_OFF * total, SIZE_SLACK):
        raise _Doubt(f"{seen}; the size is estimated wrongly by more than {SIZE_OFF:.0%}")
    if memory > expected.memory * (1 + MEMORY_OVER):
        raise _Doubt(f"{seen}; it takes more memory than the estimate says")
    return seen
