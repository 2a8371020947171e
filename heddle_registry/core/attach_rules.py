"""The rules by which a process finds its entry, and what they look at.

Rule 1: the rules are asked in order; the first that matches or creates decides, and each that was
asked leaves one line, ``rule:key:matched``, ``:miss``, ``:claimed`` or ``:skipped…``.
Rule 2: rules see living entries only, and *claimed* means: it has another native actor.
Rule 3: an inherited variable counts only where a live ancestor process bears it out.
Rule 4: attaching makes an entry or fills one in, never a claim.
Rule 5: this module has no process table, clock, file or environment.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.record import Record
from heddle_registry.core.token import token_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Owner

CREATE: Final = "create"
CREATE_RULE: Final = "create-new-session"
FIELDS: Final = (
    "harness", "parent_harness", "provider", "model", "thinking_level", "thread", "path",
    "native_actor_key", "native_parent_actor_key", "native_instance_key", "client_instance_id",
    "heddle_session_id", "agent_session_id",
)  # fmt: skip
"""What a team's or a plugin's rule may look at; a field that is not known is the empty text."""
TARGETS: Final = (
    CREATE, "parent", "path", "thread", "native_instance_key", "client_instance_id",
    "heddle_session_id",
)  # fmt: skip
"""Where such a rule may attach to: a new entry, the parent's, or the newest with an equal field."""


class AttachAction(StrEnum):
    """What a decision does."""

    CREATE = "create"
    """A new entry."""
    ADOPT = "adopt"
    """An entry that had no native actor gets this one."""
    ATTACH = "attach"
    """An entry that is this actor's already, or that it only joins."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachFacts(Record):
    """Who asks, as far as it is known: what a probe, the variables and the folder say.

    ``ancestors`` are the live ancestors as pid and start ticks, the asker's harness among them;
    they are of ``boot_id`` and ``pid_ns``. ``is_sub_agent``: its parent is an actor of the same
    instance of the harness. ``here`` are session ids whose folder is ``path`` by another name.
    ``gone_instances`` are native instance keys of processes that are proven gone. ``owner`` is the
    harness's process, ``continues`` the session id that this one goes on from.
    """

    thread: str
    path: str | None = None
    harness: str | None = None
    parent_harness: str | None = None
    provider: str | None = None
    model: str | None = None
    thinking_level: str | None = None
    native_actor_key: str | None = None
    native_parent_actor_key: str | None = None
    native_instance_key: str | None = None
    is_sub_agent: bool = False
    probe_source: str | None = None
    probe_confidence: float | None = None
    transcript: str | None = None
    client_instance_id: str | None = None
    heddle_session_id: str | None = None
    agent_session_id: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    ancestors: tuple[tuple[int, int | None], ...] = ()
    boot_id: str = ""
    pid_ns: str = ""
    owner: Owner | None = None
    continues: str | None = None
    here: frozenset[str] = frozenset()
    gone_instances: frozenset[str] = frozenset()

    @property
    def has_identity(self) -> bool:
        """Whether a native actor asks, be it known by its key or by its process only."""
        return self.native_actor_key is not None or self.native_instance_key is not None


@attrs.frozen(eq=False, repr=False)
class Step(Record):
    """What one rule says: the end of its line, and perhaps an entry or a wish for a new one.

    ``joins``: the entry stays another actor's. ``child_of``: if it comes to a new entry, that is
    the child of this one.
    """

    line: str
    entry: AgentEntry | None = None
    creates: bool = False
    joins: bool = False
    child_of: AgentEntry | None = None
    reason: str = ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachRule(Record):
    """One rule of a team or a plugin: where all of ``when`` match, attach to ``attach_to``.

    ``when`` maps `FIELDS` to shell patterns, ``attach_to`` is one of `TARGETS`. ``before`` or
    ``after`` names the rule beside which it stands; without either it is asked last, before
    ``create-new-session``. ``look`` is how the built-in rules decide, and no one else's.
    """

    name: str
    when: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    attach_to: str = CREATE
    reason: str = ""
    before: str | None = None
    after: str | None = None
    look: Callable[[Scene], Step] | None = attrs.field(default=None, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # A converter costs more, see `Harness`.
        object.__setattr__(self, "when", MappingProxyType(self.when))

    def ask(self, scene: Scene) -> Step:
        """Return what the rule says of ``scene``."""
        return self.look(scene) if self.look is not None else _by_pattern(self, scene)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Scene(Record):
    """What rules look at: who asks, and the living entries, newest first."""

    facts: AttachFacts
    living: tuple[AgentEntry, ...]
    seen_alive: frozenset[str] = frozenset()
    """Session ids whose owner is proven alive."""
    claims: Mapping[str, Claim] = attrs.field(factory=dict)

    @property
    def own(self) -> AgentEntry | None:
        """The entry that the asking actor has already."""
        key = self.facts.native_actor_key
        return self.newest(lambda e: e.native_actor_key == key) if key is not None else None

    def newest(self, is_wanted: Callable[[AgentEntry], bool]) -> AgentEntry | None:
        """Return the newest living entry that ``is_wanted``."""
        return next(filter(is_wanted, self.living), None)

    def by_id(self, session_id: str | None) -> AgentEntry | None:
        """Return the living entry with that id."""
        return self.newest(lambda entry: entry.session_id == session_id)

    def is_here(self, entry: AgentEntry) -> bool:
        """Whether the entry is in the asker's folder."""
        here = self.facts.path
        return here is not None and (entry.path == here or entry.session_id in self.facts.here)

    def is_around(self, entry: AgentEntry) -> bool:
        """Whether the entry's owner, or the runner that made it, is a live ancestor."""
        facts, owner = self.facts, entry.owner
        if owner is None or (owner.boot_id, owner.pid_ns) != (facts.boot_id, facts.pid_ns):
            return False
        if owner.start_ticks is None:
            return False
        runner = entry.extension.runner_pid if entry.extension is not None else None
        return any(
            (pid, ticks) == (owner.pid, owner.start_ticks)
            # The runner's own start is not recorded, but it was there before its command.
            or (pid == runner and ticks is not None and ticks <= owner.start_ticks)
            for pid, ticks in facts.ancestors
        )

    def is_claimed(self, entry: AgentEntry) -> bool:
        """Whether the entry has a native actor that is not the asking one."""
        facts = self.facts
        key, instance = entry.native_actor_key, entry.native_instance_key
        if instance is not None and instance in facts.gone_instances:
            return False
        same_instance = instance is not None and instance == facts.native_instance_key
        if key is not None:
            if facts.native_actor_key is not None:
                return key != facts.native_actor_key
            return not same_instance
        return instance is not None and not same_instance

    def is_anothers(self, entry: AgentEntry) -> bool:
        """Whether it is claimed, or belongs to a living process that is not above the asker."""
        return self.is_claimed(entry) or (
            entry.session_id in self.seen_alive
            and entry.owner is not None
            and not self.is_around(entry)
        )


