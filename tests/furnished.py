"""A hub with a bit of everything for the pages to show, written as rows and blobs."""

import secrets
import sys
from pathlib import Path
from typing import Any

from published import publish

from hub import db, formats
from hub.config import Settings
from hub.models import Artefact, Job

MANIFEST = """\
api = 1
name = "toy"
title = "Toy"
version = "1.2.3"
runtime = "toy-rt"
summary = "Runs on toys"
needs = ["config.json"]
repo = "{source}-TOY"
tools = ["toy-tools"]
licenses = ["MIT"]
[[variants]]
name = "full"
bits = 32
class = "full"
note = "All of it"
[[variants]]
name = "q8"
bits = 8.5
class = "medium"
note = "Nearly all of it"
[[variants]]
name = "q4"
bits = 4.5
class = "low"
note = "Default: small"
[options.group_size]
type = "integer"
choices = [32, 64]
default = 64
help = "Weights that share one scale"
[options.careful]
type = "boolean"
default = true
help = "Takes longer"
[options.ratio]
type = "number"
minimum = 0.0
maximum = 1.0
default = 0.5
help = "A share"
[[run]]
title = "Play"
command = "toy --hub {hub} {repo} {file}"
"""
FACTS: dict[str, Any] = {
    "parameters": 596_049_920,
    "tier": "micro",
    "architecture": "Qwen3ForCausalLM",
    "license": "apache-2.0",
    "context_length": 40960,
    "dtype": "BF16",
    "languages": ["en", "de"],
    "pipeline_tag": "text-generation",
    "has_chat_template": True,
    "tied": True,
}
CARD = "---\nlicense: apache-2.0\n---\n# About\n\nA *small* model. [More](docs/more.md)\n"


def add_plugin(parent: Path, settings: Settings, *, ready: bool = True) -> formats.Format:
    """Put the toy plugin into a folder of the settings, with what says that it is installed."""
    folder = parent / "toy"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "convert.py").write_text("def convert(source, output, variant, options, job): ...\n")
    (folder / "requirements.txt").write_text("")
    settings.plugins.append(parent)
    fmt = formats.read(folder)
    if ready:
        place = formats.environment(settings, fmt)
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").symlink_to(sys.executable)
        (place / ".ready").touch()
    return fmt


def add_model(settings: Settings, name: str = "org/model", card: str = CARD, **facts: Any) -> str:
    """A mirrored model; its commit."""
    files = {"README.md": card.encode(), "config.json": b'{"model_type": "qwen3"}'}
    files |= {"model.safetensors": name.encode() + b"\0" * 100, "docs/more.md": b"# More"}
    return publish(settings, name, files, facts=FACTS | facts, upstream="https://hub.example")


def add_artefact(settings: Settings, source_commit: str, **changes: Any) -> Artefact:
    """The variant q8 of org/model, published in hub/org_model-TOY."""
    path = "org_model-q8.toy"
    commit = publish(
        settings,
        "hub/org_model-TOY",
        {path: b"artefact", "README.md": b"# org_model-TOY"},
        kind="derived",
        facts=FACTS,
        source="org/model",
        plugin="toy",
    )
    values: dict[str, Any] = {
        "key": "k" * 64,
        "source": "org/model",
        "source_commit": source_commit,
        "plugin": "toy",
        "plugin_version": "1.2.3",
        "lock_digest": "e3b0" * 16,
        "variant": "q8",
        "repo": "hub/org_model-TOY",
        "commit": commit,
        "files": [{"path": path, "size": 8, "sha256": "ab" * 32}],
        "size": 8,
        "check_result": {"text": "once upon a time"},
        "tools": {"toy-tools": "4.5"},
        "sandbox": "strict",
        "seconds": 3.0,
    }
    artefact = Artefact(**(values | changes))
    with db.writing(settings.database) as session:
        session.add(artefact)
    return artefact


def add_job(settings: Settings, **values: Any) -> Job:
    """A job, by default a conversion of org/model to toy q4 that waits."""
    with db.writing(settings.database) as session:
        job = Job(
            **(
                {
                    "kind": "convert",
                    "repo": "org/model",
                    "plugin": "toy",
                    "request_key": secrets.token_hex(),
                    "request": {"variants": ["q4"], "options": {}, "keys": {"q4": "x"}},
                }
                | values
            )
        )
        session.add(job)
    return job


def add_log(settings: Settings, job: Job, text: str) -> None:
    """The log of a job."""
    settings.logs.mkdir(exist_ok=True)
    (settings.logs / f"{job.id}.log").write_text(text)
