"""The answers of plugins: each is asked once, in the background, and nobody waits for long."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from furnished import add_model, add_plugin
from workbench import wait

from hub import asking, db, outline, repos
from hub.asking import Appraisal
from hub.config import Settings
from hub.errors import Unprocessable
from hub.formats import Format
from hub.models import Commit, File
from hub.views import verdicts as module
from hub.views.verdicts import Verdicts


@pytest.fixture
def toys(settings: Settings, tmp_path: Path) -> list[Format]:
    """Five plugins that are one but for their names."""
    fmt = add_plugin(tmp_path / "plugins", settings)
    return [fmt.model_copy(update={"name": f"toy-{number}"}) for number in range(5)]


@pytest.fixture
def model(settings: Settings) -> tuple[Commit, list[File]]:
    add_model(settings)
    with db.reading(settings.database) as session:
        commit = repos.resolve(session, repos.find(session, "org/model"), "main")
        return commit, repos.files(session, commit)


def test_those_who_are_slow_fill_in_later(
    settings: Settings,
    toys: list[Format],
    model: tuple[Commit, Sequence[File]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = threading.Event()
    read: list[object] = []
    real = outline.of_commit

    def of_commit(*given: Any) -> Any:
        read.append(given)
        return real(*given)

    def appraise(_settings: object, fmt: Format, *_: object) -> Appraisal:
        if fmt.name != "toy-0":
            assert slow.wait(120)
        return Appraisal(fmt.name)

    monkeypatch.setattr(asking, "appraise", appraise)
    monkeypatch.setattr(outline, "of_commit", of_commit)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    answers = Verdicts()
    wait(lambda: answers.about(settings, toys, *model)["toy-0"].asked)
    first = answers.about(settings, toys, *model)
    assert [name for name, one in first.items() if one.asked] == ["toy-0"]
    slow.set()
    monkeypatch.setattr(module, "PATIENCE", 60)
    later = answers.about(settings, toys, *model)
    assert {name: one.reason for name, one in later.items()} == {fmt.name: fmt.name for fmt in toys}
    assert len(read) == 1, "all five share what was read of the model"


def test_a_failure_is_asked_about_again_and_other_options_are_another_question(
    settings: Settings,
    toys: list[Format],
    model: tuple[Commit, Sequence[File]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def appraise(*given: Any) -> Appraisal:
        asked.append(given[4]["ratio"])
        if len(asked) == 1:
            raise Unprocessable("plugin_crashed", "It fell over.", "Look.")
        return Appraisal()

    monkeypatch.setattr(asking, "appraise", appraise)
    answers, fmt = Verdicts(), toys[0]
    assert answers.about(settings, [fmt], *model)[fmt.name].reason == "It fell over. Look."
    assert answers.about(settings, [fmt], *model)[fmt.name].reason is None
    for ratio in (0.5, 0.75, 0.75, "0.5"):
        options = fmt.validate_options({"ratio": ratio})
        future = answers.ask(settings, fmt, model[0].sha, lambda: outline.Outline(), options)
        assert future.result(60) == Appraisal()
    assert asked == [0.5, 0.5, 0.75]
