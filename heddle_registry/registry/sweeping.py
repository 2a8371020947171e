"""Reaping on proof of death, pruning what is stale, in small transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.limits import check_thread
from heddle_registry.core.transaction import Decision, Facts, Keys, Loaded, NeedFacts
from heddle_registry.registry.transactions import Transactions

if TYPE_CHECKING:
    from heddle_registry.core.sweep import Swept
    from heddle_registry.core.timestamp import Instant

_SWEEP_AT_ONCE = 64
"""How many entries one transaction reaps or prunes: the lock is not held for thousands."""


class SweepDoors(Transactions):
    """Whatever cleans up."""

    def reap_dead(self) -> int:
        """Abandon every Active entry whose owner is proven dead; return how many."""
        return len(self.sweep(prune=False).reaped)

    def reap_dead_for_thread(self, thread: str) -> int:
        """Do the same for one thread."""
        return len(self.sweep(thread=check_thread(thread), prune=False).reaped)

    def sweep(
        self,
        *,
        thread: str | None = None,
        prune: bool = True,
        end_expired: bool = False,
        dry_run: bool = False,
    ) -> Swept:
        """Reap on proof of death and prune what is stale, at most 64 entries a transaction.

        ``dry_run`` says what would be done and changes nothing.
        """
        from heddle_registry.core.sweep import Swept, decide_sweep

        loaded, _now = self.store.peek(
            Keys(
                all_active=True,
                all_held=True,
                all_stale=prune,
                threads=(thread,) if thread else (),
            )
        )
        candidates = [
            entry.session_id
            for entry in loaded.entries.values()
            if thread is None or entry.thread == thread
        ]
        candidates += [
            claim.holder.session_id
            for claim in loaded.claims.values()
            if claim.holder is not None and (thread is None or claim.thread == thread)
        ]
        if prune:
            candidates += loaded.stale_ids
        ids = sorted(set(candidates))
        swept = Swept()
        for start in range(0, len(ids), _SWEEP_AT_ONCE):
            some = tuple(ids[start : start + _SWEEP_AT_ONCE])
            keys = Keys(sessions=some, spares_unreadable=True)

            def decide(
                loaded: Loaded, now: Instant, facts: Facts, some: tuple[str, ...] = some
            ) -> Decision[Swept] | NeedFacts:
                pruning = loaded if prune else attrs.evolve(loaded, stale_ids=())
                return decide_sweep(
                    some, pruning, now, facts, end_expired=end_expired, only_thread=thread
                )

            facts: Facts = {}
            early = self._peek(keys, decide, facts)
            part = early.answer
            if early.effects and not dry_run:
                part = self._transact(keys, decide, facts)
            if part is not None:
                swept = Swept(
                    reaped=swept.reaped + part.reaped,
                    pruned=swept.pruned + part.pruned,
                    kept=swept.kept + part.kept,
                    ended_claims=swept.ended_claims + part.ended_claims,
                )
        return swept
