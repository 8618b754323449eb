"""The support matrix: a small part of it for real, and how it is judged and drawn."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import installed
import numpy as np
import pytest

from bench import matrix, support
from bench.greedy import compare
from bench.greedy.compare import Agreement
from hub import formats
from hub.config import ROOT

PLUGINS = [name for name in compare.SCRIPTS if (ROOT / "plugins" / name / "plugin.toml").exists()]


@pytest.mark.slow
@pytest.mark.plugin
@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_says_what_its_artefacts_then_do(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings, _ = installed.install(tmp_path_factory, name)
    command = [sys.executable, "-m", "bench.support", "--quick", "--plugins", name]
    environment = os.environ | {"HUB_DATA": str(settings.data)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.count("tokens agree") == len(support.QUICK)


def agreement(tokens: list[int], deviation: float) -> Agreement:
    return Agreement(tokens, 32, deviation, 0.1)


def test_other_tokens_are_forgiven_only_where_the_logits_are_close() -> None:
    assert agreement([32, 32], 0.5).holds
    assert agreement([32, 31], 0.05).holds
    assert not agreement([32, 31], 0.5).holds
    assert not agreement([32, 31], float("nan")).holds


def test_a_script_is_led_along_the_path_and_says_what_it_would_have_said(tmp_path: Path) -> None:
    # A runtime that always says the token after the last one, and is told that it should not.
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.append({str(ROOT / 'bench' / 'greedy')!r})\n"
        "import numpy as np\n"
        "from path import main\n"
        "class Next:\n"
        "    def feed(self, tokens):\n"
        "        return np.eye(9, dtype=np.float32)[(tokens[-1] + 1) % 9]\n"
        "main(lambda artefact, longest: Next)\n"
    )
    request, result = tmp_path / "request.json", tmp_path / "result.npz"
    request.write_text('{"prompts": [[1], [1, 4]], "paths": [null, [0, 7, 2]], "count": 3}')
    command = [sys.executable, "-I", str(script), str(tmp_path), str(request), str(result)]
    subprocess.run(command, check=True)
    with np.load(result) as arrays:
        assert arrays["tokens"].tolist() == [[2, 3, 4], [5, 1, 8]]
        assert arrays["logits"].shape == (2, 3, 9)


def test_the_long_prompt_leaves_the_sliding_window() -> None:
    short, long = compare.prompts()
    window = support.zoo.MODELS["gemma-3-1b"].config["sliding_window"]
    assert len(short) < window < len(long)
    assert max(long) < compare.VOCABULARY == support.zoo.PIECES
    assert min(long[1:]) >= compare.SPECIAL == support.zoo.SPECIAL


@pytest.mark.parametrize("name", PLUGINS)
def test_one_variant_of_each_class_is_tried(name: str) -> None:
    fmt = formats.read(ROOT / "plugins" / name)
    tried = support.chosen(fmt, "class")
    classes = {variant.class_ for variant in fmt.variants}
    assert len(tried) == len(classes)
    assert {fmt.variant(one).class_ for one in tried} == classes
    (first,) = support.chosen(fmt, "first")
    assert fmt.variant(first).class_ in compare.TOLERANCE


def cell(**keys: Any) -> dict[str, Any]:
    return {"reason": None, "seconds": 0.2, "remark": "", "agrees": True, "tries": []} | keys


def test_cells_give_their_reason_in_a_note() -> None:
    tried = {"variant": "fp32", "error": "", "ok": True, "check": {}, "agreement": None}
    near = {"whole": False, "said": "31 of 32 tokens agree"}
    cells = {
        "llama-2-7b": cell(tries=[tried]),
        "llama-3-8b": cell(tries=[tried | {"agreement": near}]),
        "mistral-7b": cell(reason="It knows no Mistral"),
        "olmo-2-1b": cell(tries=[tried | {"ok": False, "error": "It broke"}], agrees=False),
        "phi-4-mini": cell(
            tries=[tried | {"check": {"ran": False, "note": "Not run: no GPU. It fits."}}]
        ),
    }
    plugin = {"title": "ONNX", "version": "1.0.0", "tools": {"onnx": "1.2"}}
    results = {"plugins": {"onnx": plugin}, "cells": {"onnx": cells}, "bad": {}}
    text = matrix.document(results, support.zoo, support.FORMS)
    assert "| meta-llama/Llama-2-7b-hf | yes |" in text
    assert "| meta-llama/Meta-Llama-3-8B-Instruct | yes [1](#notes) |" in text
    assert "1. fp32: 31 of 32 tokens agree." in text
    assert "| mistralai/Mistral-7B-Instruct-v0.3 | no [3](#notes) |" in text
    assert "It knows no Mistral." in text
    assert "| allenai/OLMo-2-0425-1B-Instruct | no [4](#notes) |" in text
    assert "fp32: It broke." in text
    assert "fp32 was made, and not run: no GPU; its files were looked through instead." in text
    assert "| Qwen/Qwen3-0.6B | not tried |" in text


def test_no_document_is_drawn_with_gaps() -> None:
    rows = [*support.zoo.MODELS, *support.FORMS]
    whole = {name: dict.fromkeys(rows, cell()) for name in support.PLUGINS}
    assert not support.gaps({"cells": whole, "bad": dict.fromkeys(support.PLUGINS)})
    del whole["mlx"]["qwen3-0.6b"]
    lacking = support.gaps({"cells": whole, "bad": dict.fromkeys(support.PLUGINS[:-1])})
    assert lacking == ["qwen3-0.6b / mlx", "bad input / mlx"]
