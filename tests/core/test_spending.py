"""Sums that say what they do not know, and a tree that counts everybody once."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.entry import AgentEntry, AgentUsageSummary, EntryExtension
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.spending import (
    ActorSpending,
    Spending,
    add_up,
    by_entry,
    by_model,
    grouped,
    recorded,
    tree,
    unknown_of,
    whole,
    with_usage,
)
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.usage import UsageTotals

ENTRY = AgentEntry(
    session_id="agent-1",
    thread="main",
    base_state="0",
    started_at=Timestamp("2026-07-01T12:00:00Z"),
    status=AgentStatus.ACTIVE,
)


def spent(tokens: int, **more: Any) -> Spending:
    return Spending(totals=UsageTotals(output_tokens=tokens, known_cost_micros_usd=1), **more)


def actor(key: str | None, parent: str | None = None, tokens: int = 1) -> ActorSpending:
    return ActorSpending(actor=key, parent=parent, own=spent(tokens))


def test_a_sum_with_an_unknown_agent_is_a_lower_bound_and_says_how_many_are_unknown() -> None:
    agent = unknown_of(attrs.evolve(ENTRY, native_actor_key="acme:session:1"))
    reservation = unknown_of(ENTRY)
    sum_of_all = add_up([spent(2), agent, reservation])
    assert sum_of_all.totals is not None
    assert (sum_of_all.totals.output_tokens, sum_of_all.totals.lower_bound) == (2, True)
    assert sum_of_all.unknown == 2
    # A script's reservation need not have spent anything.
    without = add_up([spent(2), reservation])
    assert without.totals is not None
    assert not without.totals.lower_bound
    assert add_up([agent, reservation]).totals is None
    assert whole([]).totals == UsageTotals()


def test_what_nobody_told_stays_unknown_and_what_somebody_told_is_a_lower_bound() -> None:
    partly = attrs.evolve(ENTRY, usage_summary=AgentUsageSummary(output_tokens=5))
    kept = recorded(partly)
    assert kept is not None
    assert kept.totals is not None
    assert kept.untold == {
        "input_tokens",
        "tool_calls",
        "cache_creation_tokens",
        "cache_read_tokens",
    }
    assert kept.totals.lower_bound
    assert (kept.totals.reasoning_tokens, kept.totals.cost_micros_usd) == (None, None)
    assert add_up([kept, kept]).untold == kept.untold
    mixed = add_up([kept, spent(1)])
    assert mixed.totals is not None
    assert (mixed.untold, mixed.totals.lower_bound) == (frozenset(), True)
    assert recorded(ENTRY) is None


def test_an_entry_takes_its_totals_once_and_keeps_what_others_wrote_into_its_summary() -> None:
    totals = UsageTotals(
        input_tokens=1,
        cache_creation_tokens=2,
        cache_read_tokens=3,
        output_tokens=4,
        tool_calls=2**40,
        unpriced_requests=1,
    )
    before = attrs.evolve(ENTRY, usage_summary=AgentUsageSummary(unknown={"new": 1}))
    after = with_usage(before, totals)
    assert after.usage_summary == AgentUsageSummary(
        input_tokens=1,
        output_tokens=4,
        reasoning_tokens=0,
        tool_calls=2**32 - 1,
        cost_micros_usd=None,
        unknown={"new": 1},
    )
    assert after.extension == EntryExtension(cache_creation_tokens=2, cache_read_tokens=3)
    assert with_usage(after, totals) is after


def test_models_and_groups_come_largest_first_and_the_unknown_last() -> None:
    one = ActorSpending(
        harness="acme",
        own=spent(5),
        by_model={"small": UsageTotals(output_tokens=1), "big": UsageTotals(output_tokens=4)},
    )
    unknown = ActorSpending(entry=attrs.evolve(ENTRY, model="big"), own=unknown_of(ENTRY))
    nobody = ActorSpending(harness="none", own=unknown_of(ENTRY))
    assert (one.model, one.models, unknown.model) == ("big", ("big", "small"), "big")
    assert [(name, found.unknown) for name, found in by_model([nobody, one, unknown])] == [
        ("big", 1),
        ("small", 0),
        (None, 1),
    ]
    assert [name for name, _ in grouped([nobody, one], lambda its: its.harness)] == ["acme", "none"]


KEYS = st.none() | st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(KEYS, KEYS), max_size=12))
def test_in_any_tree_everybody_stands_once_and_the_roots_sum_up_to_the_whole(
    keys: list[tuple[str | None, str | None]],
) -> None:
    actors = [actor(key, parent, tokens=place + 1) for place, (key, parent) in enumerate(keys)]
    rows = tree(actors)
    assert sorted(row.actor.own.weight for row in rows) == [*range(1, len(actors) + 1)]
    assert sum(row.subtree.weight for row in rows if row.depth == 0) == sum(
        range(1, len(actors) + 1)
    )
    for place, row in enumerate(rows):
        assert (row.above is None) == (row.depth == 0)
        assert row.depth == 0 or row.depth <= rows[place - 1].depth + 1
        if row.is_orphan:
            assert row.actor.parent is not None


def test_a_chain_of_thousands_is_a_tree_and_the_living_one_of_two_entries_is_the_parent() -> None:
    chain = [actor(str(n), str(n - 1) if n else None) for n in range(3_000)]
    rows = tree(chain[::-1])
    assert rows[-1].depth == 2_999
    assert rows[0].subtree.weight == 3_000
    old, new = (attrs.evolve(actor("p"), entry=attrs.evolve(ENTRY, model=m)) for m in ("o", "n"))
    assert new.entry is not None
    child = actor("c", "p")
    (under,) = [row for row in tree([old, child, new], {"p": new.entry}) if row.depth]
    assert under.above is new


def test_an_agent_is_whoever_has_a_key_or_came_by_attaching() -> None:
    attached = attrs.evolve(ENTRY, winning_attach_rule="create-new-session")
    for entry, agents in ((ENTRY, 0), (attached, 1)):
        unknown = unknown_of(entry)
        assert (unknown.unknown, unknown.unknown_agents) == (1, agents)


def test_one_number_is_enough_to_be_told_something() -> None:
    for name in ("input_tokens", "output_tokens", "tool_calls", "reasoning_tokens"):
        for number in (0, 7):
            summary = AgentUsageSummary(**{name: number})
            kept = recorded(attrs.evolve(ENTRY, usage_summary=summary))
            assert kept is not None
            assert kept.totals is not None
            assert getattr(kept.totals, name) == number
            assert kept.totals.total_tokens == (number if name.startswith(("in", "out")) else 0)
    cached = recorded(ENTRY.extended(cache_read_tokens=3))
    assert cached is not None
    assert cached.totals is not None
    assert cached.totals.cache_read_tokens == 3
    paid = recorded(attrs.evolve(ENTRY, usage_summary=AgentUsageSummary(cost_micros_usd=9)))
    assert paid is not None
    assert paid.totals is not None
    assert (paid.totals.known_cost_micros_usd, paid.totals.unpriced_requests) == (9, 0)
    for name in ("input_tokens", "cache_read_tokens"):
        assert name in paid.untold
    unpaid = recorded(ENTRY.extended(cache_read_tokens=3))
    assert unpaid is not None
    assert unpaid.totals is not None
    assert (unpaid.totals.known_cost_micros_usd, unpaid.totals.unpriced_requests) == (0, 1)


def test_what_an_entry_keeps_is_a_lower_bound_at_an_estimated_price() -> None:
    summary = AgentUsageSummary(input_tokens=1, output_tokens=2, cost_micros_usd=5)
    told = attrs.evolve(ENTRY, usage_summary=summary)
    kept = recorded(told.extended(cache_creation_tokens=3, cache_read_tokens=4))
    assert kept is not None
    assert kept.totals is not None
    assert (kept.untold, kept.totals.lower_bound) == ({"tool_calls"}, True)
    assert (kept.totals.cost_micros_usd, kept.totals.cost_source) == (5, "estimate")
    assert kept.totals.total_tokens == 10
    assert kept.weight == 10


def test_an_entry_without_cached_tokens_gets_no_table_for_them() -> None:
    totals = UsageTotals(output_tokens=4, tool_calls=2**32 - 1)
    after = with_usage(ENTRY, totals)
    assert after.extension is None
    assert after.usage_summary.output_tokens == 4
    assert after.usage_summary.tool_calls == 2**32 - 1
    assert with_usage(after, totals) is after
    again = with_usage(with_usage(ENTRY, attrs.evolve(totals, cache_read_tokens=1)), totals)
    assert again.extension == EntryExtension(cache_creation_tokens=0, cache_read_tokens=0)


def test_a_sum_of_the_known_is_exact_and_adds_every_number() -> None:
    both = add_up([spent(2), spent(3)])
    assert both.totals is not None
    assert (both.totals.output_tokens, both.totals.lower_bound, both.unknown) == (5, False, 0)
    assert whole([actor("a"), ActorSpending(own=unknown_of(ENTRY))]).unknown == 1
    assert whole([ActorSpending(own=unknown_of(ENTRY))]).totals is None


def test_actors_come_largest_first_and_those_of_whom_nothing_is_known_last() -> None:
    unknown = ActorSpending(own=unknown_of(ENTRY))
    nothing, much = actor("n", tokens=0), actor("m", tokens=9)
    assert by_entry([unknown, nothing, much]) == [much, nothing, unknown]
    mixed = ActorSpending(by_model={None: UsageTotals(output_tokens=9), "m": UsageTotals()})
    assert (mixed.models, mixed.model) == (("m",), "m")
    assert ActorSpending().model is None
    assert not ActorSpending().is_recorded
    shares = [
        ActorSpending(harness=name, own=spent(tokens))
        for name, tokens in (("b", 1), ("a", 1), ("c", 5), ("b", 2))
    ]
    assert [(name, found.weight) for name, found in grouped(shares, lambda its: its.harness)] == [
        ("c", 5),
        ("b", 3),
        ("a", 1),
    ]
    even = [ActorSpending(harness=name, own=spent(1)) for name in ("b", "a")]
    assert [name for name, _ in grouped(even, lambda its: its.harness)] == ["a", "b"]
    twice = ActorSpending(own=spent(2), by_model={"m": UsageTotals(output_tokens=2)})
    assert [(name, found.weight) for name, found in by_model([twice, twice])] == [("m", 4)]


def shown(actors: list[ActorSpending], **chosen: AgentEntry) -> list[tuple[str | None, int, bool]]:
    return [(row.actor.actor, row.depth, row.is_orphan) for row in tree(actors, chosen)]


def test_the_tree_is_depth_first_with_the_largest_subtree_first_and_cycles_cut() -> None:
    actors = [
        actor("small", "root", tokens=1),
        actor("root", tokens=1),
        actor("big", "root", tokens=5),
        actor("leaf", "small", tokens=9),
        actor("lost", "gone", tokens=2),
        actor("self", "self", tokens=1),
    ]
    assert shown(actors) == [
        ("root", 0, False),
        ("small", 1, False),
        ("leaf", 2, False),
        ("big", 1, False),
        ("lost", 0, True),
        ("self", 0, True),
    ]
    rows = {row.actor.actor: row for row in tree(actors)}
    assert rows["root"].subtree.weight == 16
    assert rows["small"].subtree.weight == 10
    assert rows["leaf"].above is actors[0]
    assert shown([actor("b"), actor("a")]) == [("b", 0, False), ("a", 0, False)], "as they came"
    cycle = [actor("a", "b"), actor("b", "a"), actor("c", "a")]
    assert len(shown(cycle)) == 3
    assert [row.actor.actor for row in tree(cycle) if row.depth == 0] == ["a"]


def test_of_two_actors_with_one_key_the_first_is_the_parent_unless_another_is_chosen() -> None:
    old, new = (attrs.evolve(actor("p"), entry=attrs.evolve(ENTRY, model=m)) for m in ("o", "n"))
    child = actor("c", "p")
    assert old.entry is not None
    for chosen in ({}, {"p": old.entry}, {"p": attrs.evolve(ENTRY, model="third")}):
        (under,) = [row for row in tree([old, new, child], chosen) if row.depth]
        assert under.above is old
