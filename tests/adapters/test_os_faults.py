"""What a user is told about an OSError."""

from __future__ import annotations

import errno
import os
import pickle
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.os_faults import unavailable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "code",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM),
        *(errno.ENOENT, errno.EXDEV, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EMFILE),
    ],
)
def test_every_likely_cause_says_what_happened_where_and_what_to_do(code: int) -> None:
    error = unavailable("/somewhere/agents/a.toml", OSError(code, os.strerror(code)), "write it")
    assert str(error).startswith("/somewhere/agents/a.toml: could not write it: ")
    assert "nothing was changed" in error.message
    assert error.hint
    assert error.errno == code
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_unheard_of_cause_is_given_in_the_systems_words() -> None:
    error = unavailable("/a", OSError(errno.EDEADLK, "Resource deadlock avoided"), "write it")
    assert "Resource deadlock avoided" in str(error)


def test_a_missing_permission_names_the_owner_of_what_exists(tmp_path: Path) -> None:
    deep = str(tmp_path / "not" / "there")
    hint = unavailable(deep, PermissionError(errno.EACCES, "no"), "write it").hint
    assert f"{tmp_path} belongs to " in hint
    assert "mode 0700" in hint
