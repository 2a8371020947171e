"""Files that are either the old one or the new one, whatever fails: write, replace, remove, read.

The order is: temporary file (on the same file system) → write → fsync → rename → fsync of the
folder. Everything before the rename fails as ``StoreUnavailable`` with the old content in place
and the temporary file gone. Everything after it is ``OutcomeUnknown``: the new content is visible
and may or may not survive a power loss. A file that failed its fsync is never synced again: the
kernel may have dropped the data and report success the second time.

Temporary files are made only by whoever holds the store's lock, so whoever holds it may remove
every one it finds (`sweep_temps`). Nothing here takes a lock, keeps state or starts anything; every
function blocks on the disk. Only ``os`` is imported: this lies under every command.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    R = TypeVar("R")

# None says O_CLOEXEC: Python never lets a descriptor of its own go into another program.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_TEMP_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
_READ_FLAGS = (
    os.O_RDONLY
    | _NOFOLLOW
    | _BINARY
    # A FIFO or a terminal in a record's place must neither hang us nor become ours.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)
PRIVATE_MODE = 0o600
_GROUP_ACCESS = stat.S_IRGRP | stat.S_IWGRP


class UnreadableFile(Exception):
    """`read_file` found something that is no record. Not for users: the store reports it.

    ``code`` is one of ``link``, ``folder``, ``special`` (FIFO, socket, device), ``too_large``,
    ``no_permission``, ``io``; ``message`` says the same for people; ``errno`` is None where
    no call failed.
    """

    def __init__(self, path: str, code: str, message: str, errno: int | None = None) -> None:
        self.path = path
        self.code = code
        self.message = message
        self.errno = errno

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def folder_mode(folder: os.stat_result) -> int:
    """Return the mode of a file in that folder: 0600, plus the folder's own group read and write.

    A private folder (0700) gives 0600, one readable for its group (0750, 0755) 0640, a shared one
    (0770, 02775) 0660. Others never get anything: records name prompts, paths and processes.
    """
    return PRIVATE_MODE | (folder.st_mode & _GROUP_ACCESS)


def apply_folder_policy(fd: int, folder: os.stat_result) -> None:
    """Give a file just made with mode 0600 the mode and, where shared, the group of its folder.

    By descriptor, because the umask of the process has nothing to say about a shared folder. A
    group that may not be set (the caller is no member) is left: the mode then gives it nothing
    that its own group had not.

    :raises OSError: as ``os.fchmod`` does
    """
    wanted = folder_mode(folder)
    if wanted == PRIVATE_MODE or not hasattr(os, "fchmod"):
        return
    if os.fstat(fd).st_gid != folder.st_gid:
        try:
            os.fchown(fd, -1, folder.st_gid)
        except PermissionError:
            return
    os.fchmod(fd, wanted)


def replace_file(
    dir_path: str,
    name: str,
    data: bytes,
    *,
    tmp_dir: str,
    durable_dir: bool = True,
) -> None:
    """Make ``dir_path/name`` hold ``data``: readers see the old content or all of the new.

    ``tmp_dir`` lies on the same file system, is made when missing, and the caller holds the
    store's lock. Its mode is `folder_mode`. With ``durable_dir=False`` the last step is left out;
    the caller does it with `sync_folder`, or does without where losing the change to a power
    loss is harmless. A link, folder or FIFO under that name is never replaced.

    :raises StoreUnavailable: nothing was changed; ``errno`` and the hint say why
    :raises OutcomeUnknown: the new content is visible and may not be durable
    """
    path = os.path.join(dir_path, name)
    temp = os.path.join(tmp_dir, f".{name}.{os.urandom(8).hex()}.tmp")
    fd: int | None = None
    try:
        folder = os.stat(dir_path)
        _refuse_to_replace(path)
        fd = _open_temp(temp, tmp_dir)
        apply_folder_policy(fd, folder)
        _write_all(fd, data)
        _uninterrupted(_sync_file, fd)
        closing, fd = fd, None
        os.close(closing)
    except BaseException as error:
        _discard(temp, fd)
        if isinstance(error, OSError):
            raise _unavailable(path, error, "write the new content") from error
        raise
    try:
        _rename(temp, path)
    except BaseException as error:
        # One that cannot be looked for may be gone as well.
        renamed = isinstance(error, OSError) and not os.path.lexists(temp)
        _discard(temp, None)
        if not isinstance(error, OSError):
            raise
        if renamed:
            # A network file system may perform a rename and lose the answer.
            raise _outcome_unknown(path, error, "renaming it") from error
        raise _unavailable(path, error, "put the new content in place") from error
    if durable_dir:
        sync_folder(dir_path, changed=path)


def remove_file(dir_path: str, name: str, *, durable_dir: bool = True) -> bool:
    """Remove ``dir_path/name`` durably; False when there was none. Folders are refused.

    :raises StoreUnavailable: nothing was changed
    :raises OutcomeUnknown: the file is gone, but may come back after a power loss
    """
    path = os.path.join(dir_path, name)
    try:
        _uninterrupted(os.unlink, path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unavailable(path, error, "remove it") from error
    if durable_dir:
        sync_folder(dir_path, changed=path)
    return True


def sync_folder(dir_path: str, *, changed: str | None = None) -> None:
    """Make the renames and removals in a folder durable; ``changed`` is the path an error names.

    Does nothing on Windows, which cannot open a folder.

    :raises OutcomeUnknown: any step failed; what was changed is visible already
    """
    if sys.platform == "win32":
        return
    try:
        fd = _uninterrupted(os.open, dir_path, os.O_RDONLY)
        try:
            _uninterrupted(os.fsync, fd)
        except BaseException:
            _discard(None, fd)
            raise
        os.close(fd)
    except OSError as error:
        raise _outcome_unknown(changed or dir_path, error, "syncing its folder") from error


def is_temp(name: str) -> bool:
    """Return whether `replace_file` may have made a file of that name."""
    return name.startswith(".") and name.endswith(".tmp")


def sweep_temps(tmp_dir: str) -> int:
    """Remove every temporary file and return how many went; the caller holds the store's lock.

    Only what bears a temporary file's name: the folder may be one that a link led to. Folders
    and what may not be removed are left: a left-over costs its space and nothing else.
    """
    try:
        names = os.listdir(tmp_dir)
    except OSError:
        return 0
    removed = 0
    for name in filter(is_temp, names):
        try:
            os.unlink(os.path.join(tmp_dir, name))
        except OSError:
            continue
        removed += 1
    return removed


def read_file(path: str, limit: int) -> bytes | None:
    """Return a regular file's content, None when there is no such file.

    Never follows a link, never waits for a FIFO, never reads a file of more than ``limit`` bytes.

    :raises UnreadableFile: it is something else, too large, or cannot be read
    """
    found = read_with_stat(path, limit)
    return None if found is None else found[0]


def read_with_stat(path: str, limit: int) -> tuple[bytes, os.stat_result] | None:
    """As `read_file`, with the ``fstat`` of the file that the content was read from.

    The state is from before the read: a file that is changed in place meanwhile does not match it
    later, so whoever compares looks again.
    """
    fd: int | None = None
    try:
        fd = _uninterrupted(os.open, path, _READ_FLAGS)
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_size > limit:
            raise _not_to_read(path, state, limit)
        data = _read_all(fd, state.st_size, limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        _discard(None, fd)
    if len(data) > limit:
        raise UnreadableFile(path, "too_large", f"it grew over {limit:,} bytes while being read")
    return data, state


def _refuse_to_replace(path: str) -> None:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(there.st_mode):
        raise OSError(errno.ELOOP, "is a link", path)
    if stat.S_ISDIR(there.st_mode):
        raise OSError(errno.EISDIR, "is a folder", path)
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "something that is no regular file lies there", path)


def _open_temp(temp: str, tmp_dir: str) -> int:
    try:
        return _uninterrupted(os.open, temp, _TEMP_FLAGS, PRIVATE_MODE)
    except FileNotFoundError:
        # Under the parent's policy; a setgid bit comes from the kernel.
        os.mkdir(tmp_dir, 0o700)
        if os.stat(os.path.dirname(tmp_dir)).st_mode & stat.S_IWGRP:
            mode = stat.S_IMODE(os.stat(tmp_dir).st_mode)
            os.chmod(tmp_dir, mode | stat.S_IRWXG)  # noqa: S103 - as the parent folder has it
        return _uninterrupted(os.open, temp, _TEMP_FLAGS, PRIVATE_MODE)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = _uninterrupted(os.write, fd, rest)
        rest = rest[written:]


def _read_all(fd: int, expected: int, most: int) -> bytes:
    # A file that is as long as it was said to be needs no second read to show its end.
    first = _uninterrupted(os.read, fd, min(expected + 1, most))
    if len(first) == expected or not first:
        return first
    return first + _read_up_to(fd, most - len(first))


def _read_up_to(fd: int, size: int) -> bytes:
    parts = []
    while part := _uninterrupted(os.read, fd, size):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _sync_file(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # fsync there leaves the data in the drive's cache; a few file systems know no more.
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def _rename(temp: str, path: str) -> None:
    if sys.platform == "win32":
        import time

        # It refuses while anybody, a virus scanner say, has the target open for a moment.
        for pause_s in (0.01, 0.02, 0.05, 0.1, 0.2):
            try:
                return os.replace(temp, path)
            except PermissionError:
                time.sleep(pause_s)
    return os.replace(temp, path)


def _uninterrupted(call: Callable[..., R], *args: object) -> R:
    # Python retries EINTR itself, unless what it calls is wrapped; this makes it a promise.
    while True:
        try:
            return call(*args)
        except InterruptedError:
            continue


def _discard(temp: str | None, fd: int | None) -> None:
    if fd is not None:
        try:  # noqa: SIM105 - contextlib would cost its import
            os.close(fd)
        except OSError:
            pass
    if temp is not None:
        try:  # noqa: SIM105
            os.unlink(temp)
        except OSError:
            pass  # never made, or the next holder of the lock sweeps it


def _not_to_read(path: str, state: os.stat_result, limit: int) -> UnreadableFile:
    if stat.S_ISDIR(state.st_mode):
        return UnreadableFile(path, "folder", "a folder lies where a file belongs")
    if not stat.S_ISREG(state.st_mode):
        return UnreadableFile(path, "special", "it is no regular file")
    return UnreadableFile(
        path, "too_large", f"it has {state.st_size:,} bytes; at most {limit:,} are read"
    )


def _unreadable(path: str, error: OSError) -> UnreadableFile:
    if error.errno == errno.ELOOP:
        return UnreadableFile(path, "link", "a link lies where a file belongs", error.errno)
    if error.errno == errno.ENXIO:
        return UnreadableFile(path, "special", "it is no regular file", error.errno)
    if error.errno == errno.EISDIR:
        return UnreadableFile(path, "folder", "a folder lies where a file belongs", error.errno)

    from heddle_registry.adapters.os_faults import cause

    code = "no_permission" if error.errno in (errno.EACCES, errno.EPERM) else "io"
    return UnreadableFile(path, code, f"it cannot be read: {cause(error)}", error.errno)


def _unavailable(path: str, error: OSError, doing: str) -> Exception:
    from heddle_registry.adapters.os_faults import unavailable

    return unavailable(path, error, doing)


def _outcome_unknown(path: str, error: OSError, doing: str) -> Exception:
    from heddle_registry.adapters.os_faults import cause
    from heddle_registry.errors import OutcomeUnknown

    return OutcomeUnknown(path, f"{doing} failed ({cause(error)})")