def _explicit_agent(scene: Scene) -> Step:
    facts = scene.facts
    session_id = facts.agent_session_id
    if session_id is None:
        return Step("miss")
    entry = scene.by_id(session_id)
    if entry is None:
        return Step(f"{session_id}:miss")
    if not scene.is_around(entry):
        return Step(f"{session_id}:skipped-not-an-ancestor")
    own = scene.own
    if own is not None and own.session_id != session_id:
        return Step(f"{session_id}:skipped-has-its-own")
    if not facts.has_identity:
        return Step(f"{session_id}:matched", entry, joins=True, reason="it runs under this entry")
    if own is None and facts.is_sub_agent:
        # Its session is the one to adopt the entry, whichever of the two comes by first.
        return Step(f"{session_id}:skipped-sub-agent")
    if own is None and scene.is_claimed(entry):
        return Step(f"{session_id}:claimed", child_of=entry)
    return Step(f"{session_id}:matched", entry, reason="it runs under this entry")


def _explicit_heddle(scene: Scene) -> Step:
    heddle_session = scene.facts.heddle_session_id
    if heddle_session is None:
        return Step("miss")
    named = [e for e in scene.living if e.heddle_session_id == heddle_session]
    own = scene.own
    for entry in named:
        is_own = own is not None and entry.session_id == own.session_id
        if is_own or (own is None and not scene.is_anothers(entry)):
            return Step(f"{heddle_session}:matched", entry, reason="its heddle session is this")
    return Step(f"{heddle_session}:{'claimed' if named else 'miss'}")


def _native_actor(scene: Scene) -> Step:
    key = scene.facts.native_actor_key
    if key is None:
        return Step("miss")
    if scene.facts.client_instance_id is not None:
        return Step(f"{key}:skipped-client-instance")
    own = scene.own
    if own is None:
        return Step(f"{key}:miss")
    return Step(f"{key}:matched", own, reason=f"{key} has this entry")


def _client_instance(scene: Scene) -> Step:
    client = scene.facts.client_instance_id
    if client is None:
        return Step("miss")
    entry = scene.newest(lambda e: e.client_instance_id == client)
    if entry is None:
        reason = f"no living entry is of the client instance {client}"
        return Step(f"{client}:miss", creates=True, reason=reason)
    return Step(f"{client}:matched", entry, reason=f"the client instance {client} has this entry")


