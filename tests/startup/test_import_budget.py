"""What each command may import: names, because milliseconds are the machine's and these are ours.

Whoever adds to a set here makes every such command slower, everywhere; docs/performance.md says
what the modules cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.index_tables import tick_of
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

THIRD_PARTY = {
    "attrs", "cattrs", "fasteners", "genai_prices", "msgspec", "pluggy", "psutil", "rich", "tomli",
    "tomli_w",
}  # fmt: skip
HEAVY = {
    "argparse", "ast", "asyncio", "base64", "concurrent", "contextlib", "ctypes", "datetime",
    "decimal", "email", "enum", "fractions", "hashlib", "hmac", "http", "importlib.metadata",
    "inspect", "json", "logging", "multiprocessing", "pathlib", "pickle", "platform", "random",
    "re", "secrets", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading",
    "tomllib", "traceback", "typing", "unittest", "urllib", "uuid", "zipfile",
}  # fmt: skip
WITH_ATTRS = {"contextlib", "enum", "re", "typing"}
"""What attrs imports itself: said once, and with the version of attrs that is there."""

PARSED = {"argparse"}
RECORDS = {"attrs"}
STORE = PARSED | RECORDS | {"sqlite3", "tomli"}
JSON = {"json"}
"""Also where an entry with lists is made of its row in the index, not of its file."""

BUDGETS = {
    "why main": STORE,
    "why main --json": STORE | JSON,
    "why SESSION": STORE,
    "check main --fence 1": STORE,
    "list": STORE,
    "list --json": STORE | JSON,
    "heartbeat SESSION --token TOKEN --json": STORE | JSON,
    "heartbeat SESSION --token wrong": STORE,
    "reserve other --ttl 60": STORE - {"tomli"},
    "reserve other --owner-pid 1": STORE - {"tomli"},
    "release SESSION --token TOKEN": STORE,
    "gc": STORE,
    "--help": PARSED | {"enum", "re"},
    "list --help": PARSED | {"enum", "re"},
    "nonsense": PARSED | {"enum", "re"},
}
NOT_FOR_LOOKS = {
    f"heddle_registry.{name}"
    for name in (
        "core.attach", "core.attach_rules", "core.chain", "core.edit", "core.harness",
        "core.release", "core.sweep", "core.usage", "hookspecs", "plugins", "probe",
        "registry.attaching", "registry.reservation", "registry.scripting", "registry.waiting",
    )
}  # fmt: skip

TELL = """
import os, sys
os._exit = sys.exit  # for what comes after
from heddle_registry.__main__ import program
told = os.dup(1)
null = os.open(os.devnull, os.O_WRONLY)
for fd in (1, 2):
    os.dup2(null, fd)
try:
    program()
except SystemExit:
    pass
stand_ins = getattr(sys.modules.get("heddle_registry.deferred"), "StandIn", ())
names = [name for name, module in sys.modules.items() if not isinstance(module, stand_ins)]
os.write(told, " ".join(names).encode())
"""


def imported(words: list[str], payload: bytes = b"", *, path: str = str(ROOT)) -> set[str]:
    """Every module that a command has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", TELL, *words],
        env={**os.environ, "PYTHONPATH": path},
        input=payload,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return set(done.stdout.decode().split())


def before() -> set[str]:
    """What the interpreter and the site's own hooks import before the first line of ours."""
    code = "import os, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return set(done.stdout.decode().split())


def parsed_while_young(folder: Path) -> set[str]:
    """What it takes to read a file once more, where the system gives two changes one time.

    There no row of the index is believed that was made right after its file.
    """
    return {"tomli"} if tick_of(str(folder / "probe")) else set()


@pytest.fixture
def session(heddle: Heddle) -> tuple[str, str]:
    """The id and the token of a claim on main, with the index in place."""
    won = heddle.json("reserve", "main", "--ttl", "600")
    heddle("list")
    return won["entry"]["session_id"], won["token"]


@pytest.mark.parametrize("command", BUDGETS)
def test_a_command_imports_what_its_budget_allows_and_no_more(command, session, tmp_path):
    given = {"SESSION": session[0], "TOKEN": session[1]}
    modules = imported([given.get(word, word) for word in command.split()])
    watched = modules & (THIRD_PARTY | HEAVY)
    if "attrs" in modules:
        watched -= WITH_ATTRS
    budget = BUDGETS[command]
    if "sqlite3" in budget:
        budget, watched = (words | parsed_while_young(tmp_path) for words in (budget, watched))
    assert watched in (budget, budget | JSON if "sqlite3" in budget else budget)
    if command.split()[0] in ("why", "list", "check", "heartbeat"):
        assert modules & NOT_FOR_LOOKS == set()


def test_the_plain_heartbeat_imports_nothing_but_the_systems_own_modules(session):
    modules = imported(["heartbeat", session[0], "--token", session[1]]) - before()
    ours = {name for name in modules if name.startswith("heddle_registry")}
    assert {name.removeprefix("heddle_registry").lstrip(".") for name in ours} == {
        *("", "__main__", "beat", "plain_records", "core", "core.digest"),
        *("adapters", "adapters.atomic_file", "adapters.lock_file", "adapters.flock"),
        *("adapters.liveness_file", "adapters.procfs"),
    }
    built_in = {"_operator", "_sha2", "_sha256", "errno", "fcntl", "gc"}
    assert modules - ours <= {"__future__"} | built_in


def test_a_hook_waits_for_no_parser_of_words_tables_or_signatures(heddle, tmp_path, monkeypatch):
    info = tmp_path / "site" / "heddle_registry_codex-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: codex\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[heddle_registry]\ncodex = heddle_registry_codex\n")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins" / "codex", info.parent)))
    monkeypatch.delenv("HEDDLE_REGISTRY_PLUGINS")
    for session in ("first", "second"):  # the first finds the installed plugins
        payload = b'{"hook_event_name": "SessionStart", "session_id": "%b"}' % session.encode()
        modules = imported(["relay", "codex", "SessionStart"], payload, path=path)
    assert {entry["native_actor_key"] for entry in heddle.json("list")["entries"]} == {
        "codex:thread:first",
        "codex:thread:second",
    }
    watched = modules & (THIRD_PARTY | HEAVY) - WITH_ATTRS
    budget = {"attrs", "json", "pluggy", "sqlite3"}
    assert watched in (budget, budget | parsed_while_young(tmp_path))
    again = imported(["relay", "codex", "SessionStart"], payload, path=path)
    writers = {"adapters.writing", "core.attribution", "core.tree"}
    writers |= {"codec"} if not parsed_while_young(tmp_path) else set()
    assert again & {f"heddle_registry.{name}" for name in writers} == set()
