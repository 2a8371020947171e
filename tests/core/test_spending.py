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
