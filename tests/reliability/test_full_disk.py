"""A disk that is really full, and one that is really mounted read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def _in_private_mounts(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _can_mount(folder: Path) -> bool:
    return (
        shutil.which("unshare") is not None
        and _in_private_mounts('mount -t tmpfs none "$1"', str(folder)).returncode == 0
    )


ATTEMPT = """if True:
    import os, subprocess, sys
    from heddle_registry.adapters.atomic_file import replace_file
    from heddle_registry.adapters.flock import DirectoryLock
    from heddle_registry.errors import StoreUnavailable
    folder = sys.argv[1]
    def attempt(data):
        try:
            replace_file(folder, "a.toml", data, tmp_dir=folder + "/tmp")
        except StoreUnavailable as error:
            return error.why.rpartition(": ")[2]
        return "done"
    os.mkdir(folder + "/tmp")
    print(attempt(b"old"))
    print(attempt(b"x" * 200_000), os.listdir(folder + "/tmp"))
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    print(attempt(b"new"), os.listdir(folder + "/tmp"))
    try:
        DirectoryLock(folder).acquire()
    except StoreUnavailable as error:
        print(error.why.rpartition(": ")[2])
    print(open(folder + "/a.toml").read())
    """


def test_a_full_disk_and_a_read_only_one_change_nothing_and_say_so(tmp_path: Path) -> None:
    if not _can_mount(tmp_path):
        pytest.skip("no private mounts to be had")
    ran = _in_private_mounts(
        'mount -t tmpfs -o size=64k none "$1"; exec "$2" -c "$3" "$1"',
        *(str(tmp_path), sys.executable, ATTEMPT),
    )
    assert ran.stdout.splitlines() == [
        "done",
        "the disk is full []",
        "the file system is read-only []",
        "the file system is read-only",
        "old",
    ], ran.stderr
