"""Every format plugin through the hub against its bare tool: time and memory.

    python -m bench.formats [--plugins gguf onnx …] [--runs 1] [--layers 28] [--work FOLDER]

On a model of Qwen3-0.6B's shape. The hub's time goes from the request to the published, checked
artefact; the bare tool neither checks nor publishes. Memory is the peak of the converter's whole
process tree, measured the same way for both, in a run that is not timed: looking takes its time.
The hub's data, and the plugins' environments, are those of HUB_DATA. Goals: 1.05 x plus 2 s, and
1.05 x the memory.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import peaks, shape
from bench.convert import finish, through_hub
from bench.embedded import hub
from hub import formats
from hub.client import Client
from hub.config import ROOT, Settings
from workers import outside


@dataclass(frozen=True)
class Bare:
    """A variant, and the command of the tool that makes the like: environment, model, output."""

    variant: str
    command: Callable[[Path, Path, Path], list[str | Path]]


TOOLS = {
    "gguf": Bare(
        "Q4_K_M",
        lambda env, model, output: [
            env / "bin/python",
            ROOT / "bench/bare_gguf.py",
            model,
            output,
            "Q4_K_M",
        ],
    ),
    "mlx": Bare(
        "4bit",
        lambda env, model, output: [
            *(env / "bin/python", "-m", "mlx_lm", "convert", "--hf-path", model),
            *("--mlx-path", output, "-q"),
        ],
    ),
    "openvino": Bare(
        "int4",
        lambda env, model, output: [
            *(env / "bin/optimum-cli", "export", "openvino", "--model", model),
            *("--task", "text-generation-with-past", "--weight-format", "int4", output),
        ],
    ),
    "onnx": Bare(
        # The tool's own clean-up afterwards fails on a model of this size.
        "fp32",
        lambda env, model, output: [
            *(env / "bin/optimum-cli", "export", "onnx", "--model", model, "--no-post-process"),
            *("--task", "text-generation-with-past", output),
        ],
    ),
    "onnx-genai": Bare(
        "cpu-int4",
        lambda env, model, output: [
            *(env / "bin/python", "-m", "onnxruntime_genai.models.builder", "-i", model),
            *("-o", output, "-p", "int4", "-e", "cpu", "-c", output / "cache"),
        ],
    ),
}


@dataclass(frozen=True)
class Pair:
    """The hub and the bare tool: seconds, or bytes."""

    hub: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.hub / self.bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugins", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        work = Path(name)
        model = shape.write(work / "model", layers=arguments.layers)
        settings = Settings()
        for plugin in arguments.plugins:
            outside.ready(settings, plugin)
        with hub(settings.data) as client:
            for plugin in arguments.plugins:
                pairs = [seconds(client, work, model, plugin) for _ in range(arguments.runs)]
                ratio = statistics.median(pair.ratio for pair in pairs)
                beyond = statistics.median(pair.hub - 1.05 * pair.bare for pair in pairs)
                print(f"{plugin}: median {ratio:.3f} x, 1.05 x and {beyond:+.1f} s", flush=True)
                peak = memory(client, work, model, plugin)
                print(
                    f"{plugin}: memory {peak.hub / 1e9:.2f} GB, bare {peak.bare / 1e9:.2f} GB, "
                    f"ratio {peak.ratio:.3f}",
                    flush=True,
                )


def seconds(client: Client, work: Path, model: Path, plugin: str) -> Pair:
    """Both ways once, on a commit of its own, with nobody looking."""
    repo = mirrored(client, model, plugin)
    hub_seconds, _ = through_hub(client, repo, plugin, [TOOLS[plugin].variant])
    started = time.perf_counter()
    with bare(work, model, plugin):
        pass
    pair = Pair(hub_seconds, time.perf_counter() - started)
    print(
        f"{plugin} {TOOLS[plugin].variant}: hub {pair.hub:.1f} s, bare {pair.bare:.1f} s",
        flush=True,
    )
    return pair


def memory(client: Client, work: Path, model: Path, plugin: str) -> Pair:
    """Both ways once more: the most that the converters' processes hold."""
    repo = mirrored(client, model, plugin)
    with peaks.watched(lambda: peaks.converters(psutil.Process())) as with_hub:
        through_hub(client, repo, plugin, [TOOLS[plugin].variant])
    with (
        bare(work, model, plugin) as process,
        peaks.watched(lambda: peaks.tree(process)) as alone,
    ):
        process.wait()
    return Pair(with_hub.bytes, alone.bytes)


def mirrored(client: Client, model: Path, plugin: str) -> str:
    """The repo that the model was mirrored to, as a commit that nobody has converted."""
    (model / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n{time.time_ns()}\n")
    repo = f"bench/{plugin}"
    body = {"repo": repo, "folder": str(model)}
    finish(client, client.call("POST", "/mirrors", json=body))
    return repo


@contextmanager
def bare(work: Path, model: Path, plugin: str) -> Iterator[psutil.Popen]:
    """Start the bare tool; at the end of the block it has ended, and what it wrote is gone."""
    settings = Settings()
    environment = formats.environment(settings, formats.get(settings, plugin))
    output = work / "bare"
    command = [str(part) for part in TOOLS[plugin].command(environment, model, output)]
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "HOME": str(work)}
    with (work / "bare.log").open("wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=log, env=variables)
        yield process
        code = process.wait()
    if code:
        print((work / "bare.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        raise SystemExit(f"the bare tool of {plugin} ended with {code}")
    shutil.rmtree(output)


if __name__ == "__main__":
    main()
