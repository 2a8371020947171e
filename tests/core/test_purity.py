"""The core reads no clock, process, file, environment or random source, and imports only errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "heddle_registry" / "core"
MODULES = sorted(CORE.glob("*.py"))

IMPURE_MODULES = {
    "asyncio", "atexit", "concurrent", "ctypes", "fcntl", "fileinput", "getpass", "glob", "io",
    "importlib", "locale", "logging", "mmap", "multiprocessing", "os", "pathlib", "platform",
    "posix", "psutil", "pwd", "random", "resource", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "sysconfig", "tempfile",
    "threading", "time", "uuid", "warnings", "weakref", "zoneinfo",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print", "eval", "exec", "compile", "__import__", "breakpoint"}
IMPURE_METHODS = {"now", "today", "utcnow", "fromtimestamp", "astimezone", "urandom", "getenv"}


def impurities(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            if node.level:
                found.append(f"line {node.lineno}: a relative import")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS:
                found.append(f"line {node.lineno}: {node.func.id}()")
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_METHODS:
            clock = isinstance(node.value, ast.Name) and node.value.id in ("datetime", "date", "os")
            if clock:
                found.append(f"line {node.lineno}: .{node.attr}")
        found += [
            f"line {node.lineno}: imports {name}"
            for name in names
            if name.split(".")[0] in IMPURE_MODULES
        ]
    return found


def foreign_imports(source: str) -> list[str]:
    allowed = ("heddle_registry.core", "heddle_registry.errors")
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "heddle_registry":
            names = [f"heddle_registry.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [
            f"line {node.lineno}: imports {name}"
            for name in names
            if name.split(".")[0] == "heddle_registry"
            and not any(name == a or name.startswith(f"{a}.") for a in allowed)
        ]
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_core_module_reads_nothing_from_outside_and_knows_nothing_of_ours_but_errors(module):
    source = module.read_text(encoding="utf-8")
    assert impurities(source) == []
    assert foreign_imports(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "def f():\n    from time import monotonic",
        "from random import randbytes",
        "import os.path as p",
        "from datetime import datetime\nx = datetime.now()",
        "x = open('a')",
        "from . import claim",
    ],
)
def test_the_check_sees_what_it_is_there_to_see(source):
    assert impurities(source)


def test_the_check_sees_an_import_of_another_layer():
    assert foreign_imports("from heddle_registry.codec import document")
    assert foreign_imports("from heddle_registry import ports")
    assert not foreign_imports("from heddle_registry.core.claim import Claim")
