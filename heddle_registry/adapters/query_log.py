"""Context queries that no longer fit into an entry, one JSON object a line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from heddle_registry.adapters.atomic_file import apply_folder_policy, sync_folder
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from heddle_registry.core.entry import ContextQueryEntry


def append_queries(folder: str, session_id: str, queries: tuple[ContextQueryEntry, ...]) -> None:
    """Append durably to ``folder/<session_id>.jsonl``; a failed append leaves the file as it was.

    :raises StoreUnavailable: it cannot be written.
    """
    import json

    lines = "".join(
        json.dumps({"path": q.path, "scope": q.scope, "queried_at": q.queried_at.text}) + "\n"
        for q in queries
    ).encode()
    path = os.path.join(folder, f"{session_id}.jsonl")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        is_new = not os.path.lexists(path)
        fd = os.open(path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            if is_new:
                apply_folder_policy(fd, os.stat(folder))
            try:
                if os.write(fd, lines) != len(lines):
                    raise OSError(28, "No space left on device")  # noqa: TRY301
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreUnavailable(
            path, f"a query cannot be appended ({error.strerror})", errno=error.errno
        ) from error
    if is_new:
        sync_folder(folder, changed=path)
