"""What every format says of every model before anything is downloaded or made."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import installed
import pytest

from hub import outline
from workers import environments

ROOT = Path(__file__).parent.parent.parent
FORMATS = ("gguf", "mlx", "onnx", "onnx-genai", "openvino")
SECONDS = 10.0
"""A bound for a busy machine; `bench.support` tells whether a refusal takes a second."""
# What no released tool of the format computes: the plugin's README says why.
BEYOND = {"gguf": {"bitnet-b1.58-2b"}}
# Quantized sources that a format's tool reads.
READ = {"gguf": {"gptq", "fp8", "compressed-tensors", "mxfp4"}}
pytestmark = [pytest.mark.slow, pytest.mark.plugin]
# Asks a plugin about many models: (config, files, tensors) each; answers with reason, estimates,
# seconds. In one process, which pays once for starting.
ASK = """
import importlib.util, json, sys, time
folder, models, variants, options = json.load(sys.stdin)
sys.path.insert(0, folder)
specification = importlib.util.spec_from_file_location("convert", folder + "/convert.py")
plugin = importlib.util.module_from_spec(specification)
sys.modules["convert"] = plugin
began = time.perf_counter()
specification.loader.exec_module(plugin)
loaded = time.perf_counter() - began
answers = {}
for name, (config, files, tensors) in models.items():
    began = time.perf_counter()
    reason = plugin.supports(config, list(files))
    estimates = {} if reason else {
        variant: plugin.estimate(config, files, tensors, variant, dict(options))
        for variant in variants
    }
    answers[name] = [reason, estimates, loaded + time.perf_counter() - began]
json.dump(answers, sys.stdout)
"""


def _zoo() -> ModuleType:
    specification = importlib.util.spec_from_file_location("zoo", ROOT / "samples" / "zoo.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["zoo"] = module  # its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


ZOO = _zoo()


def described(folder: Path) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """What is known of a model from its headers."""
    model = outline.of_folder(folder)
    return dict(model.config), dict(model.files), model.described()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The zoo, as headers."""
    folder = tmp_path_factory.mktemp("zoo")
    return {
        name: described(ZOO.write(name, folder / name, width=128, layers=2)) for name in ZOO.MODELS
    }


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What has to be refused by every format, as headers. A missing shard is the hub's to see."""
    folder = tmp_path_factory.mktemp("bad")
    wrong = [what for what in ZOO.BAD if what != "shard missing"]
    return {what: described(ZOO.write_bad(what, folder / what)) for what in wrong}


Ask = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks a format about models, in its own environment: reason, estimates, seconds of each."""

    def asked(name: str, models: dict[str, Any]) -> dict[str, Any]:
        settings, fmt = installed.install(tmp_path_factory, name)
        variants = [variant.name for variant in fmt.variants]
        done = subprocess.run(
            [str(environments.python(settings, fmt)), "-I", "-B", "-c", ASK],
            input=json.dumps([str(fmt.folder), models, variants, fmt.validate_options({})]),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return asked


@pytest.mark.parametrize("name", FORMATS)
def test_models_are_taken_with_an_estimate_or_refused_with_a_reason(
    ask: Ask, name: str, models: dict[str, Any]
) -> None:
    for model, (reason, estimates, seconds) in ask(name, models).items():
        assert seconds < SECONDS, model
        if reason:
            assert reason.endswith("."), model
            continue
        weights = sum(size for path, size in models[model][1].items() if "safetensors" in path)
        for variant, estimate in estimates.items():
            assert set(estimate) == {"size", "memory", "scratch"}
            assert all(isinstance(value, int) and value >= 0 for value in estimate.values())
            assert 0.02 * weights < estimate["size"] < 40 * weights, (model, variant)
            assert estimate["memory"] > 50 << 20, (model, variant)


@pytest.mark.parametrize("name", FORMATS)
def test_every_model_of_the_mission_is_taken(ask: Ask, name: str, models: dict[str, Any]) -> None:
    refused = {model for model, (reason, *_) in ask(name, models).items() if reason}
    if name.startswith("onnx"):  # one of the two is enough
        other = "onnx" if name == "onnx-genai" else "onnx-genai"
        refused &= {model for model, (reason, *_) in ask(other, models).items() if reason}
    assert refused == BEYOND.get(name, set())


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_work_is_refused_with_the_reason(
    ask: Ask, name: str, bad: dict[str, Any]
) -> None:
    for what, (reason, _, seconds) in ask(name, bad).items():
        assert bool(reason) == (what not in READ.get(name, set())), what
        if not reason:
            continue
        assert reason.endswith("."), (what, reason)
        assert "\n" not in reason
        assert seconds < SECONDS
