"""What plugins say that conversions will cost, against what they then cost.

    python -m bench.estimates [--models … 0.6b] [--plugins …] [--variants class|first|all]
                              [--layers 28]

For the models of the zoo and one of Qwen3-0.6B's shape: asks each plugin's `estimate` from headers
alone, converts variant by variant, each in a job of its own, and compares the bytes of the artefact
and the peaks of memory and scratch space, as a worker measures them. Prints every cell and the
worst. The exit code is 1 beyond the goals: a size within 3 %, and memory of at most 1.10 times the
estimate.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import shape
from bench.support import PLUGINS, chosen
from hub import asking, outline
from hub.asking import Estimate
from hub.config import ROOT, Settings
from hub.errors import HubError
from workers import outside

sys.path.append(str(ROOT / "samples"))
import zoo  # type: ignore[import-not-found]

SHAPE = "0.6b"
SIZE = 0.03
MEMORY = 1.10
SECONDS = 1.0
"""What all the estimates of a model may take, the plugin's process included."""


@dataclass(frozen=True)
class Cost:
    """A variant of a model: what was estimated, and what it was."""

    model: str
    plugin: str
    variant: str
    estimate: Estimate
    truth: Estimate

    @property
    def size(self) -> float:
        """The error of the size, as a share of the truth."""
        return self.estimate.size / self.truth.size - 1

    @property
    def memory(self) -> float:
        """How many times the estimate the memory was."""
        return self.truth.memory / max(1, self.estimate.memory)

    @property
    def scratch(self) -> float:
        """How many times the estimate the scratch space was; 1 where there was none."""
        return self.truth.scratch / max(1, self.estimate.scratch) if self.truth.scratch else 1.0

    @property
    def good(self) -> bool:
        return not self.estimate.rough and abs(self.size) <= SIZE and self.memory <= MEMORY

    def __str__(self) -> str:
        told, was = self.estimate, self.truth
        parts = [
            f"size {told.size / 1e6:.2f} for {was.size / 1e6:.2f} MB ({self.size:+.2%})",
            f"memory {told.memory / 1e6:.0f} for {was.memory / 1e6:.0f} MB ({self.memory:.2f} x)",
            f"scratch {told.scratch / 1e6:.1f} for {was.scratch / 1e6:.1f} MB",
        ]
        if told.rough:
            parts.append("ROUGH: the plugin made none")
        if not self.good:
            parts.append("BEYOND THE GOAL")
        return f"{self.model} / {self.plugin} / {self.variant}: {', '.join(parts)}"


def costs(
    settings: Settings, plugin: str, name: str, model: Path, which: str, work: Path
) -> tuple[list[Cost], bool]:
    """Every variant of a model that could be made; and whether all was as it should be."""
    fmt = outside.ready(settings, plugin)
    variants = chosen(fmt, which)
    seconds = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        described, options = outline.of_folder(model), fmt.validate_options({})
        told = asking.appraise(settings, fmt, described, variants, options)
        seconds = min(seconds, time.perf_counter() - began)
        if seconds < SECONDS:
            break
    if told.reason:
        print(f"{name} / {plugin}: refused: {told.reason}", flush=True)
        return [], True
    good = seconds < SECONDS
    if not good:
        print(f"{name} / {plugin}: the estimates took {seconds:.2f} s, TOO LONG", flush=True)
    found = []
    for variant in variants:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            run = outside.convert(settings, fmt, model, [variant], Path(folder))
            if run.error:
                print(f"{name} / {plugin} / {variant}: FAILED: {run.error.message}", flush=True)
                good = False
                continue
            truth = Estimate(run.made[variant].size, run.memory, run.scratch)
        found.append(Cost(name, plugin, variant, told.estimates[variant], truth))
        print(found[-1], flush=True)
    return found, good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*zoo.MODELS, SHAPE]
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="MODEL")
    parser.add_argument("--plugins", nargs="+", choices=PLUGINS, default=PLUGINS)
    parser.add_argument("--variants", choices=["first", "class", "all"], default="class")
    parser.add_argument("--layers", type=int, default=28, help="of the model of 0.6B's shape")
    arguments = parser.parse_args()
    settings = Settings()
    settings.scratch.mkdir(parents=True, exist_ok=True)
    found: list[Cost] = []
    good = True
    with tempfile.TemporaryDirectory(prefix="estimates-", dir=settings.scratch) as folder:
        work = Path(folder)
        for name in arguments.models:
            target = work / name
            if name == SHAPE:
                shape.write(target, layers=arguments.layers)
            else:
                zoo.write(name, target)
            for plugin in arguments.plugins:
                cells, well = costs(settings, plugin, name, target, arguments.variants, work)
                found += cells
                good &= well and all(cost.good for cost in cells)
    if found:
        print(f"worst size: {max(found, key=lambda cost: abs(cost.size))}")
        print(f"worst memory: {max(found, key=lambda cost: cost.memory)}")
        print(f"most memory too much: {min(found, key=lambda cost: cost.memory)}")
        print(f"worst scratch: {max(found, key=lambda cost: cost.scratch)}")
    sys.exit(not good)


if __name__ == "__main__":
    try:
        main()
    except HubError as error:
        sys.exit(f"{error.message} {error.hint}")
