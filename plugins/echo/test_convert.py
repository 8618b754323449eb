"""The plugin by itself, without the hub: what an author tests."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

HERE = Path(__file__).parent
OPTIONS = {"sleep": 0.0, "allocate": 0, "write": 0, "say": "", "act": "nothing", "target": ""}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(HERE)
    specification = importlib.util.spec_from_file_location("echo_convert", HERE / "convert.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    sys.modules.pop("acts", None)


@pytest.mark.parametrize(("variant", "text"), [("plain", "is a llama"), ("loud", "IS A LLAMA")])
def test_it_writes_a_line(plugin: ModuleType, tmp_path: Path, variant: str, text: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    output = tmp_path / "output"
    output.mkdir()
    said: list[float] = []
    job = SimpleNamespace(
        source_name="org_model", variant=variant, report=lambda done, _message: said.append(done)
    )
    plugin.convert(tmp_path, output, variant, OPTIONS, job)
    assert text in (output / f"org_model-{variant}.txt").read_text()
    assert text in plugin.check(output, job)["text"]
    assert said == [1]


def test_it_says_what_it_does_not_know(plugin: ModuleType) -> None:
    assert "unsupported" in plugin.supports({"model_type": "unsupported"}, [])
    assert plugin.supports({"model_type": "llama"}, []) is None
