"""Which moment a look speaks of: the index's, if it is right, else a scan's.

A writer is between its rename and the index for a fraction of a millisecond; under a busy one
most looks fall into that gap. So a reader that finds the folders stamped otherwise waits a moment
for the writer to pass, then brings the index up to date itself if nobody else holds the lock, and
scans only if all that fails.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from heddle_registry.adapters.flock import release_shared, try_shared
from heddle_registry.adapters.found_records import FoundRecords, Moved, Seen
from heddle_registry.adapters.record_files import is_closed
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from heddle_registry.adapters.flock import DirectoryLock
    from heddle_registry.adapters.folders import Folders
    from heddle_registry.adapters.index import Index, Stamps
    from heddle_registry.adapters.index_tables import Known
    from heddle_registry.adapters.layout import Layout

    class Progress(Protocol):
        """Is told how far a long piece of work is."""

        def __call__(self, done: int, whole: int) -> None:
            """Take note; called many times, with any unit."""

        def close(self) -> None:
            """Take note that it has ended, however it did."""


T = TypeVar("T")
_TRIES = 3
_FEW = 2_000
"""Files that may be parsed while others wait for the lock; more are parsed without it."""
_PATIENCE_S = 1.0
"""For whoever made a new index: it is worth more than a moment of waiting beside busy writers."""


class Reader:
    """Finds the records of one consistent moment. Safe for several OS threads."""

    def __init__(
        self,
        layout: Layout,
        folders: Folders,
        index: Index,
        lock: Callable[[], DirectoryLock],
        on_rebuild: Callable[[], Progress] | None = None,
    ) -> None:
        self._layout = layout
        self._folders = folders
        self._index = index
        self._lock = lock
        self._on_rebuild = on_rebuild

    def read(
        self,
        look: Callable[[FoundRecords], T],
        *,
        is_locked: bool = False,
        is_thorough: bool = False,
    ) -> T:
        """Return what ``look`` makes of the records; it may be called more than once.

        With ``is_thorough`` also by what another program wrote into a file in place, which the
        folders' stamps do not show: that costs one ``stat`` a file.

        :raises StoreUnavailable: a folder cannot be read.
        """
        seen: Seen | None = None
        if is_thorough:
            edited, seen = self._looked_over()
            if edited:
                seen = None
                if self._mend(self._lock()) is None:
                    return look(self.scanning())
        trust = self._trusted_locked if is_locked else self._trusted
        for _ in range(_TRIES):
            with suppress(Moved):
                return look(FoundRecords(self._layout, self._folders, self._index, trust, seen))
            seen = None
        # Somebody writes without end, or has mended a file in place.
        if is_locked:
            self._caught_up()
        else:
            self._mend(self._lock())
        return look(self.scanning())

    def edited(self) -> tuple[str, ...]:
        """Return the names of the entries that were changed in place since their rows were made.

        None at all where the index is not trusted: whoever asks then brings it up to date.

        :raises StoreUnavailable: the folder cannot be read.
        """
        return self._looked_over()[0]

    def _looked_over(self) -> tuple[tuple[str, ...], Seen | None]:
        # The names of what was changed in place, and all that was looked at.
        index = self._index
        for _ in range(_TRIES):
            stamps = index.folder_stamps()
            if not index.is_at(stamps):
                break
            known = index.known()
            files = self._folders.agents.stamps()
            if known is not None and index.folder_stamps() == stamps == known.meta[1:3]:
                rows = known.entries
                edited = (name for name in files if rows.get(name) != files[name])
                return tuple(sorted(edited)), Seen(stamps, files)
        return (), None

    def catch_up(self) -> bool:
        """Read every file again whose row is not of it; whether the index is right now.

        The caller holds the store's lock.
        """
        return not self._index.is_off and self._caught_up() is not None

    def scanning(self) -> FoundRecords:
        """Return records that do without the index."""
        return FoundRecords(self._layout, self._folders, self._index, lambda: None)

    def _trusted_locked(self) -> Stamps | None:
        return self._trusted(is_locked=True)

    def _trusted(self, *, is_locked: bool = False) -> Stamps | None:
        index = self._index
        if index.is_off:
            return None
        stamps = index.folder_stamps()
        if not stamps[0]:
            return None
        if index.is_at(stamps):
            self._folders.agents.tick_ns = self._folders.claims.tick_ns = index.tick_ns
            return stamps
        if is_locked:
            return self._caught_up()
        lock = self._lock()
        fd = try_shared(lock.path)
        if fd is not None:
            stamps = index.folder_stamps()
            release_shared(fd)
            if index.is_at(stamps):
                return stamps
        return self._mend(lock)

    def _mend(self, lock: DirectoryLock) -> Stamps | None:
        # Whoever cannot write here, or would have to wait, scans instead.
        if not os.access(self._layout.root, os.W_OK):
            return None
        try:
            self._layout.refuse_links()
        except RegistryError:
            return None
        fresh, known = None, self._index.known()
        if known is None:
            fresh = self._rebuilt()
            if fresh is None:
                return None
        try:
            if fresh is not None:
                lock.acquire(_PATIENCE_S)
            elif not lock.acquire(blocking=False):
                return None
        except RegistryError:
            return None
        try:
            if fresh is not None and not self._index.adopt(fresh):
                return None
            return self._caught_up(known)
        finally:
            lock.release()

    def _rebuilt(self) -> str | None:
        # One builder at a time; the others scan meanwhile, which is what they would do anyway.
        from heddle_registry.adapters.lock_file import LOCK_EX, LockFile

        builder = LockFile(self._layout.index + ".lock")
        try:
            if not builder.take(LOCK_EX, 0.0):
                return None
            return self._prepared()
        except RegistryError:
            return None
        finally:
            builder.drop()

    def _prepared(self) -> str | None:
        from heddle_registry.adapters.index_building import build_index

        progress: Progress = self._on_rebuild() if self._on_rebuild is not None else _Nobody()
        try:
            folders = self._folders
            boot_id = self._index.boot_id()
            return build_index(self._layout, folders.agents, folders.claims, boot_id, progress)
        finally:
            progress.close()

    def _caught_up(self, known: Known | None = None) -> Stamps | None:
        # Under the lock. Only what changed is read; ``known`` may be from before it was taken.
        index, folders = self._index, self._folders
        if known is None or not index.is_still(known):
            known = index.known()
        if known is None:
            if len(folders.agents.stamps()) > _FEW:
                return None
            fresh = self._prepared()
            known = index.known() if fresh is not None and index.adopt(fresh) else None
        if known is None:
            return None
        entries, gone_entries = folders.agents.changed_since(known.entries)
        claims, gone_claims = folders.claims.changed_since(known.claims)
        if any(map(is_closed, entries)) or any(map(is_closed, claims)):
            return None
        # An edit in place moves no stamp: that the index is of this moment says not that it worked.
        if not index.catch_up(known, entries, claims, gone_entries, gone_claims):
            return None
        stamps = index.folder_stamps()
        return stamps if index.is_at(stamps) else None


class _Nobody:
    # Whom progress is told where nobody asked.
    def __call__(self, done: int, whole: int) -> None: ...

    def close(self) -> None: ...
