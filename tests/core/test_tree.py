"""Who is whose child: chains, kin, and the forest under the human root."""

from __future__ import annotations

import attrs

from heddle_registry.core.entry import EntryExtension
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.tree import (
    actor_chain,
    actor_tree,
    ancestor_nodes,
    are_related,
    entries_by_actor,
)
from tests.core.exploration_records import NOW
from tests.core.situations import ALICE, days_ago, new_entry


def actor(name: str, parent: str | None = None, *, days: float = 1, **changes):
    return new_entry(
        name,
        ALICE,
        native_actor_key=changes.pop("key", name),
        native_parent_actor_key=parent,
        started_at=days_ago(days),
        **changes,
    )


def ended(entry):
    return attrs.evolve(entry, status=AgentStatus.COMPLETE, completed_at=NOW.at)


def chain(session_id, entries):
    by_session = {entry.session_id: entry for entry in entries}
    nodes = actor_chain(session_id, by_session, entries_by_actor(entries))
    return [node.session_id for node in nodes]


def shown(nodes):
    return [(n.entry.session_id, n.is_orphan, shown(n.children)) for n in nodes]


def test_of_equal_keys_the_newest_living_entry_stands_for_the_actor():
    old, new = actor("old", key="k", days=3), actor("new", key="k", days=2)
    newest_but_over = ended(actor("over", key="k", days=1))
    assert entries_by_actor([old, new, newest_but_over])["k"] is new
    assert entries_by_actor([old, new], lambda e: e is old)["k"] is old
    assert entries_by_actor([ended(old), ended(new)])["k"].session_id == "new"


def test_a_chain_runs_from_the_root_to_the_leaf_and_is_empty_for_a_stranger():
    family = [actor("a"), actor("b", "a"), actor("c", "b")]
    assert chain("c", family) == ["a", "b", "c"]
    assert chain("a", family) == ["a"]
    assert chain("x", family) == []


def test_a_cycle_ends_a_chain_and_is_cut_at_its_oldest_entry_in_the_tree():
    cycle = [actor("a", "c", days=3), actor("b", "a", days=2), actor("c", "b", days=1)]
    assert chain("c", cycle) == ["a", "b", "c"]
    assert shown(actor_tree(cycle)) == [("a", True, [("b", False, [("c", False, [])])])]
    own = [actor("self", "self")]
    assert chain("self", own) == ["self"]
    assert [node.entry.session_id for node in actor_tree(own)] == ["self"]


def test_pruned_ancestors_come_from_the_nodes_that_a_survivor_kept():
    family = {e.session_id: e for e in (actor("a"), actor("b", "a"))}
    nodes = ancestor_nodes(family["b"], family)
    assert [node.session_id for node in nodes] == ["a", "b"]
    leaf = attrs.evolve(actor("c", "b"), extension=EntryExtension(ancestors=nodes))
    assert chain("c", [leaf]) == ["a", "b", "c"]
    elsewhere = attrs.evolve(leaf, native_parent_actor_key="another")
    assert chain("c", [elsewhere]) == ["c"]


def test_kin_is_up_and_down_and_not_sideways():
    a, b, c, d = family = [actor("a"), actor("b", "a"), actor("c", "b"), actor("d", "a")]
    by_actor = entries_by_actor(family)
    assert are_related(a, c, by_actor)
    assert are_related(c, a, by_actor)
    assert are_related(b, b, by_actor)
    assert not are_related(c, d, by_actor)


def test_the_forest_shows_every_entry_once_and_orphans_as_orphans():
    entries = [actor("a"), actor("lost", "gone"), actor("b", "a"), actor("c", "a")]
    assert shown(actor_tree(entries)) == [
        ("a", False, [("b", False, []), ("c", False, [])]),
        ("lost", True, []),
    ]


def test_a_chain_of_thousands_is_no_deeper_than_any_other():
    entries = [actor("n0")] + [actor(f"n{i}", f"n{i - 1}") for i in range(1, 3000)]
    assert len(chain("n2999", entries)) == 3000
    depth, nodes = 0, actor_tree(entries)
    while nodes:
        depth, nodes = depth + 1, nodes[0].children
    assert depth == 3000


def test_an_entry_without_a_key_stands_for_no_actor():
    assert entries_by_actor([actor("nameless", key=None)]) == {}


def test_whoever_hangs_below_a_cycle_keeps_its_place_below_it():
    cycle = [actor("a", "b", days=3), actor("b", "a", days=2)]
    below = [actor("c", "a", days=9), actor("d", "c", days=1)]
    family = [*cycle, *below]
    assert chain("d", family) == ["b", "a", "c", "d"]
    assert shown(actor_tree(family)) == [
        ("a", True, [("b", False, []), ("c", False, [("d", False, [])])])
    ]


def test_kept_ancestors_are_those_of_the_parent_that_is_gone_and_of_no_other():
    assert chain("lost", [actor("lost", "gone")]) == ["lost"]
    nameless = attrs.evolve(actor("x").chain_node(), native_actor_key=None)
    root = attrs.evolve(actor("root"), extension=EntryExtension(ancestors=(nameless,)))
    assert chain("root", [root]) == ["root"]
    itself = (actor("again").chain_node(), actor("p").chain_node())
    again = attrs.evolve(actor("again", "p"), extension=EntryExtension(ancestors=itself))
    assert chain("again", [again]) == ["p", "again"], "nobody is its own ancestor"


def test_strangers_are_not_related():
    a, b = actor("a"), actor("b")
    assert are_related(a, b, entries_by_actor([a, b])) is False


def test_a_child_stands_under_the_living_one_of_its_parents_entries():
    living, over = actor("living", key="p", days=3), ended(actor("over", key="p", days=1))
    child = actor("child", "p")
    assert shown(actor_tree([over, living, child])) == [
        ("over", False, []),
        ("living", False, [("child", False, [])]),
    ]
