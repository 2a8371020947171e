"""What writers leave behind in a registry's folder when they are killed, and removing it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from heddle_registry.adapters.atomic_file import is_temp
from heddle_registry.adapters.folders import Folders
from heddle_registry.adapters.layout import SUFFIX
from heddle_registry.adapters.liveness_file import is_held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.flock import DirectoryLock
    from heddle_registry.adapters.layout import Layout

_RUST_TEMP: Final = ".toml.tmp-"
"""The Rust tool's temp files are ``.<id>.toml.tmp-<pid>-<nanos>-<n>``, beside the entries."""
_WAKE: Final = ".wake"
_QUERIES: Final = ".jsonl"


class LockedFolder(Protocol):
    """What is needed of the store."""

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        ...

    def lock(self) -> DirectoryLock:
        """Return the store's lock."""
        ...


def tidy(
    store: LockedFolder, lock_timeout_s: float | None, *, dry_run: bool = False
) -> tuple[str, ...]:
    """Remove what is left over, under the store's lock; return the paths below the folder.

    Temp files (only who holds the lock has any), the tickets of dead waiters, liveness locks and
    query logs of sessions that have neither an entry nor a claim. ``dry_run`` only looks, without
    the lock. What may not be removed is left, and not named.

    :raises LockTimeout: another holds the lock.
    """
    layout = store.layout
    found = tuple(leftovers(layout))
    if dry_run or not found:
        return tuple(_below(layout, path) for path in found)
    removed = []
    with store.lock().held(lock_timeout_s):
        # Looked at again: the writer of a temp file may just have been at work. And all of it
        # before anything goes: what cannot be read fails with nothing changed.
        for path in tuple(leftovers(layout)):
            try:
                os.unlink(path)
            except OSError:
                continue
            removed.append(_below(layout, path))
        for name in _names(layout.wait):
            with suppress(OSError):
                os.rmdir(os.path.join(layout.wait, name))
    return tuple(removed)


def leftovers(layout: Layout) -> Iterator[str]:
    """Yield the paths of what nobody needs; certain only under the store's lock."""
    yield from temp_files(layout)
    for folder in _names(layout.wait):
        line = os.path.join(layout.wait, folder)
        names = set(_names(line))
        for name in sorted(names):
            ticket = name.removesuffix(_WAKE)
            if ticket.isdigit() and (
                ticket not in names or not is_held(os.path.join(line, ticket))
            ):
                yield os.path.join(line, name)
    live, queries = _names(layout.live), _names(layout.queries)
    if live or queries:
        yield from _orphans(layout, live, queries)


def temp_files(layout: Layout) -> Iterator[str]:
    """Yield the paths of temp files, ours and the Rust tool's."""
    for name in filter(is_temp, _names(layout.tmp)):
        yield os.path.join(layout.tmp, name)
    for name in _names(layout.agents):
        if name.startswith(".") and _RUST_TEMP in name:
            path = os.path.join(layout.agents, name)
            if _is_file(path):
                yield path


def _orphans(layout: Layout, live: list[str], queries: list[str]) -> Iterator[str]:
    def is_here(session_id: str) -> bool:
        return os.path.lexists(os.path.join(layout.agents, session_id + SUFFIX))

    claims = Folders(layout).claims.scan()
    holders = {
        claim.record.holder.session_id
        for claim in claims
        if claim.record is not None and claim.record.holder is not None
    }
    # A free lock proves the death of a holder whose entry is gone, so it stays with the claim;
    # and a claim that cannot be read may name anybody.
    if all(claim.record is not None for claim in claims):
        for name in live:
            path = os.path.join(layout.live, name)
            if not is_here(name) and name not in holders and not is_held(path):
                yield path
    for name in queries:
        session_id = name.removesuffix(_QUERIES)
        if name != session_id and not is_here(session_id):
            yield os.path.join(layout.queries, name)


def _names(folder: str) -> list[str]:
    if os.path.islink(folder):
        return []  # what lies behind it is not ours to remove
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _below(layout: Layout, path: str) -> str:
    return os.path.relpath(path, layout.root)
