"""Who is whose child: ancestry by native keys, and the tree under its human root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.core.entry import ActorChainNode, AgentEntry


def entries_by_actor(
    entries: Iterable[AgentEntry], is_living: Callable[[AgentEntry], bool] = lambda _: True
) -> dict[str, AgentEntry]:
    """Return the entry of each native actor key: of several, the newest living one.

    Living is Active and ``is_living``; where none lives, the newest.
    """
    best: dict[str, tuple[tuple[bool, tuple[int, int], str], AgentEntry]] = {}
    for entry in entries:
        key = entry.native_actor_key
        if key is None:
            continue
        rank = (
            entry.is_active and is_living(entry),
            entry.started_at.sort_key,
            entry.session_id,
        )
        if key not in best or rank > best[key][0]:
            best[key] = (rank, entry)
    return {key: entry for key, (_, entry) in best.items()}


def actor_chain(
    session_id: str,
    by_session: Mapping[str, AgentEntry],
    by_actor: Mapping[str, AgentEntry],
) -> tuple[ActorChainNode, ...]:
    """Return the ancestry of ``session_id``, root first, itself last; empty if it is unknown.

    A cycle ends the walk. Ancestors that were pruned come from the nodes that the youngest
    surviving entry kept of them.
    """
    current = by_session.get(session_id)
    if current is None:
        return ()
    leaf_to_root: list[ActorChainNode] = [current.chain_node()]
    seen = {current.session_id}
    while True:
        parent_key = current.native_parent_actor_key
        if parent_key is None:
            break
        parent = by_actor.get(parent_key)
        if parent is None:
            leaf_to_root += _kept_ancestors(current, parent_key, seen)
            break
        if parent.session_id in seen:
            break
        seen.add(parent.session_id)
        leaf_to_root.append(parent.chain_node())
        current = parent
    return tuple(reversed(leaf_to_root))


def _kept_ancestors(entry: AgentEntry, parent_key: str, seen: set[str]) -> Sequence[ActorChainNode]:
    nodes = entry.extension.ancestors if entry.extension is not None else ()
    if not nodes or nodes[-1].native_actor_key != parent_key:
        return ()
    return [node for node in reversed(nodes) if node.session_id not in seen]


def ancestor_nodes(
    parent: AgentEntry, entries: Mapping[str, AgentEntry]
) -> tuple[ActorChainNode, ...]:
    """Return what a new child of ``parent`` keeps of its ancestry, root first, ``parent`` last.

    ``entries``, by session id, hold the parent's living ancestors as far as they are to be found.
    """
    by_actor = entries_by_actor(entries.values())
    return actor_chain(parent.session_id, {**entries, parent.session_id: parent}, by_actor)


def are_related(one: AgentEntry, other: AgentEntry, by_actor: Mapping[str, AgentEntry]) -> bool:
    """Return whether one is the other, or its ancestor, by native keys or kept nodes."""
    by_session = {entry.session_id: entry for entry in (one, other, *by_actor.values())}
    for leaf, root in ((one, other), (other, one)):
        chain = actor_chain(leaf.session_id, by_session, by_actor)
        if any(node.session_id == root.session_id for node in chain):
            return True
    return False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ActorTreeNode(Record):
    """One entry in the tree. ``is_orphan``: it names a parent that is nowhere to be found."""

    entry: AgentEntry
    is_orphan: bool
    children: tuple[ActorTreeNode, ...]


def actor_tree(
    entries: Sequence[AgentEntry], is_living: Callable[[AgentEntry], bool] = lambda _: True
) -> tuple[ActorTreeNode, ...]:
    """Return the forest under the human root, any depth, in the order of ``entries``.

    A cycle of parents is cut at its oldest entry, so that every entry appears exactly once.
    """
    by_actor = entries_by_actor(entries, is_living)
    parent_of: dict[str, str | None] = {}
    for entry in entries:
        key = entry.native_parent_actor_key
        parent = by_actor.get(key) if key is not None else None
        is_own = parent is not None and parent.session_id == entry.session_id
        parent_of[entry.session_id] = None if parent is None or is_own else parent.session_id
    for entry in sorted(entries, key=lambda entry: (entry.started_at.sort_key, entry.session_id)):
        seen = {entry.session_id}
        above = parent_of[entry.session_id]
        while above is not None:
            if above in seen:
                if above == entry.session_id:
                    parent_of[entry.session_id] = None
                break
            seen.add(above)
            above = parent_of[above]
    children: dict[str | None, list[AgentEntry]] = {}
    for entry in entries:
        children.setdefault(parent_of[entry.session_id], []).append(entry)

    # Without recursion: a chain of thousands is a tree too.
    parents_first: list[AgentEntry] = []
    left = list(children.get(None, []))
    while left:
        entry = left.pop()
        parents_first.append(entry)
        left += children.get(entry.session_id, [])
    nodes: dict[str, ActorTreeNode] = {}
    for entry in reversed(parents_first):
        nodes[entry.session_id] = ActorTreeNode(
            entry=entry,
            is_orphan=entry.native_parent_actor_key is not None
            and parent_of[entry.session_id] is None,
            children=tuple(nodes[child.session_id] for child in children.get(entry.session_id, [])),
        )
    return tuple(nodes[entry.session_id] for entry in children.get(None, []))
