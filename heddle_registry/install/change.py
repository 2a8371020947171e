"""A change to files that are not ours: planned, shown, then made; each file is replaced at once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.record import Record
from heddle_registry.errors import StoreUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o755


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FileChange(Record):
    """One file before and after; None where it does not exist."""

    path: str
    """As the user knows it; a link's target is what changes."""
    before: bytes | None
    after: bytes | None
    mode: int = _FILE_MODE
    """Of a file that is made. One that is there keeps its own."""
    remove_folders: int = 0
    """How many folders above go with the file, where nothing else is in them."""
    moved_from: str | None = None
    """Where the file, or link, comes from: it is moved as it is, and nothing else is done."""

    @property
    def is_change(self) -> bool:
        """Whether anything happens."""
        return self.before != self.after or self.moved_from is not None

    def diff(self) -> str:
        """Return the change as a unified diff, empty where there is none."""
        from difflib import unified_diff

        if not self.is_change:
            return ""
        if self.moved_from is not None:
            return f"rename from {self.moved_from}\nrename to {self.path}\n"
        lines = unified_diff(
            _lines(self.before),
            _lines(self.after),
            "/dev/null" if self.before is None else self.path,
            "/dev/null" if self.after is None else self.path,
        )
        return "".join(
            line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
            for line in lines
        )


def _lines(data: bytes | None) -> list[str]:
    return (data or b"").decode("utf-8", "replace").splitlines(keepends=True)


def read_settings(path: str) -> bytes | None:
    """Return what a settings file holds; None where there is none.

    :raises UsageError: it is no regular file.
    :raises StoreUnavailable: it cannot be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path} is no file", "Nothing was changed")
            return file.read()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", "Nothing was changed") from None
    except OSError as error:
        raise StoreUnavailable(
            path, f"it cannot be read ({error.strerror})", errno=error.errno
        ) from None


def missing_folders(path: str) -> int:
    """Return how many folders would have to be made for the file ``path``."""
    count = 0
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.lexists(folder):
        count += 1
        folder = os.path.dirname(folder)
    return count


def apply(changes: Iterable[FileChange]) -> None:
    """Make the changes in order.

    :raises StoreUnavailable: a file cannot be written; those before it are changed.
    :raises UsageError: somebody changed a file since it was read; it was left alone.
    """
    for change in changes:
        if not change.is_change:
            continue
        if change.moved_from is not None:
            _move(change.moved_from, change.path)
            continue
        target = os.path.realpath(change.path)
        if read_settings(target) != change.before:
            raise UsageError(f"{change.path} was changed meanwhile", "Try again")
        try:
            if change.after is None:
                _remove(target, change.remove_folders)
            else:
                _replace(target, change.after, change.mode)
        except OSError as error:
            why = f"it cannot be changed ({error.strerror})"
            raise StoreUnavailable(change.path, why, errno=error.errno) from error


def _move(source: str, target: str) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{target} is in the way", "Try again")
    try:
        os.rename(source, target)
    except OSError as error:
        why = f"it cannot be moved ({error.strerror})"
        raise StoreUnavailable(source, why, errno=error.errno) from error


def _remove(target: str, folders: int) -> None:
    os.unlink(target)
    folder = os.path.dirname(target)
    for _ in range(folders):
        try:
            os.rmdir(folder)
        except OSError:
            return  # something else is in it by now
        folder = os.path.dirname(folder)


def _replace(target: str, data: bytes, mode: int) -> None:
    folder = os.path.dirname(target)
    os.makedirs(folder, _FOLDER_MODE, exist_ok=True)
    temp = os.path.join(folder, f".{os.path.basename(target)}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            found = _stat(target)
            if found is not None and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                _keep_owner(fd, found)
            os.fchmod(fd, stat.S_IMODE(found.st_mode) if found is not None else mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temp, target)
    except BaseException:
        os.unlink(temp)
        raise


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _keep_owner(fd: int, found: os.stat_result) -> None:
    for owner, group in ((found.st_uid, found.st_gid), (-1, found.st_gid)):
        try:
            os.fchown(fd, owner, group)
        except PermissionError:
            continue
        return
