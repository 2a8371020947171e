"""Making effects durable, in their order, all that count or none of them.

The caller holds the store's lock.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeGuard

from heddle_registry.adapters.atomic_file import remove_file, replace_file, sweep_temps
from heddle_registry.adapters.index_rows import claim_keys
from heddle_registry.adapters.liveness_file import is_held
from heddle_registry.codec import claim_to_toml, entry_to_toml, is_from_newer_schema, is_not_toml
from heddle_registry.core.transaction import KeepQueries, PutClaim, PutEntry, RemoveEntry
from heddle_registry.errors import OutcomeUnknown, RecordCorrupt, RegistryError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.adapters.folders import Folders
    from heddle_registry.adapters.index import Index, Stamps
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.transaction import Effect, Loaded

QUARANTINE_AFTER_S = 60.0
"""A file that is no TOML may be one that somebody is still writing in place."""


class Writer:
    """Writes one transaction's effects. Make one for each, under the lock."""

    def __init__(self, layout: Layout, folders: Folders, index: Index, loaded: Loaded) -> None:
        self._layout = layout
        self._folders = folders
        self._index = index
        self._loaded = loaded
        self._entries: dict[str, AgentEntry | None] = {}
        self._claims: dict[str, Claim | None] = {}
        self._moved_claims: bool = False
        self._queries: dict[str, int | None] = {}
        self._is_sure = True

    def write(self, effects: Sequence[Effect], commits: int | None) -> None:
        """Make the first ``commits`` effects (None: all) durable or none; the rest if possible.

        :raises StoreUnavailable: nothing was changed.
        :raises OutcomeUnknown: a change is visible and may not be durable.
        """
        committing = effects[:commits]
        for effect in committing:
            if rewrites_newer(effect, self._loaded):
                raise StoreUnavailable(
                    self._entry_path(effect.entry.session_id),
                    "it was written by a newer version of this program",
                    "Upgrade heddle-registry",
                )
        before = self._index.folder_stamps()
        sweep_temps(self._layout.tmp)
        try:
            self._quarantine()
            self._make_so(effects, len(committing))
        finally:
            self._stamp(before)

    def _make_so(self, effects: Sequence[Effect], commits: int) -> None:
        done: list[Effect] = []
        for number, effect in enumerate(effects):
            if number >= commits and rewrites_newer(effect, self._loaded):
                continue  # what only tidies up is left to that newer program
            try:
                self._apply(effect)
            except RegistryError as error:
                if number >= commits:
                    continue
                is_visible = isinstance(error, OutcomeUnknown)
                if is_visible and number == commits - 1:
                    raise
                visible = [*done, effect] if is_visible else done
                if not self._undo(visible) and not is_visible:
                    # A full disk may refuse the way back as well; then "unchanged" were a lie.
                    path = getattr(error, "path", self._layout.root)
                    raise OutcomeUnknown(path, "a step failed, and so did undoing it") from error
                raise
            else:
                done.append(effect)

    def _stamp(self, before: Stamps) -> None:
        if not self._is_sure:
            return  # what is there now is seen by whoever looks next: the folder's time has moved
        if self._entries or self._moved_claims:
            self._index.record(before, self._entries, self._claims, self._folders.agents.one)
        elif self._claims and before[1]:
            # A heartbeat moves no row: readers may go on trusting the set of them.
            with suppress(OSError):
                os.utime(self._layout.claims, ns=(before[1], before[1]))

    def _undo(self, done: list[Effect]) -> bool:
        # What cannot be undone is what a crash at this point would have left.
        undone = True
        for effect in reversed(done):
            try:
                match effect:
                    case PutEntry(entry):
                        before = self._loaded.entries.get(entry.session_id)
                        if before is None:
                            self._remove(entry.session_id)
                        else:
                            self._apply(PutEntry(before))
                    case PutClaim(claim):
                        kept = self._loaded.claims.get(claim.thread)
                        if kept is None:
                            self._remove_claim(claim.thread)
                        else:
                            self._apply(PutClaim(kept))
                    case KeepQueries(session_id):
                        from heddle_registry.adapters.query_log import cut_queries

                        # Without a size it was new: its folder's sync is all that can have failed.
                        size = self._queries.pop(session_id, None)
                        cut_queries(self._layout.queries, session_id, size)
                    case RemoveEntry():
                        undone = False  # its file, lock and log are gone for good
            except (RegistryError, OSError):
                undone = False
        return undone

    def _apply(self, effect: Effect) -> None:
        # Of a step that fails, or is interrupted, nobody knows here what the file says now.
        was_sure, self._is_sure = self._is_sure, False
        self._carry_out(effect)
        self._is_sure = was_sure

    def _carry_out(self, effect: Effect) -> None:
        layout = self._layout
        match effect:
            case PutEntry(entry):
                name = layout.entry_name(entry.session_id)
                self._entries[name] = entry
                replace_file(layout.agents, name, entry_to_toml(entry), tmp_dir=layout.tmp)
                self._folders.agents.remember(name, entry)
            case PutClaim(claim):
                name = layout.claim_name(claim.thread)
                layout.make_folder(layout.claims)
                known = self._claims.get(name) or self._loaded.claims.get(claim.thread)
                is_renewal = claim_keys(known) == claim_keys(claim)
                self._moved_claims |= not is_renewal
                self._claims[name] = claim
                replace_file(
                    layout.claims,
                    name,
                    claim_to_toml(claim),
                    tmp_dir=layout.tmp,
                    # A power loss that takes a renewal back takes the boot's clock with it.
                    durable_dir=not is_renewal,
                )
                self._folders.claims.remember(name, claim)
            case RemoveEntry(session_id):
                self._remove(session_id)
            case KeepQueries(session_id, queries):
                from heddle_registry.adapters.query_log import append_queries

                layout.make_folder(layout.queries)
                self._queries[session_id] = append_queries(layout.queries, session_id, queries)

    def _remove(self, session_id: str) -> None:
        layout = self._layout
        name = layout.entry_name(session_id)
        self._folders.agents.forget(name)
        self._entries[name] = None
        remove_file(layout.agents, name)
        live = os.path.join(layout.live, session_id)
        for path in (os.path.join(layout.queries, session_id + ".jsonl"), live):
            if path == live and is_held(live):
                continue  # a holder whose entry a stranger ended: its lock still speaks for it
            with suppress(OSError):
                os.unlink(path)

    def _remove_claim(self, thread: str) -> None:
        name = self._layout.claim_name(thread)
        self._folders.claims.forget(name)
        self._claims[name] = None
        remove_file(self._layout.claims, name)

    def _quarantine(self) -> None:
        # Only what says nothing at all: a file that still names a living owner keeps refusing.
        for damage in self._loaded.damage:
            if damage.thread is not None or damage.session_id is None:
                continue
            error = damage.error
            if not isinstance(error, RecordCorrupt) or not is_not_toml(error):
                continue
            name = self._layout.entry_name(damage.session_id)
            path = os.path.join(self._layout.agents, name)
            with suppress(OSError, RegistryError):
                state = os.lstat(path)
                age_s = time.time() - state.st_mtime
                if stat.S_ISREG(state.st_mode) and age_s > QUARANTINE_AFTER_S:
                    from heddle_registry.adapters.moving import kept_name, put_aside

                    put_aside(self._layout, self._layout.agents, name, kept_name(name))
            if not os.path.lexists(path):
                self._entries[name] = None

    def _entry_path(self, session_id: str) -> str:
        return os.path.join(self._layout.agents, self._layout.entry_name(session_id))


def rewrites_newer(effect: Effect, loaded: Loaded) -> TypeGuard[PutEntry]:
    """Return whether the effect would rewrite an entry of a newer program's."""
    if not isinstance(effect, PutEntry):
        return False
    stored = loaded.entries.get(effect.entry.session_id)
    return stored is not None and is_from_newer_schema(stored)
