from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import procfs
from heddle_registry.adapters.procfs import INITIAL_PID_NS, Procfs
from heddle_registry.core.evidence import ProcessState
from tests.namespaces import PID, needs_private, run_private
from tests.process_helpers import in_fork, python, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
MACHINE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands in for what names the machine."""
    monkeypatch.setattr(procfs, "_MACHINE_ID", (str(tmp_path / "machine-id"),))
    monkeypatch.setattr(procfs, "_PRODUCT_UUID", str(tmp_path / "product_uuid"))
    procfs._constants.clear()
    yield tmp_path
    procfs._constants.clear()


def host_now() -> str:
    procfs._constants.clear()
    return Procfs().host()


def test_cloned_machines_are_told_apart_and_the_machine_id_is_not_given_away(files: Path) -> None:
    (files / "machine-id").write_text(MACHINE_ID + "\n")
    by_name = host_now()
    (files / "product_uuid").write_text("uuid-of-one\n")
    one = host_now()
    (files / "product_uuid").write_text("uuid-of-its-clone\n")
    clone = host_now()
    assert len({by_name, one, clone}) == 3
    assert all(MACHINE_ID not in name and len(name) == 32 for name in (by_name, one, clone))
    assert host_now() == clone, "the same at every look"


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_a_machine_without_an_id_is_not_taken_for_another_without_one(
    files: Path, content: str | None
) -> None:
    if content is not None:
        (files / "machine-id").write_text(content)
    (files / "product_uuid").write_text("uuid\n")
    assert host_now() == ""


def test_the_boot_id_is_the_kernels_and_a_child_reads_it_anew() -> None:
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert Procfs().boot_id() == file.read().strip()
    assert procfs._constants
    assert in_fork(lambda: dict(procfs._constants)) == {}


@needs_private(*PID)
def test_only_the_kernels_first_pid_namespace_shows_all_processes() -> None:
    first = os.readlink("/proc/self/ns/pid") == f"pid:[{INITIAL_PID_NS}]"
    assert Procfs().in_inner_pid_ns() is not first
    assert Procfs().pid_ns() in os.readlink("/proc/self/ns/pid")
    code = (
        "from heddle_registry.adapters.procfs import Procfs\n"
        "answer([Procfs().in_inner_pid_ns(), Procfs().pid_ns()])\n"
    )
    inner, name = run_private(PID, code)
    assert inner
    assert name != Procfs().pid_ns()


def test_a_program_that_was_replaced_by_an_update_keeps_its_path(tmp_path: Path) -> None:
    program = tmp_path / "agent"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    pid = os.posix_spawn(program, ["agent", "60"], os.environ)
    try:
        until(lambda: Procfs().read(pid) and Procfs().read(pid).argv == ("agent", "60"), "exec")  # type: ignore[union-attr]
        program.unlink()
        seen = Procfs().read(pid)
        assert seen is not None
        assert seen.exe == str(program)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("arguments", "argv"),
    [
        (["-c", "x", "", "two words"], ("", "two words")),
        (["-c", "x", "a", "", ""], ("a",)),
        (["-c", "x", "\udcff"], ("\udcff",)),
    ],
)
def test_arguments_are_read_as_given_but_for_empty_ones_at_the_end(
    arguments: list[str], argv: tuple[str, ...]
) -> None:
    arguments[1] = "import sys; print('up', flush=True); sys.stdin.readline()"
    with python(arguments[1], *arguments[2:]) as child:
        child.line()
        seen = Procfs().read(child.pid)
        assert seen is not None
        assert seen.argv == (sys.executable, "-c", arguments[1], *argv)


def test_a_kernel_thread_or_a_stranger_has_no_argv_and_breaks_no_listing() -> None:
    shown = [info for info in map(Procfs().read, Procfs().pids()) if info is not None]
    assert os.getpid() in {info.pid for info in shown}
    assert all(info.comm for info in shown)


@pytest.mark.parametrize("raw", [b"", b"1", b"1 (x", b"1 (x) R 1", b"1 (x) R a b", b")("])
def test_a_stat_line_that_makes_no_sense_is_hidden_never_dead(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "_read_bytes", lambda path, limit: raw)
    assert Procfs().look(os.getpid()) == (ProcessState.HIDDEN, None)
    assert Procfs().read(os.getpid()) is None
