"""How long a conversion will take, from finished ones."""

import pytest
from fakehub import tiny_safetensors
from hypothesis import given
from hypothesis import strategies as st
from published import publish

from hub import db, durations
from hub.config import Settings
from hub.durations import Finished, expected
from hub.models import Artefact

GB = 10**9


def test_a_range_from_the_same_variant() -> None:
    known = [Finished("a", GB, 10), Finished("a", 2 * GB, 40), Finished("b", GB, 500)]
    assert expected(known, ["a"], 3 * GB) == pytest.approx((30, 60))
    assert expected(known, ["a", "b"], GB) == pytest.approx((510, 520))


def test_another_variant_is_better_than_nothing() -> None:
    known = [Finished("a", GB, 10), Finished("b", GB, 30)]
    assert expected(known, ["c"], GB) == pytest.approx((10, 30))


@pytest.mark.parametrize("weights", [GB // 11, 11 * GB, 0])
def test_models_of_another_size_tell_nothing(weights: int) -> None:
    assert expected([Finished("a", GB, 10)], ["a"], weights) is None


def test_nothing_is_known_of_a_new_plugin() -> None:
    assert expected([], ["a"], GB) is None
    assert expected([Finished("a", GB, 10)], [], GB) is None


@given(
    st.lists(
        st.builds(
            Finished,
            st.sampled_from("abc"),
            st.integers(1, 10**12),
            st.floats(0.1, 1e6, allow_nan=False),
        )
    ),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
    st.integers(0, 10**12),
)
def test_the_least_is_never_more_than_the_most(
    known: list[Finished], variants: list[str], weights: int
) -> None:
    found = expected(known, variants, weights)
    assert found is None or 0 < found[0] <= found[1]


def test_finished_artefacts_with_the_weights_of_their_sources(either: Settings) -> None:
    weights = tiny_safetensors({"a": ("BF16", [2, 3])})
    files = {"config.json": b"{}", "1.safetensors": weights, "2.safetensors": weights}
    sha = publish(either, "org/model", files)
    publish(either, "org/other", {"model.safetensors": weights})
    with db.writing(either.database) as session:
        for number, (plugin, variant, seconds) in enumerate(
            [("toy", "a", 5.0), ("toy", "b", 0.0), ("other", "a", 7.0)]
        ):
            session.add(
                Artefact(
                    key=str(number),
                    source="org/model",
                    source_commit=sha,
                    plugin=plugin,
                    plugin_version="1",
                    lock_digest="",
                    variant=variant,
                    repo="hub/x",
                    commit="c" * 40,
                    size=1,
                    sandbox="strict",
                    seconds=seconds,
                )
            )
    with db.reading(either.database) as session:
        assert durations.finished(session, "toy") == [Finished("a", 2 * len(weights), 5.0)]
        assert durations.finished(session, "none") == []
