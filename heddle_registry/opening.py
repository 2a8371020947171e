"""The one place where ports meet adapters: what a registry uses when it is told nothing else."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.adapters.reading import Progress
    from heddle_registry.ports import Host, Store


@cache
def local_host() -> Host:
    """Return this machine: one object for all, since it keeps nothing of its own."""
    from heddle_registry.adapters.host import LocalHost

    return LocalHost()


def directory_store(
    heddle_dir: str | os.PathLike[str],
    host: Host,
    lock_timeout_s: float | None,
    on_rebuild: Callable[[], Progress] | None = None,
) -> Store:
    """Return the store in ``heddle_dir``; nothing is made until something is written.

    :param on_rebuild: makes whom to tell how far the rebuild of a lost index is
    """
    from heddle_registry.adapters.directory import DirectoryStore

    return DirectoryStore(
        os.fspath(heddle_dir), host, lock_timeout_s=lock_timeout_s, on_rebuild=on_rebuild
    )


def memory_store(host: Host) -> Store:
    """Return an empty store in this process's memory."""
    from heddle_registry.adapters.memory import MemoryStore

    return MemoryStore(host)


def find_heddle_dir(start: str | None = None, *, explicit: str | None = None) -> str:
    """Return where the registry of ``start`` lies, whether or not it is there yet.

    ``explicit``, else ``$HEDDLE_DIR``, else the nearest ``.heddle/`` upward, else beside the main
    worktree of the git repository, so that linked worktrees share one registry.

    :raises UsageError: none of these exists.
    """
    from heddle_registry.adapters.location import find_heddle_dir as find

    return find(start, explicit=explicit)
