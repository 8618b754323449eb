"""What a conversion will come to, before it is asked for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakehub import FakeHub, tiny_model

from hub import artefacts, asking, formats, leases, mirror, prospects, queue, requests
from hub.artefacts import Made, Recipe, Source
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.errors import NotFound, Unavailable, Unprocessable
from hub.formats import State
from hub.outline import Outline
from hub.prospects import Prospect
from hub.space import Space

COSTS = {"plain": Estimate(100, 3000, 50), "loud": Estimate(200, 4000, 70)}


@pytest.fixture
def upstream() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def at(settings: Settings, upstream: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A hub whose upstream has a model, with the echo plugin ready; no process is started."""
    upstream.add("org/model", tiny_model(4096))
    monkeypatch.setattr(formats, "state", lambda *_: State("ready"))

    def appraise(*given: Any) -> Appraisal:
        return Appraisal(estimates={name: COSTS[name] for name in given[3]})

    monkeypatch.setattr(asking, "appraise", appraise)
    return settings.model_copy(update={"upstream": upstream.url})


def look(settings: Settings, *variants: str, ahead: bool = True) -> Prospect:
    names = variants or ("plain", "loud")
    order = prospects.order(settings, "org/model", "main", "echo", names, ahead=ahead)
    return prospects.weigh(settings, order)


def test_a_model_is_weighed_before_it_is_mirrored(at: Settings, upstream: FakeHub) -> None:
    found = look(at)
    assert found.refusal is None
    assert found.order.download > 4096 * 256
    # All variants, the larger once more, the scratch, and what is fetched.
    assert found.disk == int((found.order.download + 100 + 200 + 200 + 70) * 1.05)
    assert (found.memory, found.seconds) == (4000, None)
    assert [(one.name, one.size, one.repo) for one in found.variants] == [
        ("plain", 100, "hub/org_model-Echo"),
        ("loud", 200, "hub/org_model-Echo"),
    ]
    assert upstream.sent("model.safetensors") <= mirror.HEADER_GUESS
    assert "model.embed_tokens.weight" in found.order.model.tensors
    mirror.mirror(at, mirror.plan(at, "org/model"), report=lambda *_: None)
    there = look(at, ahead=False)
    assert there.order.download == 0
    assert there.order.job.commit == found.order.job.commit
    assert there.order.model == found.order.model


def test_only_who_looks_ahead_goes_upstream(at: Settings, upstream: FakeHub) -> None:
    with pytest.raises(NotFound, match="org/model"):
        look(at, ahead=False)
    assert upstream.sent() == 0


def test_upstream_has_only_so_much_time(at: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prospects, "PATIENCE", -1)
    with pytest.raises(Unavailable, match="did not describe org/model") as error:
        look(at)
    assert error.value.kind == "upstream_slow"


