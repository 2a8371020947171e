from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from heddle_registry.adapters.lock_trial import lock_fault

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_system_that_locks_passes_and_nothing_is_left_locked(tmp_path: Path) -> None:
    for _ in range(2):
        assert lock_fault(str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_trial_is_no_fault(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert lock_fault(str(tmp_path)) is None
    finally:
        os.close(fd)


def test_locks_that_exclude_nobody_or_do_not_exist_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert "two descriptors" in (lock_fault(str(tmp_path)) or "")

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "does not lock" in (lock_fault(str(tmp_path)) or "")
