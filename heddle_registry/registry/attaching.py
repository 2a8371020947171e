"""Where does this process belong? Gathers what the rules look at, and lets the core decide."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.attach import ATTACH_RULES, AttachDecision, AttachFacts, decide_attach
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.harness import native_id
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import MAX_ID_TRIES, check_thread, is_session_id
from heddle_registry.core.record import Record
from heddle_registry.core.transaction import Decision, Facts, IdTaken, Keys, Loaded, NeedFacts
from heddle_registry.errors import PluginFault, RegistryError, UsageError
from heddle_registry.ports.query import Query
from heddle_registry.registry.entries import UNKNOWN_BASE, no_free_id
from heddle_registry.registry.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from heddle_registry.codec.config import Settings
    from heddle_registry.core.attach import AttachRule
    from heddle_registry.core.evidence import Owner
    from heddle_registry.core.harness import Process
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.plugins import Plugins
    from heddle_registry.ports import Host, Store
    from heddle_registry.probe import Link, ProbeResult
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.surroundings import Situation


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachWish(Record):
    """What the caller says itself. ``thread`` stands before everything that is found out."""

    thread: str | None = None
    client_instance_id: str | None = None
    token: str | None = attrs.field(default=None, repr=False)


class Attacher(Transactions):
    """The door for whoever is there, over one store and host: an entry, never a claim."""

    def __init__(self, store: Store, host: Host) -> None:
        self.store = store
        self.host = host

    def attach(
        self,
        facts: AttachFacts,
        base_state: str | None = None,
        *,
        rules: Sequence[AttachRule] | None = None,
        better_reason: Callable[[AttachDecision], str | None] = lambda _: None,
        dry_run: bool = False,
    ) -> AttachDecision:
        """Return where ``facts`` belong, and write what that changes. Idempotent.

        Decided once without the lock; where that changes nothing, the lock is not taken.

        :param better_reason: asked without the lock for the sentence to keep
        :param dry_run: write nothing
        :raises UsageError: ``facts`` cannot be written down.
        """
        check_thread(facts.thread)
        asked = ATTACH_RULES if rules is None else rules
        for _ in range(MAX_ID_TRIES):
            new = AgentEntry(
                session_id=self._new_id(),
                thread=facts.thread,
                base_state=base_state or UNKNOWN_BASE,
                started_at=self.host.now().at,
                status=AgentStatus.ACTIVE,
            )
            keys = _keys_for(facts, asked, new.session_id)
            known: Facts = {}

            def decide(
                loaded: Loaded,
                now: Instant,
                known: Facts,
                new: AgentEntry = new,
                told: AttachDecision | None = None,
            ) -> Decision[AttachDecision | IdTaken] | NeedFacts:
                return decide_attach(facts, new, asked, loaded, now, known, told)

            early = self._peek(keys, decide, known)
            if early.refusal is not None:
                raise early.refusal
            if isinstance(early.answer, IdTaken) or early.answer is None:
                continue
            told = early.answer
            sentence = better_reason(told)
            if sentence:
                told = attrs.evolve(told, reason=sentence)
            if dry_run or not early.effects:
                return told

            def decide_again(
                loaded: Loaded,
                now: Instant,
                known: Facts,
                new: AgentEntry = new,
                told: AttachDecision = told,
            ) -> Decision[AttachDecision | IdTaken] | NeedFacts:
                return decide_attach(facts, new, asked, loaded, now, known, told)

            answer = self._transact(keys, decide_again, known)
            if isinstance(answer, AttachDecision):
                return answer
        raise no_free_id()


def _keys_for(facts: AttachFacts, rules: Sequence[AttachRule], new_id: str) -> Keys:
    lookups = [
        (name, value)
        for name in (
            "native_actor_key",
            "native_instance_key",
            "client_instance_id",
            "heddle_session_id",
        )
        if (value := getattr(facts, name)) is not None
    ]
    if facts.path is not None and _looks_at_folder(facts, rules):
        lookups.append(("path", facts.path))
    actors = (facts.native_actor_key, facts.native_parent_actor_key)
    return Keys(
        sessions=(facts.agent_session_id,) if facts.agent_session_id is not None else (),
        threads=(facts.thread,),
        actors=tuple(key for key in actors if key is not None),
        lookups=tuple(lookups),
        fresh_ids=(new_id,),
    )


def _looks_at_folder(facts: AttachFacts, rules: Sequence[AttachRule]) -> bool:
    return facts.native_actor_key is None or any(rule.attach_to == "path" for rule in rules)


def rules_in_force(settings: Settings | None, plugins: Plugins) -> tuple[AttachRule, ...]:
    """Return the built-in rules, the team's and the plugins', in the order they are asked.

    A plugin's rule that cannot stand costs that rule: it is left in ``plugins.faults``.

    :raises UsageError: a rule of the config files cannot stand.
    """
    from heddle_registry.core.attach_order import order_rules

    team: Sequence[AttachRule] = ()
    if settings is not None:
        from heddle_registry.codec.config import attach_rules

        team = attach_rules(settings)
    names = {rule.name for rule in team}
    offered = plugins.attach_rules()
    taken = [rule.name for rule in offered if rule.name in names]
    ordered, refused = order_rules([*team, *(rule for rule in offered if rule.name not in names)])
    for name, why in [*refused.items(), *((name, "a config file has its name") for name in taken)]:
        if name in refused and name in names:
            raise UsageError(
                f"the attach rule {name!r} cannot be used: {why}",
                "Correct it in config.toml; docs/how-to/bend-the-attach-rules.md says how",
            )
        plugins.faults.append(PluginFault(f"rule {name}", "heddle_attach_rules", why))
    return ordered


def attach_situation(
    registry: AgentRegistry,
    situation: Situation,
    plugins: Plugins,
    wish: AttachWish | None = None,
    *,
    settings: Settings | None = None,
    rules: Sequence[AttachRule] | None = None,
    result: ProbeResult | None = None,
    place: int | None = None,
    dry_run: bool = False,
) -> AttachDecision:
    """Attach whoever a situation shows: the actor whose hook it is, else the innermost one.

    :param rules: `rules_in_force` when left out
    :param result: the answer of a probe of this very situation, where there is one
    :param place: the actor's place in the chain, where it is not that one
    :raises UsageError: a rule of the config files cannot stand, or the branch cannot be written.
    """
    from heddle_registry.surroundings import probe_situation

    if result is None:
        result = probe_situation(situation, plugins)
    if rules is None:
        rules = rules_in_force(settings, plugins)
    if place is None:
        place = result.speaker if result.speaker is not None else len(result.chain) - 1
    facts = _facts(registry, situation, result, place, wish or AttachWish(), rules)
    from heddle_registry.adapters.location import head_state

    base = head_state(situation.cwd) if os.path.isdir(situation.cwd) else None
    return Attacher(registry.store, registry.host).attach(
        facts,
        base,
        rules=rules,
        better_reason=plugins.attach_reason,
        dry_run=dry_run,
    )


def _facts(
    registry: AgentRegistry,
    situation: Situation,
    result: ProbeResult,
    place: int,
    wish: AttachWish,
    rules: Sequence[AttachRule],
) -> AttachFacts:
    host, environ = registry.host, situation.environ
    link = result.chain[place] if 0 <= place < len(result.chain) else None
    above = result.chain[place - 1] if link is not None and place > 0 else None
    processes = situation.ancestors or ()
    me = host.owner_for(host.own_pid())
    named_by_run = environ.get("HEDDLE_AGENT_SESSION_ID", "")
    facts = AttachFacts(
        thread="unknown",
        path=_folder_of(situation.cwd),
        parent_harness=above.harness if above is not None else None,
        is_sub_agent=_is_inside(link, above),
        client_instance_id=native_id(wish.client_instance_id),
        heddle_session_id=native_id(environ.get("HEDDLE_SESSION_ID")),
        agent_session_id=named_by_run if is_session_id(named_by_run) else None,
        token=wish.token,
        ancestors=tuple((process.pid, process.starttime) for process in processes),
        boot_id=me.boot_id if me is not None else "",
        pid_ns=me.pid_ns if me is not None else "",
        owner=_owner(registry, situation, link),
    )
    if link is not None:
        facts = attrs.evolve(
            facts,
            harness=link.harness,
            provider=link.provider,
            model=link.model,
            thinking_level=link.thinking_level,
            native_actor_key=link.native_actor_key,
            native_parent_actor_key=link.native_parent_actor_key,
            native_instance_key=link.native_instance_key,
            probe_source=link.source,
            probe_confidence=link.confidence,
            transcript=link.transcript,
        )
    runs_under = _readable(registry, facts.agent_session_id)
    thread = wish.thread or _inherited_thread(environ.get("HEDDLE_THREAD"), runs_under, facts)
    neighbours: tuple[AgentEntry, ...] = ()
    if facts.path is not None and _looks_at_folder(facts, rules):
        neighbours = registry.look(Query(path=facts.path, active_only=True)).entries
    candidates = [*neighbours, *([runs_under] if runs_under is not None else [])]
    return attrs.evolve(
        facts,
        thread=thread or _thread_of(situation.cwd),
        agent_session_id=runs_under.session_id if runs_under is not None else None,
        here=frozenset(entry.session_id for entry in neighbours),
        gone_instances=_gone(registry, candidates, facts),
        continues=_continued(registry, situation, link, facts) if link is not None else None,
    )


def _is_inside(link: Link | None, above: Link | None) -> bool:
    """Whether both are actors of one instance of one harness."""
    return (
        link is not None
        and above is not None
        and (link.harness, link.native_instance_key) == (above.harness, above.native_instance_key)
    )


def _folder_of(cwd: str) -> str | None:
    from heddle_registry.adapters.location import find_worktree

    if not os.path.isabs(cwd):
        return None
    if not os.path.isdir(cwd):
        return cwd  # of a recording from elsewhere
    worktree = find_worktree(cwd)
    return os.path.realpath(worktree.root if worktree is not None else cwd)


def _thread_of(cwd: str) -> str:
    from heddle_registry.adapters.location import thread_of_folder

    known = thread_of_folder(cwd) if os.path.isdir(cwd) else None
    return known or f"detached/{os.path.basename(cwd.rstrip('/')) or 'unknown'}"


def _readable(registry: AgentRegistry, session_id: str | None) -> AgentEntry | None:
    if session_id is None:
        return None
    try:
        return registry.load(session_id)
    except RegistryError:
        return None  # damaged: whoever runs under it is not helped by an error here


def _inherited_thread(
    named: str | None, runs_under: AgentEntry | None, facts: AttachFacts
) -> str | None:
    # `run` sets the branch together with its session: where the one was inherited from a process
    # that is no ancestor any more, so was the other.
    if not named:
        return None
    if facts.agent_session_id is None:
        return named
    if runs_under is None or not runs_under.is_active:
        return None
    owner = runs_under.owner
    if owner is None:
        return named if runs_under.thread == named else None
    from heddle_registry.core.attach_rules import Scene

    return named if Scene(facts=facts, living=()).is_around(runs_under) else None


def _owner(registry: AgentRegistry, situation: Situation, link: Link | None) -> Owner | None:
    processes = situation.ancestors or ()
    process: Process | None = None
    if link is not None:
        process = link.process
    elif situation.is_here and len(processes) > 1:
        process = processes[1]  # no harness: whoever started this command
    if process is None:
        return None
    owner = registry.host.owner_for(process.pid)
    if owner is None or owner.start_ticks is None or owner.start_ticks != process.starttime:
        return None  # of another machine, or used again
    return owner


def _gone(
    registry: AgentRegistry, entries: Sequence[AgentEntry], facts: AttachFacts
) -> frozenset[str]:
    """Return the instance keys among ``entries`` whose process is proven gone."""
    found = set()
    for entry in entries:
        key, owner = entry.native_instance_key, entry.owner
        if key is None or key == facts.native_instance_key or owner is None:
            continue
        if (owner.boot_id, owner.pid_ns) != (facts.boot_id, facts.pid_ns):
            continue
        pid, _, ticks = key.rpartition(":process:")[2].partition("-")
        if not (pid.isdecimal() and ticks.isdecimal()):
            continue
        seen = registry.host.owner_for(int(pid))
        if seen is None or (seen.start_ticks is not None and seen.start_ticks != int(ticks)):
            found.add(key)
    return frozenset(found)


def _continued(
    registry: AgentRegistry, situation: Situation, link: Link, facts: AttachFacts
) -> str | None:
    """Return the session id that the actor goes on from: resumed, forked, or cleared."""
    key = facts.native_actor_key
    if key is None:
        return None
    for known in (key, link.continues):
        if known is not None:
            entries = registry.look(Query(native_actor_key=known)).entries
            if entries:
                return entries[0].session_id
    source = (situation.payload or {}).get("source")
    instance = facts.native_instance_key
    if facts.is_sub_agent or instance is None or source not in (None, "clear"):
        return None
    # A cleared session has nothing in common with the new one but its process.
    for entry in registry.look(Query(native_instance_key=instance)).entries:
        is_root = entry.native_parent_actor_key == facts.native_parent_actor_key
        if is_root and not entry.is_active:
            return entry.session_id
    return None