def _native_instance(scene: Scene) -> Step:
    facts = scene.facts
    if facts.native_actor_key is not None:
        # A session that is known by name and has no entry is new, whoever else is in its process.
        reason = f"{facts.native_actor_key} has no living entry yet"
        return Step("skipped-strong-native-key", creates=True, reason=reason)
    instance = facts.native_instance_key
    if instance is None:
        return Step("miss")
    found = [e for e in scene.living if e.native_instance_key == instance and scene.is_here(e)]
    if not found:
        return Step(f"{instance}:miss")
    keys = {e.native_actor_key for e in found if e.native_actor_key is not None}
    roots = [e for e in found if e.native_parent_actor_key not in keys or not e.native_actor_key]
    # Nobody knows which actor of the process asks: the session that it began with answers for it.
    entry = (roots or found)[-1]
    return Step(f"{instance}:matched", entry, reason=f"{instance} has this entry here")


def _current_worktree(scene: Scene) -> Step:
    if scene.facts.native_parent_actor_key is not None:
        return Step("skipped-not-a-root-actor")
    found = [e for e in scene.living if scene.is_here(e)]
    free = [e for e in found if not scene.is_anothers(e)]
    if free:
        line = f"{free[0].session_id}:matched"
        return Step(line, free[0], reason="nobody else's session is in this folder")
    if found:
        reason = "the session in this folder is another actor's"
        return Step(f"{found[0].session_id}:claimed", creates=True, reason=reason)
    return Step("miss")


def _token_sid(scene: Scene) -> Step:
    token = scene.facts.token
    holders = [c.holder for c in scene.claims.values() if c.holder is not None]
    named = next((h for h in holders if token_matches(token, h.token)), None) if token else None
    entry = scene.by_id(named.session_id) if named is not None else None
    if entry is None:
        return Step("miss")
    if scene.is_claimed(entry):
        reason = "the token's session is another actor's"
        return Step(f"{entry.session_id}:claimed", creates=True, reason=reason)
    return Step(f"{entry.session_id}:matched", entry, reason="its token was shown")


def _create(_scene: Scene) -> Step:
    return Step("matched", creates=True, reason="no living session matched")


ATTACH_RULES: Final = (
    AttachRule(name="explicit-agent-session", look=_explicit_agent),
    AttachRule(name="explicit-heddle-session", look=_explicit_heddle),
    AttachRule(name="native-actor-key", look=_native_actor),
    AttachRule(name="client-instance-id", look=_client_instance),
    AttachRule(name="native-instance-key", look=_native_instance),
    AttachRule(name="current-worktree-session", look=_current_worktree),
    AttachRule(name="token-sid", look=_token_sid),
    AttachRule(name=CREATE_RULE, look=_create),
)
"""The built-in rules in their order; the last one always decides."""


def matches_patterns(when: Mapping[str, str], facts: AttachFacts) -> bool:
    """Return whether every field has a value that its shell pattern matches, case and all."""
    from fnmatch import fnmatchcase

    return all(fnmatchcase(getattr(facts, field) or "", pattern) for field, pattern in when.items())


def _by_pattern(rule: AttachRule, scene: Scene) -> Step:
    facts, target = scene.facts, rule.attach_to
    if not matches_patterns(rule.when, facts):
        return Step("miss")
    if target == CREATE:
        own = scene.own or scene.newest(
            lambda e: (
                e.native_actor_key is None
                and e.native_instance_key is not None
                and e.native_instance_key == facts.native_instance_key
            )
        )
        if own is not None:
            # It has its new entry: asking once more must not make another.
            return Step(f"{own.session_id}:matched", own, reason=rule.reason)
        return Step(f"{CREATE}:matched", creates=True, reason=rule.reason)
    if target == "parent":
        key = facts.native_parent_actor_key
        entry = scene.newest(lambda e: key is not None and e.native_actor_key == key)
    elif target == "path":
        entry = scene.newest(scene.is_here)
    else:
        wanted = getattr(facts, target)
        entry = scene.newest(lambda e: wanted is not None and getattr(e, target) == wanted)
    if entry is None:
        return Step(f"{target}:miss")
    joins = scene.is_claimed(entry) or (scene.own is not None and scene.own != entry)
    return Step(f"{entry.session_id}:matched", entry, joins=joins, reason=rule.reason)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ruling(Record):
    """What all rules together say: the deciding rule, its step, and the line of each."""

    rule: AttachRule
    step: Step
    precedence: tuple[str, ...]
    child_of: AgentEntry | None = None


def rule_on(scene: Scene, rules: Iterable[AttachRule] = ATTACH_RULES) -> Ruling:
    """Ask ``rules`` in order; the last of them must decide."""
    lines: list[str] = []
    child_of: AgentEntry | None = None
    for rule in rules:
        step = rule.ask(scene)
        lines.append(f"{rule.name}:{step.line}")
        child_of = child_of or step.child_of
        if step.entry is not None or step.creates:
            if step.creates and rule.look is not None and rule.name != CREATE_RULE:
                rule = ATTACH_RULES[-1]  # noqa: PLW2901 - a built-in rule that ends the search
                lines.append(f"{CREATE_RULE}:matched")
            return Ruling(rule=rule, step=step, precedence=tuple(lines), child_of=child_of)
    raise ValueError("no rule decided")
