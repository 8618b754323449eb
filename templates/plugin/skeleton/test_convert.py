"""A tiny model through the converter, in the plugin's own environment, without the hub.

slmhub plugins check skeleton --test-only
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def load() -> ModuleType:
    """Import convert.py under a name of its own."""
    spec = importlib.util.spec_from_file_location("skeleton_convert", HERE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = load()


class Failed(Exception):
    """What the tests' job.fail raises."""


def fail(kind: str, message: str, hint: str) -> NoReturn:
    raise Failed(f"{kind}: {message} {hint}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random model of two tensors, as a folder of files."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 4), dtype=np.float32)
    save_file({"a.weight": weights, "b.weight": weights[:2].copy()}, folder / "model.safetensors")
    return folder


def job(tmp_path: Path, variant: str) -> Any:
    """The part of the hub's job that the converter uses."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return SimpleNamespace(
        variant=variant,
        source_name="org_tiny",
        scratch=scratch,
        report=lambda done, message: None,  # noqa: ARG005
        fail=fail,
    )


def run(model: Path, tmp_path: Path, variant: str, folder: str = "output") -> Path:
    """Convert into a new folder and check it, as the hub does."""
    output = tmp_path / folder
    output.mkdir()
    plugin.convert(model, output, variant, {}, job(tmp_path, variant))
    assert plugin.check(output, job(tmp_path, variant))["runtime"]
    return output


def test_the_weights_arrive(model: Path, tmp_path: Path) -> None:
    output = run(model, tmp_path, "copy")
    (made,) = output.iterdir()
    before = load_file(model / "model.safetensors")
    after = load_file(made)
    assert all(np.array_equal(after[name], weights) for name, weights in before.items())


def test_the_same_model_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    one, two = (run(model, tmp_path, "copy", name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one.iterdir()] == [
        path.read_bytes() for path in two.iterdir()
    ]


def test_the_size_is_known_beforehand(model: Path, tmp_path: Path) -> None:
    files = {path.name: path.stat().st_size for path in model.iterdir()}
    said = plugin.estimate(CONFIG, files, {}, "copy", {})
    made = sum(path.stat().st_size for path in run(model, tmp_path, "copy").iterdir())
    assert said["size"] == pytest.approx(made, rel=0.03)


def test_what_cannot_be_converted_is_refused() -> None:
    assert plugin.supports(CONFIG, ["model.safetensors"]) is None
    assert plugin.supports(CONFIG | {"quantization_config": {}}, ["model.safetensors"])


def test_an_empty_artefact_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no tensor"):
        plugin.check(tmp_path, job(tmp_path, "copy"))