def test_what_cannot_be_had_has_figures_all_the_same(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(at.model_copy(update={"memory_limit": 3999}))
    assert found.refusal is not None
    assert found.refusal.kind == "memory_too_small"
    assert found.memory == 4000
    monkeypatch.setattr(formats, "state", lambda *_: State("not installed"))
    found = look(at)
    assert found.refusal is not None
    assert found.refusal.kind == "plugin_not_ready"
    assert found.disk == int(found.order.download * 1.05)


def test_the_reason_of_the_plugin(at: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "appraise", lambda *_: Appraisal("It knows no llamas."))
    found = look(at)
    assert found.refusal is not None
    assert (found.refusal.kind, found.refusal.message) == ("not_supported", "It knows no llamas.")

    def fail(*_: object) -> Appraisal:
        raise Unprocessable("plugin_crashed", "It fell over.", "Look.")

    monkeypatch.setattr(asking, "appraise", fail)
    found = look(at)
    assert found.refusal is not None
    assert found.refusal.kind == "plugin_crashed"


def test_rough_estimates_are_a_lower_bound(at: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = formats.get(at, "echo")
    roughly = asking.rough(fmt, Outline(parameters=1000), "plain")
    assert roughly.size == 1000
    monkeypatch.setattr(asking, "appraise", lambda *_: Appraisal(estimates={"plain": roughly}))
    found = look(at.model_copy(update={"memory_limit": 1000}), "plain")
    assert found.refusal is not None
    assert "needs at least 268.4 MB of memory" in found.refusal.message


def test_what_is_on_its_way_is_not_refused(at: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ring", lambda *_: None)
    mirror.mirror(at, mirror.plan(at, "org/model"), report=lambda *_: None)
    order = prospects.order(at, "org/model", "main", "echo", ["plain"])
    job = requests.accept(at, order, {})
    small = at.model_copy(update={"memory_limit": 1000})
    found = look(small, "plain")
    assert found.order.twin is not None
    assert found.order.twin.id == job.id
    assert found.refusal is None
    both = look(small)
    assert both.order.twin is None
    assert {name: one.id for name, one in both.order.making.items()} == {"plain": job.id}
    assert both.refusal is not None


def test_jobs_on_their_way_have_their_share_of_the_disk(
    at: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(queue, "ring", lambda *_: None)
    monkeypatch.setitem(COSTS, "plain", Estimate(1 << 60, 0, 0))  # more than any disk
    monkeypatch.setitem(COSTS, "loud", Estimate(1000, 0, 0))
    mirror.mirror(at, mirror.plan(at, "org/model"), report=lambda *_: None)
    mine = look(at, "plain", ahead=False)
    assert mine.space.reserved == 0
    job = requests.accept(at, mine.order, mine.sizes)
    assert look(at, "plain", ahead=False).space.reserved == 0, "what is one's own"
    refusal = look(at, "loud", ahead=False).refusal
    assert refusal is not None
    assert refusal.kind == "disk_too_small"
    assert "that are free the jobs on their way will take about 1,152,921.5 TB" in refusal.message
    claim = leases.claim(at, job.id or 0, "w")
    assert claim is not None
    assert look(at, "loud", ahead=False).space.reserved == 1 << 60
    source = Source("org/model", job.commit or "", [], {})
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "plain.txt").write_text("plain")
    made = Made("plain", tmp_path / "made")
    artefacts.publish(
        at, claim, mine.order.fmt, source, Recipe(job.request["options"], {}, "strict"), made
    )
    assert look(at, "loud", ahead=False).space.reserved == 0, "it is on the disk by now"
    leases.release(at, claim)
    assert look(at, "loud", ahead=False).space.reserved == 0, "also when it is given back"
    claim = leases.claim(at, job.id or 0, "w")
    assert claim is not None
    leases.done(at, claim)
    assert look(at, "loud", ahead=False).refusal is None


def test_who_weighs_may_ask_in_another_way(at: Settings) -> None:
    order = prospects.order(at, "org/model", "main", "echo", ["plain"], ahead=True)
    asked = []

    def appraise(*given: object) -> Appraisal:
        asked.append(given[2:4])
        return Appraisal(estimates={"plain": Estimate(7, 8, 9)})

    assert prospects.weigh(at, order, appraise).memory == 8
    assert asked == [(order.model, ["plain"])]


def test_several_jobs_share_the_disk(at: Settings) -> None:
    one, other = look(at, "plain"), look(at, "loud")
    # Both sizes, the download once, and beside them the most that one of them needs at a time.
    needed = int((one.order.download + 100 + 200 + 200 + 70) * 1.05)
    assert prospects.together([one, other]) == (needed, None)
    tight = [replace(each, space=Space(needed - 1)) for each in (one, other)]
    assert all(each.disk < needed for each in tight)
    disk, refusal = prospects.together(tight)
    assert disk == needed
    assert refusal is not None
    assert refusal.kind == "disk_too_small"
    assert "These 2 jobs together need" in refusal.message
    assert prospects.together(tight[:1])[1] is None, "alone it is refused where it is weighed"
    assert prospects.together([]) == (0, None)
