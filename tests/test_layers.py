"""The direction of imports: workers → hub; hub never imports workers; nothing imports plugins."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"hub": {"workers", "plugins"}, "workers": {"plugins"}}
NAMES = {"utils", "helpers", "common", "manager", "base"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imports(path) & FORBIDDEN[package], path


def test_a_plugin_imports_nothing_of_ours() -> None:
    for path in (ROOT / "plugins").rglob("*.py"):
        assert not imports(path) & {"hub", "workers"}, path


def test_the_shim_needs_the_standard_library_only() -> None:
    assert imports(ROOT / "workers" / "shim.py") <= set(sys.stdlib_module_names)


def test_no_module_is_named_after_its_shape() -> None:
    for folder in ("hub", "workers", "plugins", "bench", "samples"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem not in NAMES, path
