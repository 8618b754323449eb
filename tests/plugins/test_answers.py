"""What every format says of every model before anything is installed, downloaded or made.

`supports` and `estimate` need no more than an interpreter: this one, in a process of its own.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hub import formats, safetensors
from hub.formats import Format

ROOT = Path(__file__).parent.parent.parent
FORMATS = [
    fmt
    for fmt in (formats.read(path.parent) for path in sorted(ROOT.glob("plugins/*/plugin.toml")))
    if not fmt.hidden and fmt.command is None
]
SECONDS = 1.0
# Asks a plugin about many models: (config, files, tensors) each; answers with reason, estimates,
# seconds. Only the standard library can be imported, as in the plugin's process.
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
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    tensors: dict[str, Any] = {}
    for name in files:
        if name.endswith(".safetensors"):
            header = safetensors.parse_header((folder / name).read_bytes(), size=files[name])
            tensors |= {
                key: {"dtype": tensor.dtype, "shape": list(tensor.shape)}
                for key, tensor in header.tensors.items()
            }
    return json.loads((folder / "config.json").read_bytes()), files, tensors


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


def ask(fmt: Format, models: dict[str, Any]) -> dict[str, Any]:
    variants = [variant.name for variant in fmt.variants]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", ASK],
        input=json.dumps([str(fmt.folder), models, variants, fmt.validate_options({})]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: str(fmt.name))
def test_models_are_taken_with_an_estimate_or_refused_with_a_reason(
    fmt: Format, models: dict[str, Any]
) -> None:
    for name, (reason, estimates, seconds) in ask(fmt, models).items():
        assert seconds < SECONDS, name
        if reason:
            assert reason.endswith("."), name
            continue
        weights = sum(size for path, size in models[name][1].items() if "safetensors" in path)
        for variant, estimate in estimates.items():
            assert set(estimate) == {"size", "memory", "scratch"}
            assert all(isinstance(value, int) and value >= 0 for value in estimate.values())
            assert 0.02 * weights < estimate["size"] < 40 * weights, (name, variant)
            assert estimate["memory"] > 50 << 20, (name, variant)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: str(fmt.name))
def test_every_model_of_the_mission_is_taken(fmt: Format, models: dict[str, Any]) -> None:
    answers = ask(fmt, models)
    refused = {name: reason for name, (reason, *_) in answers.items() if reason}
    if fmt.name in ("gguf", "openvino", "mlx"):
        assert not refused
    else:
        others = [ask(one, models) for one in FORMATS if one.name in ("onnx", "onnx-genai")]
        assert not [name for name in refused if all(other[name][0] for other in others)]


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: str(fmt.name))
def test_what_cannot_work_is_refused_with_the_reason(fmt: Format, bad: dict[str, Any]) -> None:
    for what, (reason, _, seconds) in ask(fmt, bad).items():
        assert reason, what
        assert reason.endswith("."), (what, reason)
        assert "\n" not in reason
        assert seconds < SECONDS
