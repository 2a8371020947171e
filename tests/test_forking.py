"""A child that was forked while another OS thread imported can import, and so work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heddle_registry.forking import LATE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "heddle_registry"

HALFWAY = """if True:
    import os, signal, sys, threading, time
    from heddle_registry import AgentEntry, AgentRegistry, AgentStatus

    inside, forking = threading.Event(), threading.Event()

    class Slow:
        # The one module takes its time until after the fork would have been made.
        def find_spec(self, name, path=None, target=None):
            if name == sys.argv[2] and not inside.is_set():
                inside.set()
                forking.wait(60)
                time.sleep(0.3)

    registry = AgentRegistry(sys.argv[1])
    os.register_at_fork(before=forking.set)  # comes before ours, which was there earlier

    def reserve(branch):
        held = registry.try_reserve_thread(branch, lambda new: AgentEntry(
            session_id=new, thread=branch, base_state="b", status=AgentStatus.ACTIVE,
            started_at=registry.host.now().at, pid=os.getpid()))
        registry.heartbeat(held.entry.session_id, held.token)
        registry.release(held.entry.session_id, token=held.token)
        with registry.reserve(branch):
            pass

    sys.meta_path.insert(0, Slow())
    other = threading.Thread(target=reserve, args=("one",))
    other.start()
    assert inside.wait(60), "it was imported before"
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        reserve("two")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child waits for an import that nobody ends"
    other.join(60)
    """


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("module", ["core.renew", "core.release", "codec", "registry.scripting"])
def test_a_child_forked_in_the_middle_of_an_import_can_use_the_registry(
    tmp_path: Path, module: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HALFWAY, str(tmp_path / ".heddle"),
         f"heddle_registry.{module}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


INSIDE_SQLITE = """if True:
    import os, sys, threading, time
    from heddle_registry import AgentEntry, AgentRegistry, AgentStatus
    from heddle_registry.adapters import sqlite_forks
    from heddle_registry.adapters.index_tables import open_database

    registry = AgentRegistry(sys.argv[1])
    sqlite_forks.MOST_WAIT_S = float(sys.argv[2])
    entered, forked, left = threading.Event(), threading.Event(), []

    def reserve(branch):
        return registry.try_reserve_thread(branch, lambda new: AgentEntry(
            session_id=new, thread=branch, base_state="b", status=AgentStatus.ACTIVE,
            started_at=registry.host.now().at, pid=os.getpid()))

    def statement():
        with sqlite_forks.inside():
            entered.set()
            forked.wait(float(sys.argv[3]))
            left.append(True)

    reserve("one")
    other = threading.Thread(target=statement)
    other.start()
    assert entered.wait(60)
    child = os.fork()
    if child == 0:
        has_index = True
        try:
            open_database("file::memory:").close()
        except Exception:
            has_index = False
        granted = reserve("two").entry.thread == "two"
        found = {entry.thread for entry in registry.list()} == {"one", "two"}
        os._exit(bool(left) + 2 * has_index + 4 * granted + 8 * found)
    forked.set()
    other.join(60)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with sqlite_forks.inside():
        pass
    """


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    ("most_wait_s", "inside_s", "said"),
    [("60", "0.3", 1 + 2 + 4 + 8), ("0.01", "60", 0 + 0 + 4 + 8)],
    ids=["it is waited for", "it takes too long"],
)
def test_a_child_never_waits_for_an_os_thread_that_was_inside_sqlite(
    tmp_path: Path, most_wait_s: str, inside_s: str, said: int
) -> None:
    """Said: had it left, may the child use SQLite, was it granted, does it see both."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INSIDE_SQLITE, str(tmp_path / ".heddle"),
         most_wait_s, inside_s],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{said}\n", "")


NEVER_IN_A_CALL = {  # what other systems need, and reading what was used
    "heddle_registry.adapters.fasteners_lock", "heddle_registry.adapters.json_stream",
    "heddle_registry.adapters.procfs", "heddle_registry.adapters.psutil_host",
    "heddle_registry.adapters.usage_state",
}  # fmt: skip


def imported_in_functions(path: Path) -> set[str]:
    found = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    found.add(node.module)
                    found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_everything_that_a_call_imports_is_imported_before_a_fork() -> None:
    layers = ("adapters", "codec", "core", "registry")
    modules = {
        name
        for layer in layers
        for path in (PACKAGE / layer).glob("*.py")
        for name in imported_in_functions(path)
        if name.split(".")[:2] in [["heddle_registry", layer] for layer in layers]
        and (ROOT / (name.replace(".", "/") + ".py")).exists()
    }
    code = "import sys; from heddle_registry.forking import import_what_is_late as it; it()"
    code += "; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert modules - set(done.stdout.split()) - NEVER_IN_A_CALL == set()
    assert set(LATE) <= set(done.stdout.split())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_of_one_os_thread_pays_nothing_for_a_fork(tmp_path: Path) -> None:
    code = """if True:
        import os, sys, threading
        from heddle_registry import AgentRegistry
        AgentRegistry(sys.argv[1])
        def fork():
            child = os.fork()
            if child == 0:
                os._exit("heddle_registry.core.sweep" in sys.modules)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        alone = fork()
        done = threading.Event()
        other = threading.Thread(target=done.wait)
        other.start()
        print(alone, fork())
        done.set()
        """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / ".heddle")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0 1\n", "")
