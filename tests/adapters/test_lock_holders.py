"""Whom the kernel's tables name, and whom they must not be taken to name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.lock_holders import flock_holder as holder_of
from heddle_registry.adapters.lock_holders import holder_in, open_in
from tests.process_helpers import ROOT, flock_holder, needs_proc_locks, python

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = os.makedev(0xFE, 0)


@pytest.mark.parametrize(
    ("line", "holder"),
    [
        ("1: FLOCK  ADVISORY  WRITE 4593 fe:00:2146452 0 EOF", 4593),
        ("1: FLOCK  ADVISORY  READ 4593 fe:00:2146452 0 EOF", 4593),
        ("1: -> FLOCK  ADVISORY  WRITE 4593 fe:00:2146452 0 EOF", None),  # waits for it
        ("1: POSIX  ADVISORY  WRITE 4593 fe:00:2146452 0 EOF", None),  # another kind of lock
        ("1: FLOCK  ADVISORY  WRITE 0 fe:00:2146452 0 EOF", None),  # outside our pid namespace
        ("1: FLOCK  ADVISORY  WRITE -1 fe:00:2146452 0 EOF", None),
        ("1: FLOCK  ADVISORY  WRITE 4593 fe:00:2146453 0 EOF", None),  # another file
        ("1: FLOCK  ADVISORY  WRITE 4593 fe:01:2146452 0 EOF", None),  # not seen to have it open
        ("1: FLOCK  ADVISORY  WRITE 4593 <none>:0 0 EOF", None),
        ("1: FLOCK", None),
        ("", None),
    ],
)
def test_only_a_visible_holder_of_that_very_file_is_named(line: str, holder: int | None) -> None:
    assert holder_in([line], DEVICE, 2146452) == holder


@needs_proc_locks
def test_a_holder_is_named_under_another_device_number_if_it_has_the_file_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    with flock_holder(path) as child:
        state = path.stat()
        assert holder_of(state.st_dev, state.st_ino) == child.pid
        elsewhere = f"1: FLOCK  ADVISORY  WRITE {child.pid} 00:2f:{state.st_ino} 0 EOF"
        assert holder_in([elsewhere], state.st_dev, state.st_ino) == child.pid
    assert holder_of(state.st_dev, state.st_ino) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_who_has_a_file_open_is_found_and_readers_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    code = "import sys; f = open(sys.argv[1], sys.argv[2]); print('open', flush=True); input()"
    with python(code, path, "r") as reader, python(code, path, "r+") as writer:
        assert reader.line() == writer.line() == "open"
        state = path.stat()
        assert open_in(state.st_dev, state.st_ino) == tuple(sorted([reader.pid, writer.pid]))
        assert open_in(state.st_dev, state.st_ino, writable=True) == (writer.pid,)


def _can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )


@needs_proc_locks
@pytest.mark.skipif(not _can_unshare(), reason="no private pid namespace to be had")
def test_from_an_inner_pid_namespace_no_outer_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = """if True:
        import sys
        from heddle_registry.adapters.flock import DirectoryLock
        from heddle_registry.errors import LockTimeout
        try:
            DirectoryLock(sys.argv[1]).acquire(0.02)
        except LockTimeout as error:
            print(error.holder_pid)
        """
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    with flock_holder(path):
        inner = subprocess.run(
            [*unshare, sys.executable, "-c", code, str(tmp_path)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert inner.stdout.strip() == "None"
