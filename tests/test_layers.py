"""The direction of imports: workers → hub; hub never imports workers; nothing imports plugins.

Within hub and workers no module leads back to itself, and views are what only the application sees.
"""

import ast
import graphlib
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


def graph(package: str) -> dict[str, set[str]]:
    """What each module of a package imports of it, wherever in its text, for types alone too."""
    modules = {}
    for path in (ROOT / package).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = ast.walk(ast.parse(path.read_text()))
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, nodes in modules.items():
        for node in nodes:
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found[name] |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        found[name] &= modules.keys() - {package}
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_leads_back_to_itself(package: str) -> None:
    graphlib.TopologicalSorter(graph(package)).prepare()  # a CycleError names the circle


def test_the_domain_knows_no_views() -> None:
    found = graph("hub")
    assert "hub.views.model" in found["hub.app"]
    for name, imported in found.items():
        if name != "hub.app" and not name.startswith("hub.views"):
            assert not {one for one in imported if one.startswith("hub.views")}, name


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
