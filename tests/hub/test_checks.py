"""What a check saw, in a word and in a line."""

from typing import Any

import pytest

from hub import checks


@pytest.mark.parametrize(
    ("result", "state", "line"),
    [
        ({}, "none", "not checked"),
        ({"text": "once"}, "passed", "passed"),
        ({"ran": True, "tokens": 16}, "passed", "passed (generated 16 tokens)"),
        (
            {"tokens": 16, "runtime": "rt\n2"},
            "passed",
            "passed (generated 16 tokens in rt 2)",
        ),
        ({"ran": False, "tokens": 16}, "not_run", "not run here"),
        ({"ran": False, "note": "No\nGPU. " + "x" * 999}, "not_run", None),
        ({"ok": False, "text": "?"}, "failed", "failed"),
    ],
)
def test_a_result(result: dict[str, Any], state: str, line: str | None) -> None:
    assert checks.state(result) == state
    said = checks.line(result)
    if line is None:
        assert said.startswith("not run here: No GPU. xxx")
        assert len(said) < 320
    else:
        assert said == line
