"""What is known of a model before its weights are read."""

import json

import pytest
from fakehub import tiny_safetensors
from published import publish

from hub import db, outline, repos
from hub.config import Settings
from hub.outline import MAX_TENSORS, Outline
from hub.safetensors import Tensor


def of(settings: Settings, files: dict[str, bytes]) -> Outline:
    sha = publish(settings, "org/model", files, facts={"parameters": 7})
    with db.reading(settings.database) as session:
        commit = repos.resolve(session, repos.find(session, "org/model"), sha)
        return outline.of_commit(settings, commit, repos.files(session, commit))


def test_the_shards_of_a_commit_are_one_model(settings: Settings) -> None:
    first = tiny_safetensors({"a": ("BF16", [2, 3])})
    second = tiny_safetensors({"b": ("F32", [5])})
    model = of(
        settings, {"config.json": b'{"x": 1}', "1.safetensors": first, "2.safetensors": second}
    )
    assert model.config == {"x": 1}
    assert model.described() == {
        "a": {"dtype": "BF16", "shape": [2, 3]},
        "b": {"dtype": "F32", "shape": [5]},
    }
    assert model.weights == len(first) + len(second)
    assert model.files["config.json"] == 8
    assert (model.largest, model.parameters) == (6, 7)


@pytest.mark.parametrize("config", [b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_a_damaged_model_has_an_outline_too(
    settings: Settings, config: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    model = of(settings, {"config.json": config, "model.safetensors": b"no header at all"})
    assert (model.config, model.tensors, model.largest) == ({}, {}, 0)
    assert "model.safetensors has no header to estimate from" in caplog.text


def test_a_hoax_of_tensors_is_not_told() -> None:
    tensor = Tensor("BF16", (1,), 0, 2)
    many = Outline(tensors={str(number): tensor for number in range(MAX_TENSORS + 1)})
    assert many.described() == {}
    assert json.dumps(Outline(tensors={"a": tensor}).described())
