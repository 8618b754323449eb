"""The curated selection is well-formed, and its figures agree with the shapes that are known."""

from pathlib import Path

import pytest
import shapes
from pydantic import ValidationError

from hub import selection
from hub.errors import InvalidRequest
from hub.facts import facts


def test_every_model_is_named_once() -> None:
    models = [model for collection in selection.load() for model in collection.models]
    assert len({model.repo for model in models}) == len(models) >= 15
    assert all(collection.models and collection.note for collection in selection.load())


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3-0.6B",
        "Qwen3-1.7B",
        "Qwen3-4B",
        "Qwen3-8B",
        "Phi-4-mini",
        "Phi-3.5-mini",
        "gemma-3",
        "Meta-Llama-3-8B",
        "bitnet-b1.58-2B-4T",
        "SmolLM2",
        "SmolLM3",
        "Llama-3.2",
    ],
)
def test_the_models_of_the_mission_are_there(name: str) -> None:
    repos = [model.repo for collection in selection.load() for model in collection.models]
    assert any(name in repo for repo in repos)


def test_none_is_too_large() -> None:
    assert {model.tier for c in selection.load() for model in c.models} <= {"micro", "small"}


def test_figures_agree_with_headers() -> None:
    tied = {"tie_word_embeddings": True}
    packed = {"quantization_config": {"quant_method": "bitnet"}}
    listed = {model.repo: model.parameters for c in selection.load() for model in c.models}
    for repo, tensors, config in (
        ("Qwen/Qwen3-0.6B", shapes.qwen3_06b(head_stored=True), tied),
        ("microsoft/bitnet-b1.58-2B-4T", shapes.bitnet_2b(), packed),
    ):
        counted = facts(config, {"model.safetensors": shapes.header(tensors)}).parameters
        assert listed[repo] == counted


@pytest.mark.parametrize(
    "line", ['repo = "one"', "parameters = 0", 'colour = "red"', "context_length = 'x'"]
)
def test_a_wrong_file_is_told(tmp_path: Path, line: str) -> None:
    good = {
        "repo": '"a/b"',
        "title": '"t"',
        "parameters": "1",
        "license": '"mit"',
        "context_length": "1",
        "note": '"n"',
    }
    key, _equals, value = line.partition(" = ")
    text = "".join(f"{name} = {found}\n" for name, found in {**good, key: value}.items())
    path = tmp_path / "selection.toml"
    path.write_text(f"[c]\ntitle = 'c'\nnote = 'n'\n[[c.models]]\n{text}")
    with pytest.raises((ValidationError, InvalidRequest)):
        selection.load(path)
