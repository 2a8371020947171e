"""The n-th I/O call on one folder fails, or its process dies there.

`Faults` stands before the calls of ``os``, ``fcntl.flock`` and SQLite that concern one folder,
counts them, and makes one of them fail. `Recorder` is the same without a fault: it writes down
what was called, for whoever wants to think about power cuts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BY_PATH = (
    "open", "replace", "rename", "unlink", "utime", "mkdir", "rmdir", "chmod", "stat", "lstat",
    "listdir", "scandir", "mkfifo", "access", "link", "symlink", "truncate",
)  # fmt: skip
BY_FD = (
    "write", "pwrite", "read", "pread", "fsync", "fdatasync", "close", "fstat", "fchmod", "fchown",
    "ftruncate", "dup", "set_inheritable",
)  # fmt: skip
KILL = 0
"""Instead of an errno: the process ends at that call, as by SIGKILL."""
FULL = -errno.ENOSPC
"""ENOSPC at that call and at every later one that needs space: undoing a step fails as well."""
NEEDS_SPACE = {
    "create", "write", "pwrite", "mkdir", "mkfifo", "replace", "rename", "link", "fsync",
}  # fmt: skip
FAULTS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EROFS": errno.EROFS,
    "EINTR": errno.EINTR,
    "EACCES": errno.EACCES,
    "EDQUOT": errno.EDQUOT,
    "full": FULL,
    "kill": KILL,
}
KILLED_STATUS = 87


@attrs.define
class Call:
    """One call that was made: its name, its path below the folder, and what it wrote."""

    name: str
    path: str
    to: str = ""
    data: bytes = b""
    fd: int = -1


class Faults:
    """Use as a context manager; ``calls`` are those that were made on the folder meanwhile.

    Number ``nth`` (from 1) fails with ``code``. Only the process that entered counts: a forked
    child of the operation is let alone.
    """

    def __init__(self, root: str, nth: int = 0, code: int = KILL) -> None:
        self.calls: list[Call] = []
        self.failed: Call | None = None
        self.open_fds: dict[int, str] = {}
        self._root = os.path.realpath(root)
        self._nth = nth
        self._code = code
        self._pid = os.getpid()
        self._busy = False

    @property
    def fired(self) -> bool:
        """Whether the n-th call came."""
        return self.failed is not None

    def __enter__(self) -> Self:
        self._real = {name: getattr(os, name) for name in (*BY_PATH, *BY_FD)}
        self._flock = fcntl.flock
        self._connect = sqlite3.connect
        for name in BY_PATH:
            setattr(os, name, self._by_path(name))
        for name in BY_FD:
            setattr(os, name, self._by_fd(name))
        fcntl.flock = self._locking  # type: ignore[assignment]
        sqlite3.connect = self._connecting  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        for name, call in self._real.items():
            setattr(os, name, call)
        fcntl.flock = self._flock
        sqlite3.connect = self._connect

    def _below(self, path: Any) -> str | None:
        if isinstance(path, int) or path is None:
            return None
        text = os.fsdecode(path)
        if not text.startswith(self._root):
            return None
        return text[len(self._root) :].lstrip("/") or "."

    def _meet(self, call: Call) -> None:
        if self._busy or os.getpid() != self._pid:
            return
        self.calls.append(call)
        number = len(self.calls)
        still_full = self._code == FULL and number > self._nth and call.name in NEEDS_SPACE
        if number != self._nth and not still_full:
            return
        self.failed = self.failed or call
        if self._code == KILL:
            os._exit(KILLED_STATUS)
        raise OSError(abs(self._code), os.strerror(abs(self._code)))

    def _by_path(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def called(*given: Any, **named: Any) -> Any:
            path = self._below(given[0] if given else named.get("path"))
            if path is None:
                return real(*given, **named)
            to = self._below(given[1]) if name in ("replace", "rename", "link") else None
            made = name == "open" and given[1] & os.O_CREAT
            try:
                self._meet(Call("create" if made else name, path, to or ""))
            except OSError:
                if name == "access":
                    return False  # it answers, whatever is wrong
                raise
            met = self.calls[-1] if self.calls else None
            try:
                answer = real(*given, **named)
            except OSError:
                if met is not None:
                    met.name += " (in vain)"
                raise
            if name == "open":
                self.open_fds[answer] = path
                if met is not None:
                    met.fd = answer
            return answer

        return called

    def _by_fd(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def called(fd: Any, *given: Any, **named: Any) -> Any:
            path = self.open_fds.get(fd)
            if path is None:
                return real(fd, *given, **named)
            if name == "close":
                del self.open_fds[fd]
            data = bytes(given[0]) if name in ("write", "pwrite") else b""
            try:
                self._meet(Call(name, path, data=data, fd=fd))
            except OSError:
                if name == "close":
                    real(fd)  # Linux frees the number even where close fails
                raise
            return real(fd, *given, **named)

        return called

    def _locking(self, fd: Any, operation: int) -> None:
        path = self.open_fds.get(fd)
        if path is not None:
            self._meet(Call("flock", path, fd=fd))
        self._flock(fd, operation)

    def _connecting(self, database: Any, *given: Any, **named: Any) -> sqlite3.Connection:
        def meet(what: str) -> None:
            try:
                self._meet(Call("sqlite", what))
            except OSError as error:
                raise sqlite3.OperationalError(f"disk I/O error ({error})") from None

        class Guarded(sqlite3.Connection):
            def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:  # type: ignore[override]
                meet((sql.split(maxsplit=1) or ["nothing"])[0])
                return super().execute(sql, *given)

            def executemany(self, sql: str, *given: Any) -> sqlite3.Cursor:  # type: ignore[override]
                meet((sql.split(maxsplit=1) or ["nothing"])[0])
                return super().executemany(sql, *given)

        meet("connect")
        return self._connect(database, *given, factory=Guarded, **named)


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """Yield an empty folder in memory where there is one, else on the disk."""
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="heddle-test-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def no_waiting_for_the_disk() -> Iterator[None]:
    """Leave ``fsync`` out: for tests in which no power fails."""
    real = os.fsync
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        os.fsync = real
