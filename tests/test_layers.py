"""Who may import whom: the arrows of the design, walked over every import there is.

Above ``core``, ``codec``, ``ports`` and ``adapters`` stand the modules that make a registry of
them (``registry``, ``plugins``, ``explain``, …): the shell. Above it, the command line.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "heddle_registry"

ARROWS = {
    "errors": set(),
    "core": {"errors"},
    "codec": {"core", "errors"},
    "ports": {"core", "errors"},
    "adapters": {"core", "codec", "ports", "errors"},
    "detection": {"core", "errors"},
    "hookspecs": {"core", "errors"},
    "shell": {"core", "codec", "ports", "errors", "detection", "hookspecs", "shell", "package"},
    "testing": {"core", "codec", "ports", "errors", "detection", "hookspecs", "shell", "adapters"},
    "cli": {"core", "codec", "ports", "errors", "detection", "shell", "package"},
    "package": {"core", "ports", "errors", "detection", "hookspecs", "shell", "cli"},
}
COMPOSITION_ROOT = "heddle_registry.opening"
CHOSEN_THERE = {
    "heddle_registry.adapters.directory",
    "heddle_registry.adapters.host",
    "heddle_registry.adapters.memory",
}
"""What stands behind the two ports. Who else names one of them has gone around the ports.

The other adapters serve no port (a child process, the worktree around us, a transcript's folder):
the shell and the command line may use them, but inside a function only, so that nobody pays at
start-up for what he does not use.
"""


class Edge(NamedTuple):
    importer: str
    imported: str
    is_top: bool
    """Whether it is made when the importer itself is imported."""


def layer_of(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return "package"
    return parts[1] if parts[1] in ARROWS else "shell"


def edges_of(module: str, source: str) -> list[Edge]:
    found = []

    def walk(node: ast.AST, *, is_top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Edge(module, alias.name, is_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                name = child.module or ""
                if name == "heddle_registry":
                    found.extend(
                        Edge(module, resolve(f"{name}.{alias.name}"), is_top)
                        for alias in child.names
                    )
                else:
                    found.append(Edge(module, name, is_top))
            is_late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If)
                and isinstance(child.test, ast.Name)
                and child.test.id == "TYPE_CHECKING"
            )
            walk(child, is_top=is_top and not is_late)

    walk(ast.parse(source), is_top=True)
    return [edge for edge in found if edge.imported.split(".")[0] == "heddle_registry"]


def resolve(name: str) -> str:
    """Return the module that ``from heddle_registry import name`` means, or the package."""
    path = ROOT.joinpath(*name.split("."))
    is_module = path.is_dir() or path.with_suffix(".py").exists()
    return name if is_module else name.rpartition(".")[0]


def wrong(edge: Edge) -> bool:
    above, below = layer_of(edge.importer), layer_of(edge.imported)
    if above == below:
        return False
    if below == "adapters" and above in ("shell", "cli"):
        is_port = edge.imported in CHOSEN_THERE and edge.importer != COMPOSITION_ROOT
        return edge.is_top or is_port
    return below not in ARROWS[above]


def all_edges() -> list[Edge]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        found += edges_of(module, path.read_text(encoding="utf-8"))
    return found


def test_every_import_follows_an_arrow_of_the_design():
    edges = all_edges()
    assert len(edges) > 100
    assert [edge for edge in edges if wrong(edge)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("heddle_registry.core.claim", "from heddle_registry.codec import document"),
        ("heddle_registry.codec.claims", "def f():\n    import heddle_registry.adapters.host"),
        ("heddle_registry.adapters.host", "from heddle_registry.registry import AgentRegistry"),
        ("heddle_registry.opening", "from heddle_registry.adapters.host import LocalHost"),
        ("heddle_registry.explain", "def f():\n    import heddle_registry.adapters.host"),
        ("heddle_registry.running", "from heddle_registry.adapters.child import Child"),
        ("heddle_registry.explain", "from heddle_registry import cli"),
        ("heddle_registry.ports", "if TYPE_CHECKING:\n    from heddle_registry.codec import x"),
    ],
)
def test_an_edge_against_the_arrows_is_seen(module, source):
    assert [edge for edge in edges_of(module, source) if wrong(edge)]


def test_each_core_module_has_its_tests_and_each_test_module_its_core_module():
    modules = {path.stem for path in (PACKAGE / "core").glob("*.py")} - {"__init__"}
    tests = {
        path.stem.removeprefix("test_"): path.read_text(encoding="utf-8")
        for path in (ROOT / "tests" / "core").glob("test_*.py")
    }
    of_all_together = {"exploration", "machine_properties", "purity"}
    # A part that was split off its module's file (attach_rules, attach_order) may stay with it.
    with_its_whole = {
        module
        for module in modules
        if f"heddle_registry.core.{module} import" in tests.get(module.split("_")[0], "")
    }
    assert modules - set(tests) - with_its_whole == set()
    assert set(tests) - modules == of_all_together
