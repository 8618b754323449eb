"""Every format plugin through the hub against its bare tool: time and memory.

    python -m bench.formats [--plugins gguf onnx …] [--runs 1] [--layers 28] [--work FOLDER]

On a model of Qwen3-0.6B's shape. The hub's time goes from the request to the published, checked
artefact; the bare tool neither checks nor publishes. Memory is the peak of the converter's whole
process tree, measured the same way for both. Goals: 1.05 x plus 2 s, and 1.05 x the memory.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import peaks, shape
from bench.convert import finish, through_hub
from bench.embedded import hub
from hub import formats
from hub.client import Client
from hub.config import ROOT, Settings


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
    """One run of both ways: seconds and bytes."""

    hub: float
    bare: float
    hub_memory: int
    bare_memory: int

    def __str__(self) -> str:
        return (
            f"hub {self.hub:.1f} s, bare {self.bare:.1f} s, ratio {self.hub / self.bare:.3f}, "
            f"beyond 1.05 x: {self.hub - 1.05 * self.bare:+.1f} s; "
            f"memory {self.hub_memory / 1e9:.2f} GB, bare {self.bare_memory / 1e9:.2f} GB, "
            f"ratio {self.hub_memory / self.bare_memory:.3f}"
        )


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
        for plugin in arguments.plugins:
            install = [sys.executable, "-m", "workers.plugins", "install", plugin]
            environment = os.environ | {"HUB_DATA": str(work / "data")}
            subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)
        with hub(work / "data") as client:
            for plugin in arguments.plugins:
                pairs = [measure(client, work, model, plugin, n) for n in range(arguments.runs)]
                ratio = statistics.median(pair.hub / pair.bare for pair in pairs)
                memory = statistics.median(pair.hub_memory / pair.bare_memory for pair in pairs)
                print(f"{plugin}: median time {ratio:.3f} x, memory {memory:.3f} x", flush=True)


def measure(client: Client, work: Path, model: Path, plugin: str, number: int) -> Pair:
    """Both ways once, on a commit of its own."""
    tool = TOOLS[plugin]
    (model / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n{plugin} {number}\n")
    repo = f"bench/{plugin}-{number}"
    body = {"repo": repo, "folder": str(model)}
    finish(client, client.call("POST", "/mirrors", json=body))
    with peaks.watched(lambda: peaks.converters(psutil.Process())) as with_hub:
        hub_seconds, _ = through_hub(client, repo, plugin, [tool.variant])
    settings = Settings(data=work / "data")
    environment = formats.environment(settings, formats.get(settings, plugin))
    output = work / "bare"
    command = tool.command(environment, model, output)
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "HOME": str(work)}
    with (work / "bare.log").open("wb") as log:
        started = time.perf_counter()
        process = psutil.Popen(
            [str(part) for part in command], stdout=log, stderr=log, env=variables
        )
        with peaks.watched(lambda: peaks.tree(process)) as alone:
            code = process.wait()
        bare_seconds = time.perf_counter() - started
    if code:
        print((work / "bare.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        raise SystemExit(f"the bare tool of {plugin} ended with {code}")
    shutil.rmtree(output)
    pair = Pair(hub_seconds, bare_seconds, with_hub.bytes, alone.bytes)
    print(f"{plugin} {tool.variant}: {pair}", flush=True)
    return pair


if __name__ == "__main__":
    main()
