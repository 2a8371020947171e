"""Read access to the files that harnesses keep in a home directory. Nothing here writes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class HomeFiles:
    """Reads regular files below the home, the working directory and moved harness folders.

    ``recorded_home`` is what the home was called where a recording was made.
    """

    def __init__(
        self,
        home: str,
        cwd: str = "",
        *,
        recorded_home: str = "",
        folders: Sequence[str] = (),
    ) -> None:
        self._home = home and os.path.normpath(home)
        self._recorded_home = recorded_home and os.path.normpath(recorded_home)
        self._roots = [r for r in (self._home, *map(os.path.normpath, (cwd, *folders))) if r != "."]

    def resolve(self, path: str) -> str | None:
        """Return where the path lies here, or None outside of what may be read."""
        if not os.path.isabs(path):
            return None
        path = os.path.normpath(path)
        if self._recorded_home and _is_below(path, self._recorded_home):
            return self._home + path[len(self._recorded_home) :]
        if any(_is_below(path, root) for root in self._roots if root):
            return path
        # A recording from elsewhere: the harness's own dot folder tells where its home ended.
        _, dot, rest = path.partition("/.")
        moved = f"{self._home}/.{rest}"
        return moved if self._home and dot and os.path.exists(moved) else None

    def read(self, path: str, *, limit: int, tail: bool = False) -> bytes | None:
        """Return up to ``limit`` bytes; None for what is no regular file or may not be read."""
        where = self.resolve(path)
        if where is None:
            return None
        try:
            descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                return None
            if tail and facts.st_size > limit:
                data = os.pread(descriptor, limit, facts.st_size - limit)
                return data.partition(b"\n")[2]
            return os.pread(descriptor, limit, 0)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder, empty where there is none."""
        where = self.resolve(path)
        try:
            return sorted(os.listdir(where)) if where else []
        except OSError:
            return []

    def modified_at(self, path: str) -> float | None:
        """Return the time of the last change in seconds of the epoch."""
        where = self.resolve(path)
        try:
            return os.stat(where).st_mtime if where else None
        except OSError:
            return None

    def database(self, path: str) -> Any:
        """Return a read-only connection to an SQLite file with its write-ahead log, or None."""
        where = self.resolve(path)
        if where is None or not os.path.isfile(where):
            return None
        import sqlite3
        from urllib.parse import quote

        # A folder that we may not write to cannot hold the shared memory of a log.
        for mode in ("mode=ro", "mode=ro&immutable=1"):
            connection = None
            try:
                connection = sqlite3.connect(f"file:{quote(where)}?{mode}", uri=True, timeout=0.2)
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
            except sqlite3.Error:
                if connection is not None:
                    connection.close()
                continue
            return connection
        return None


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
