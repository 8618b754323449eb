"""The files beside the graph: configuration and tokenizer, the same for all variants."""

import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def read(path: Path) -> dict[str, Any]:
    """A file of JSON, or an empty object where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def clean(source: Path, view: Path) -> None:
    """Copy what the exporter needs, without any name of code that comes with the model."""
    view.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", *TOKENIZER):
        if not (source / name).exists():
            continue
        if name in ("config.json", "tokenizer_config.json"):
            settings = read(source / name)
            settings.pop("auto_map", None)
            (view / name).write_text(json.dumps(settings), encoding="utf-8")
        else:
            shutil.copyfile(source / name, view / name)


def config(source: dict[str, Any], external: dict[str, int]) -> str:
    """config.json of the artefact: the source's, with what transformers.js has to know.

    `external`: how many data files each .onnx file has beside it.
    """
    settings = {
        key: value
        for key, value in source.items()
        if key not in ("auto_map", "quantization_config")
    }
    settings["transformers.js_config"] = {
        # Version 4 reads the type off the file; version 3 has to be told.
        "kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"},
    }
    if external:
        settings["transformers.js_config"]["use_external_data_format"] = external
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def tokenizer_config(source: Path) -> str:
    """tokenizer_config.json with the chat template in it, where transformers.js looks for it."""
    settings = read(source / "tokenizer_config.json")
    settings.pop("auto_map", None)
    template = source / "chat_template.jinja"
    if template.exists() and "chat_template" not in settings:
        settings["chat_template"] = template.read_text(encoding="utf-8")
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def write(source: Path, output: Path, made: Path, external: dict[str, int]) -> None:
    """Write configuration and tokenizer into `output`.

    `made`: a tokenizer.json that was made from tokenizer.model, where the source has no other.
    """
    text = config(read(source / "config.json"), external)
    (output / "config.json").write_text(text, encoding="utf-8")
    for name in TOKENIZER:
        if name == "tokenizer_config.json":
            (output / name).write_text(tokenizer_config(source), encoding="utf-8")
        elif (source / name).exists():
            shutil.copyfile(source / name, output / name)
    if not (output / "tokenizer.json").exists():
        shutil.copyfile(made, output / "tokenizer.json")
