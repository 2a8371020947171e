"""The registry's look-ups: they change nothing and take no lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.limits import check_session_id
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import UsageError
from heddle_registry.ports.query import Query
from heddle_registry.registry.transactions import Transactions

if TYPE_CHECKING:
    import builtins

    from heddle_registry.core.entry import ActorChainNode, AgentEntry
    from heddle_registry.core.evidence import Verdict
    from heddle_registry.ports.query import Look


def canonical_folder(path: str | os.PathLike[str]) -> str:
    """Return ``path`` absolute and without links, whether or not it exists.

    :raises UsageError: it holds a NUL.
    """
    try:
        return os.path.realpath(path)
    except ValueError:
        raise UsageError(f"{os.fspath(path)!r} is no path") from None


class LookUps(Transactions):
    """Questions. None answers an unknown id."""

    def load(self, session_id: str) -> AgentEntry | None:
        """Return the entry; None if there is none, or it ended 7 days ago or earlier.

        :raises RecordCorrupt: its file is damaged.
        :raises StoreUnavailable: its file cannot be read.
        """
        check_session_id(session_id)
        return self.store.load(session_id)

    def list(self) -> list[AgentEntry]:
        """Return all entries but the stale, newest first.

        Unreadable files are left out; `look` reports them.
        """
        return list(self.store.look(Query()).entries)

    def look(self, query: Query | None = None) -> Look:
        """Return entries, their claims, and the files that could not be read."""
        return self.store.look(query or Query())

    def liveness_for(self, entry: AgentEntry) -> Verdict:
        """Return whether the entry's owner lives, and by what evidence.

        An ended entry is dead. A holder is judged by its claim's owner.
        """
        look = self.store.look(Query(thread=entry.thread))
        return self.verdict_on(entry, look.claims.get(entry.thread), look.now)

    def find_active_by_path(self, worktree_root: str | os.PathLike[str]) -> AgentEntry | None:
        """Return the newest living entry in that folder; both paths are made canonical."""
        return self._first_living(Query(path=canonical_folder(worktree_root), active_only=True))

    def find_active_by_heddle_session_id(self, heddle_session_id: str) -> AgentEntry | None:
        """Return the newest living entry of that heddle session."""
        return self._first_living(Query(heddle_session_id=heddle_session_id, active_only=True))

    def find_active_by_client_instance_id(self, client_instance_id: str) -> AgentEntry | None:
        """Return the newest living entry of that client instance."""
        return self._first_living(Query(client_instance_id=client_instance_id, active_only=True))

    def find_active_by_native_actor_key(self, native_actor_key: str) -> AgentEntry | None:
        """Return the newest living entry of that native actor."""
        return self._first_living(Query(native_actor_key=native_actor_key, active_only=True))

    def find_active_by_native_instance_key_at_path(
        self, native_instance_key: str, worktree_root: str | os.PathLike[str]
    ) -> AgentEntry | None:
        """Return the newest living entry with that instance key in that folder."""
        return self._first_living(
            Query(
                native_instance_key=native_instance_key,
                path=canonical_folder(worktree_root),
                active_only=True,
            )
        )

    def _first_living(self, query: Query) -> AgentEntry | None:
        # An entry whose owner is proven dead is nobody to attach to, reaped or not.
        look = self.store.look(query)
        for entry in look.entries:
            if not self.verdict_on(entry, look.claims.get(entry.thread), look.now).is_dead:
                return entry
        return None

    def actor_chain_for_session(self, session_id: str) -> builtins.list[ActorChainNode]:
        """Return the entry's ancestry by native parent keys, root first; empty if it is unknown.

        Of entries with the same native key the newest living one is the parent. Cycles end the
        walk; pruned ancestors come from what their descendants kept.
        """
        from heddle_registry.core.tree import actor_chain, entries_by_actor

        check_session_id(session_id)
        loaded, now = self.store.peek(Keys(sessions=(session_id,)))  # its ancestors too
        entries = {
            key: entry for key, entry in loaded.entries.items() if not is_stale(entry, now.at)
        }
        return list(actor_chain(session_id, entries, entries_by_actor(entries.values())))
