"""One-shot reservations as scripts make them, and who asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import DEFAULT_TTL_S
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.entries import UNKNOWN_BASE
from heddle_registry.registry.looking import canonical_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from heddle_registry.core.evidence import Owner
    from heddle_registry.core.reserve import ReserveOutcome
    from heddle_registry.ports.process import ProcessInfo
    from heddle_registry.registry import AgentRegistry

RULE_RESERVED = "agent-reserve"
"""What the Rust tools print as the rule of an entry that a reservation made."""


def build_entry(
    registry: AgentRegistry,
    thread: str,
    *,
    path: str | None = None,
    task: str | None = None,
    base_state: str | None = None,
    harness: str | None = None,
) -> Callable[[str], AgentEntry]:
    """Return a builder of the entry that a reservation of ``thread`` makes."""
    base = base_state or _head_state(path or registry.host.cwd())

    def build(session_id: str) -> AgentEntry:
        return AgentEntry(
            session_id=session_id,
            thread=thread,
            path=path,
            base_state=base,
            started_at=registry.host.now().at,
            harness=harness,
            attach_reason=task,
            attach_precedence=(RULE_RESERVED,),
            winning_attach_rule=RULE_RESERVED,
            status=AgentStatus.ACTIVE,
        )

    return build


def _head_state(folder: str) -> str:
    from heddle_registry.adapters.location import head_state

    return head_state(folder) or UNKNOWN_BASE


def find_asker(
    registry: AgentRegistry, ancestors: Sequence[ProcessInfo] | None = None
) -> AgentEntry | None:
    """Return the entry of the innermost native actor among this process's living ancestors.

    A process decides, never a variable alone: sub-agents and multiplexers inherit those. Where
    several actors live in that process, its harness's plugin is asked which of them it is.
    """
    above = registry.host.ancestors() if ancestors is None else ancestors
    actors = _actors_of_nearest(registry, above)
    if len(actors) > 1:
        named = _named_by_probe(registry, actors)
        if named is not None:
            return named
    keys = {entry.native_actor_key for entry in actors}
    roots = [e for e in actors if e.native_parent_actor_key not in keys]
    # Nobody knows which of them asks: the session that the process began with answers for it.
    return min(roots or actors, key=lambda entry: entry.started_at.sort_key, default=None)


def _actors_of_nearest(
    registry: AgentRegistry, ancestors: Sequence[ProcessInfo]
) -> Sequence[AgentEntry]:
    """Return the entries with a native actor of the innermost process that has any."""
    pids = tuple(process.pid for process in ancestors)
    if not pids:
        return ()
    look = registry.look(Query(owner_pids=pids, records_owner=True, active_only=True))
    candidates = [entry for entry in look.entries if entry.native_actor_key is not None]
    for process in ancestors if candidates else ():
        seen = registry.host.owner_for(process.pid)
        actors = [
            entry
            for entry in candidates
            if entry.owner is not None and entry.owner.is_same_process(seen)
        ]
        if actors:
            return actors
    return ()


def _named_by_probe(registry: AgentRegistry, actors: Sequence[AgentEntry]) -> AgentEntry | None:
    from heddle_registry.probe import probe_host
    from heddle_registry.settings import load_settings
    from heddle_registry.surroundings import plugins_here

    settings = load_settings(getattr(registry.store, "heddle_dir", ""), registry.host.environment())
    found = probe_host(registry.host, plugins_here(registry.host, settings))
    by_key = {entry.native_actor_key: entry for entry in actors}
    named = (by_key.get(link.native_actor_key) for link in reversed(found.chain))
    return next((entry for entry in named if entry is not None), None)


def script_terms(
    registry: AgentRegistry,
    *,
    owner_pid: int | None = None,
    ttl_s: float | None = None,
    path: str | os.PathLike[str] | None = None,
    force_reason: str | None = None,
    token: str | None = None,
    default_ttl_s: float | None = None,
    detection: bool = True,
) -> Terms:
    """Return the terms of a one-shot reservation.

    ``owner_pid`` names the owner; else, with ``ttl_s``, the TTL alone decides and the harness is
    only recorded; else the harness in the ancestor chain, if its pid can be seen; else a TTL of
    ``default_ttl_s`` (300 s). This process's own pid is never recorded: it is about to exit.
    ``detection`` False looks for no harness.

    :raises UsageError: ``owner_pid`` does not run, or ``ttl_s`` is out of bounds.
    """
    ancestors = registry.host.ancestors()
    asker = find_asker(registry, ancestors)
    harness = harness_owner(registry, asker, ancestors) if detection else None
    owner: Owner | None = None
    recorded: Owner | None = None
    if owner_pid is not None:
        owner = registry.owner_for(owner_pid)
    elif ttl_s is not None:
        recorded = harness
    elif harness is not None:
        owner = harness
    else:
        ttl_s = DEFAULT_TTL_S if default_ttl_s is None else default_ttl_s
    return Terms(
        owner=owner,
        recorded_owner=recorded,
        ttl_s=ttl_s,
        path=canonical_folder(path) if path is not None else None,
        asker=asker.session_id if asker is not None else None,
        force_reason=force_reason,
        bearer=token,
    )


def harness_owner(
    registry: AgentRegistry, asker: AgentEntry | None, ancestors: Sequence[ProcessInfo]
) -> Owner | None:
    """Return the innermost harness process around this one, as an owner; None if none is seen."""
    from heddle_registry.glance import innermost_harness_pid

    pid = innermost_harness_pid(registry.host, ancestors)
    if pid is None and asker is not None and asker.owner is not None:
        pid = asker.owner.pid
    return registry.host.owner_for(pid) if pid is not None else None


def try_reserve(
    registry: AgentRegistry,
    thread: str,
    *,
    terms: Terms,
    task: str | None = None,
    base_state: str | None = None,
    wait_s: float = 0.0,
) -> ReserveOutcome:
    """Reserve ``thread`` for a script; see `script_terms`."""
    build = build_entry(registry, thread, path=terms.path, task=task, base_state=base_state)
    return registry.reserve_on_terms(thread, build, terms, wait_s=wait_s)[0]
