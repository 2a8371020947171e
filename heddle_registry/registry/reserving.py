"""The doors to a claim; `registry.attempt` is what is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heddle_registry.registry.entries import EntryDoors

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.reserve import ReserveOutcome
    from heddle_registry.ports import LivenessLock
    from heddle_registry.registry.attempt import Terms
    from heddle_registry.registry.transactions import Watched


_MOST_WATCHED: Final = 256


class ReserveDoors(EntryDoors):
    """The one way to a claim."""

    _watched: dict[str, Watched]

    def _watch(self, watched: Watched) -> None:
        # So that the next heartbeat need not ask first. Only a hint, for what was seen of one
        # holder is never held against another; and only for whoever shows the token.
        if len(self._watched) >= _MOST_WATCHED:
            self._watched.clear()
        self._watched[watched.session_id] = watched

    def try_reserve_thread(self, thread: str, build: Callable[[str], AgentEntry]) -> ReserveOutcome:
        """Reserve ``thread`` with the entry that ``build(session_id)`` returns.

        The entry's ``pid`` is the owner whose death frees the branch; without one a TTL of 300 s
        does. Its ``path`` becomes the claim's folder, its ``reservation_token`` the token.
        ``build`` runs without the lock, again after an id collision, and also where the answer
        is `LiveOwner`: it must have no effects.

        :returns: `Reserved` with the token, shown only here, or `LiveOwner`.
        :raises UsageError: the entry is for another thread, not Active, or its pid does not run.
        """
        from heddle_registry.registry.attempt import Terms

        return self.attempt(thread, build, Terms(), owner_from_entry=True)[0]

    def create_generated_entry_for_thread(
        self, thread: str, build: Callable[[str], AgentEntry]
    ) -> AgentEntry:
        """Reserve ``thread`` like `try_reserve_thread`, but raise where another has it.

        :raises Held: somebody else has the branch.
        """
        from heddle_registry.core.reserve import LiveOwner
        from heddle_registry.registry.attempt import held_error

        outcome = self.try_reserve_thread(thread, build)
        if isinstance(outcome, LiveOwner):
            raise held_error(thread, outcome)
        return outcome.entry

    def reserve_on_terms(
        self,
        thread: str,
        build: Callable[[str], AgentEntry],
        terms: Terms,
        *,
        wait_s: float = 0.0,
    ) -> tuple[ReserveOutcome, LivenessLock | None]:
        """Reserve on explicit terms, waiting in line for at most ``wait_s`` seconds.

        Returns the outcome and, where ``terms`` ask for one, the liveness lock now held.
        """
        from heddle_registry.registry.waiting import reserve_in_line

        return reserve_in_line(self, thread, build, terms, wait_s)

    def attempt(
        self,
        thread: str,
        build: Callable[[str], AgentEntry],
        terms: Terms,
        *,
        owner_from_entry: bool = False,
    ) -> tuple[ReserveOutcome, LivenessLock | None]:
        """Ask once, without waiting. Not for users: `try_reserve_thread`, `reserve`."""
        from heddle_registry.registry.attempt import Asker

        asker = Asker(self.store, self.host)
        outcome = asker.attempt(thread, build, terms, owner_from_entry=owner_from_entry)
        if asker.holder is not None:
            self._watch(asker.holder)
        return outcome
