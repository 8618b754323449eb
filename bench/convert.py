"""Conversion through the hub against the bare tools, on a model of Qwen3-0.6B's shape.

    python -m bench.convert [--sets one …] [--runs 3] [--layers 28] [--work FOLDER]

Prints, pair by pair: the seconds of both ways for Q4_K_M and for four variants, their ratio and
what the hub adds; then the time from a request to the start of the plugin's process; then whether
both ways wrote the same bytes.
The hub's time goes from the request to the published, checked artefact.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import shape
from bench.embedded import hub
from hub.client import FINAL, Client
from hub.config import ROOT

SETS = {
    "one": (["Q4_K_M"], "1.05 x plus 2 s"),
    # What sharing the base can save is its share of the work: most where quantizing is quick.
    "four-quick": (["Q4_0", "Q5_0", "Q8_0", "BF16"], "0.6 x"),
    "four-slow": (["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"], "0.6 x"),
}


def finish(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for a job; raise if it did not succeed."""
    while job["state"] not in FINAL:
        time.sleep(0.05)
        job = client.call("GET", f"/jobs/{job['id']}")
    if job["state"] != "done":
        raise SystemExit(f"job {job['id']} {job['state']}: {job['error']}")
    return job


def through_hub(client: Client, repo: str, plugin: str, variants: list[str]) -> tuple[float, Any]:
    """Seconds from the request to the end, and the job."""
    started = time.perf_counter()
    body = {"repo": repo, "plugin": plugin, "variants": variants}
    job = finish(client, client.call("POST", "/conversions", json=body))
    return time.perf_counter() - started, job


def bare(python: Path, model: Path, output: Path, variants: list[str]) -> float:
    """Seconds that the bare tools take."""
    started = time.perf_counter()
    command = [
        str(python),
        str(ROOT / "bench" / "bare_gguf.py"),
        str(model),
        str(output),
        *variants,
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        measure(Path(name), arguments.sets, arguments.runs, arguments.layers)


def measure(work: Path, sets: list[str], runs: int, layers: int) -> None:
    model = shape.write(work / "model", layers=layers)
    with hub(work / "data") as client:
        install = [sys.executable, "-m", "workers.plugins", "install"]
        environment = {"HUB_DATA": str(work / "data")}
        for plugin in ("gguf", "echo"):
            subprocess.run([*install, plugin], check=True, env=os.environ | environment)
        python = next((work / "data" / "environments" / "gguf").glob("**/bin/python"))
        for name in sets:
            variants, goal = SETS[name]
            ratios, extra = [], []
            for number in range(runs):
                # A card of its own makes a commit of its own: nothing is found done already.
                (model / "README.md").write_text(
                    f"---\nlicense: apache-2.0\n---\n{variants} {number}\n"
                )
                title = f"{name}-{number}"
                repo = f"bench/{title}"
                finish(
                    client,
                    client.call("POST", "/mirrors", json={"repo": repo, "folder": str(model)}),
                )
                with_hub, job = through_hub(client, repo, "gguf", variants)
                # The converter writes the folder's name into the file, as it does the repo's.
                named = work / title
                named.symlink_to(model)
                alone = bare(python, named, work / "bare", variants)
                ratios.append(with_hub / alone)
                extra.append(with_hub - 1.05 * alone)
                print(
                    f"{'+'.join(variants)}: hub {with_hub:.1f} s, bare {alone:.1f} s, "
                    f"ratio {ratios[-1]:.3f}, beyond 1.05 x: {extra[-1]:+.1f} s",
                    flush=True,
                )
            print(
                f"{'+'.join(variants)}: median ratio {statistics.median(ratios):.3f}, "
                f"beyond 1.05 x {statistics.median(extra):+.1f} s (goal {goal})"
            )
            compare(job, work / "bare")
        starts = [start_delay(client, number) for number in range(5)]
        print(
            f"request to process start: median {statistics.median(starts):.2f} s (goal under 1 s)"
        )


def compare(job: dict[str, Any], bare_output: Path) -> None:
    """Print whether both ways wrote the same bytes."""
    for artefact in job["artefacts"]:
        for file in artefact["files"]:
            if file["path"].endswith(".gguf"):
                with (bare_output / f"{artefact['variant']}.gguf").open("rb") as other:
                    same = hashlib.file_digest(other, "sha256").hexdigest() == file["sha256"]
                print(f"{artefact['variant']}: {'same bytes' if same else 'DIFFERENT BYTES'}")


def start_delay(client: Client, number: int) -> float:
    """Seconds from a request to the first event of the plugin's process."""
    from hub.sample import sample_folder

    folder = sample_folder()
    repo = f"bench/start-{number}"
    finish(client, client.call("POST", "/mirrors", json={"repo": repo, "folder": str(folder)}))
    requested = time.time()
    body = {
        "repo": repo,
        "plugin": "echo",
        "variants": ["plain"],
        "options": {"sleep": number / 100},
    }
    job = client.call("POST", "/conversions", json=body)
    while job["state"] == "queued" or (not job["message"] and job["state"] not in FINAL):
        time.sleep(0.005)
        job = client.call("GET", f"/jobs/{job['id']}")
    return time.time() - requested


if __name__ == "__main__":
    main()
