"""Context queries that no longer fit into an entry, one JSON object a line."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.atomic_file import apply_folder_policy, sync_folder
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable

if TYPE_CHECKING:
    from heddle_registry.core.entry import ContextQueryEntry

# A FIFO or a link in the log's place must neither hang us nor lead us elsewhere.
_FLAGS: Final = (
    os.O_RDWR
    | os.O_APPEND
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def append_queries(
    folder: str, session_id: str, queries: tuple[ContextQueryEntry, ...]
) -> int | None:
    """Append durably to ``folder/<session_id>.jsonl``; a failed append leaves the file as it was.

    Returns what `cut_queries` needs to take it back: the size before, None for a new file.

    :raises StoreUnavailable: it cannot be written.
    :raises OutcomeUnknown: a step failed after the lines were visible, and so did undoing it.
    """
    import json

    lines = "".join(
        json.dumps({"path": q.path, "scope": q.scope, "queried_at": q.queried_at.text}) + "\n"
        for q in queries
    ).encode()
    path = os.path.join(folder, f"{session_id}.jsonl")
    size: int | None = None
    is_touched = False
    try:
        is_new = not os.path.lexists(path)
        fd = os.open(path, _FLAGS | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o600)
        is_touched = is_new
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if is_new:
                apply_folder_policy(fd, os.stat(folder))
            else:
                size = state.st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    lines = b"\n" + lines  # a writer died in the middle of its line
            is_touched = True
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if is_touched:
            try:
                cut_queries(folder, session_id, size)
            except OSError:
                raise OutcomeUnknown(path, "a step failed, and so did undoing it") from error
        raise StoreUnavailable(
            path, f"a query cannot be appended ({error.strerror})", errno=error.errno
        ) from error
    if is_new:
        sync_folder(folder, changed=path)
    return size


def cut_queries(folder: str, session_id: str, size: int | None) -> None:
    """Take back what `append_queries` did; ``size`` is what it returned.

    :raises OSError: that failed too; some queries are then kept twice.
    """
    path = os.path.join(folder, f"{session_id}.jsonl")
    if size is None:
        os.unlink(path)
        return
    fd = os.open(path, _FLAGS)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
