"""The decision alone: facts and living entries in, one ruling and its trace out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.attach import (
    ATTACH_RULES,
    AttachAction,
    AttachDecision,
    AttachFacts,
    AttachRule,
    decide_attach,
    is_made_by_attach,
)
from heddle_registry.core.attach_order import circular, order_rules, rule_problems
from heddle_registry.core.attach_rules import Scene, matches_patterns, rule_on
from heddle_registry.core.entry import AgentEntry, entry_problems
from heddle_registry.core.evidence import Observation, Owner, ProcessState
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.transaction import Loaded, NeedFacts, PutEntry, fact_key

NOW = Instant(at=Timestamp("2026-07-01T12:00:00Z"), awake_ns=0, boot_id="b", time_ns="")
HERE = {"boot_id": "b", "pid_ns": "n"}


def entry(
    session_id: str, *, owner: Owner | None = None, second: int = 0, **more: Any
) -> AgentEntry:
    given: dict[str, Any] = {
        "thread": "main",
        "base_state": "x",
        "started_at": Timestamp(f"2026-07-01T11:00:{second:02}Z"),
        "status": AgentStatus.ACTIVE,
        **more,
    }
    if owner is not None:
        given |= {"pid": owner.pid, "boot_id": owner.boot_id}
    made = AgentEntry(session_id=session_id, **given)
    return made.extended(owner=owner) if owner is not None else made


NEW = entry("agent-new", second=59)


def facts(**more: Any) -> AttachFacts:
    return AttachFacts(**{"thread": "main", "path": "/work", **HERE, **more})


def decide(asks: AttachFacts, *entries: AgentEntry, seen: Any = None) -> AttachDecision:
    loaded = Loaded(entries={e.session_id: e for e in entries})
    known = {
        fact_key(e.subject()): seen for e in entries if e.owner is not None or e.pid is not None
    }
    decision = decide_attach(asks, NEW, ATTACH_RULES, loaded, NOW, known)
    assert not isinstance(decision, NeedFacts)
    assert isinstance(decision.answer, AttachDecision), decision
    written = [e.entry for e in decision.effects if isinstance(e, PutEntry)]
    assert all(entry_problems(e) == [] for e in written)
    assert written in ([], [decision.answer.entry])
    return decision.answer


def test_without_anything_to_go_by_a_new_session_is_made_and_every_rule_says_why() -> None:
    decision = decide(facts())
    assert decision.precedence == (
        "explicit-agent-session:miss",
        "explicit-heddle-session:miss",
        "native-actor-key:miss",
        "client-instance-id:miss",
        "native-instance-key:miss",
        "current-worktree-session:miss",
        "token-sid:miss",
        "create-new-session:matched",
    )
    assert (decision.rule, decision.action) == ("create-new-session", AttachAction.CREATE)
    assert is_made_by_attach(decision.entry)


def test_a_named_actor_without_an_entry_never_falls_back_to_a_weaker_mark() -> None:
    near = entry("agent-near", native_instance_key="codex:process:1-1", path="/work")
    asks = facts(native_actor_key="codex:thread:t", native_instance_key="codex:process:1-1")
    decision = decide(asks, near)
    assert decision.created
    assert decision.precedence[-2:] == (
        "native-instance-key:skipped-strong-native-key",
        "create-new-session:matched",
    )
    assert decision.rule == "create-new-session"


def test_an_instance_counts_in_its_own_folder_only_and_the_first_session_answers_for_it() -> None:
    key = "codex:process:1-1"
    asks = facts(native_instance_key=key)
    root = entry("agent-root", native_instance_key=key, native_actor_key="k", path="/work")
    kid = entry(
        "agent-kid", native_instance_key=key, native_actor_key="c", native_parent_actor_key="k",
        path="/work", second=9,
    )  # fmt: skip
    assert decide(asks, kid, root).entry == root
    elsewhere = [attrs.evolve(e, path="/else") for e in (root, kid)]
    assert f"native-instance-key:{key}:miss" in decide(asks, *elsewhere).precedence
    renamed = attrs.evolve(asks, here=frozenset({"agent-root"}))
    assert decide(renamed, *elsewhere).entry.session_id == "agent-root"


def test_of_equal_keys_the_newest_living_entry_is_it() -> None:
    key = {"native_actor_key": "codex:thread:t"}
    entries = [entry(f"agent-{n}", second=n, **key) for n in (1, 3, 2)]
    assert decide(facts(**key), *entries).entry.session_id == "agent-3"
    ended = attrs.evolve(entries[1], status=AgentStatus.COMPLETE, completed_at=NOW.at)
    assert decide(facts(**key), entries[0], ended, entries[2]).entry.session_id == "agent-2"


def test_a_worktree_is_a_root_actors_to_share_and_a_childs_to_leave_alone() -> None:
    near = entry("agent-near", path="/work")
    assert decide(facts(), near).rule == "current-worktree-session"
    child = decide(facts(native_parent_actor_key="k"), near)
    assert "current-worktree-session:skipped-not-a-root-actor" in child.precedence
    other = decide(facts(), attrs.evolve(near, native_actor_key="x"))
    assert "current-worktree-session:agent-near:claimed" in other.precedence
    assert other.created


def test_a_session_in_this_folder_that_runs_beside_the_asker_is_not_joined() -> None:
    owner = Owner(pid=7, start_ticks=70, **HERE)
    near = entry("agent-near", path="/work", owner=owner)
    runs = Observation(process=ProcessState.RUNNING, start_ticks=70, **HERE)
    assert decide(facts(), near, seen=runs).created
    below = facts(ancestors=((9, 90), (7, 70)))
    assert decide(below, near, seen=runs).entry == near
    gone = Observation(process=ProcessState.MISSING, **HERE)
    assert decide(below, near, seen=gone).created


@pytest.mark.parametrize(
    ("ancestors", "counts"),
    [
        (((9, 90), (7, 70), (5, 50)), True),  # its owner
        (((9, 90), (5, 50)), True),  # its runner, there before its command
        (((9, 90), (5, 71)), False),  # another process under the runner's number
        (((9, 90), (7, 71)), False),  # another under its owner's
        (((9, 90), (7, None)), False),
        ((), False),
    ],
)
def test_an_inherited_session_id_counts_below_its_owner_or_runner_only(
    ancestors: Any, counts: bool
) -> None:
    owner = Owner(pid=7, start_ticks=70, **HERE)
    made = entry("agent-run", owner=owner).extended(runner_pid=5, owner=owner)
    runs = Observation(process=ProcessState.RUNNING, start_ticks=70, **HERE)
    asks = facts(
        agent_session_id="agent-run", ancestors=ancestors, native_actor_key="codex:thread:t"
    )
    decision = decide(asks, made, seen=runs)
    assert (decision.action is AttachAction.ADOPT) == counts
    for other in ({"boot_id": "another"}, {"pid_ns": "another"}):
        assert decide(attrs.evolve(asks, **other), made, seen=runs).created


def test_a_reservation_that_was_adopted_is_not_taken_for_one_that_attaching_made() -> None:
    made = decide(facts(native_actor_key="k")).entry
    assert is_made_by_attach(made)
    assert not is_made_by_attach(made.extended(fence=3))
    assert not is_made_by_attach(entry("agent-api", native_actor_key="k"))
    adopted = decide(
        facts(native_instance_key="aider:process:1-1"), entry("agent-api", path="/work")
    )
    assert adopted.action is AttachAction.ADOPT
    assert not is_made_by_attach(adopted.entry)
    # Adopting what attaching made leaves the trace that says so.
    again = decide(
        facts(heddle_session_id="h", native_actor_key="j"),
        attrs.evolve(decide(facts()).entry, heddle_session_id="h"),
    )
    assert again.action is AttachAction.ADOPT
    assert is_made_by_attach(again.entry)


def test_an_unknown_actor_of_a_known_process_changes_nothing_of_its_sessions_entry() -> None:
    key = "claude-code:process:1-1"
    root = entry(
        "agent-root",
        native_instance_key=key,
        native_actor_key="k",
        path="/work",
        model="m",
        probe_confidence=0.95,
    )
    decision = decide(facts(native_instance_key=key, model="guess", probe_confidence=0.5), root)
    assert (decision.action, decision.entry) == (AttachAction.ATTACH, root)


def rule(name: str, **more: Any) -> AttachRule:
    return AttachRule(name=name, **more)


def names(*extra: AttachRule) -> list[str]:
    return [r.name for r in order_rules(extra)[0]]


def test_rules_stand_where_they_say_and_keep_their_order_at_one_place() -> None:
    found = names(
        rule("z", before="native-actor-key"),
        rule("a", before="native-actor-key"),
        rule("q", after="native-actor-key"),
        rule("p", after="native-actor-key"),
        rule("of-z", before="z"),
        rule("last"),
        rule("later"),
    )
    at = found.index("native-actor-key")
    assert found[at - 3 : at + 3] == ["of-z", "z", "a", "native-actor-key", "q", "p"]
    assert found[-3:] == ["last", "later", "create-new-session"]


@pytest.mark.parametrize(
    ("extra", "refused"),
    [
        ([rule("a", before="b"), rule("b", after="a")], {"a", "b"}),
        ([rule("a", before="a")], {"a"}),
        ([rule("a", before="b"), rule("b", before="c"), rule("c", before="b")], {"a", "b", "c"}),
        ([rule("a"), rule("a")], {"a"}),
        ([rule("a", before="nowhere"), rule("b", after="a"), rule("c")], {"a", "b"}),
        ([rule("token-sid")], {"token-sid"}),
        ([rule("a", after="create-new-session")], {"a"}),
        ([rule("a", when={"harnes": "x"})], {"a"}),
        ([rule("a", attach_to="elsewhere")], {"a"}),
        ([rule("a:b")], {"a:b"}),
        ([rule("a", look=lambda scene: None)], {"a"}),
        ([rule("a", before="token-sid", after="token-sid")], {"a"}),
    ],
)  # fmt: skip
def test_rules_that_cannot_stand_are_refused_with_a_reason_and_cost_no_other(
    extra: list[AttachRule], refused: set[str]
) -> None:
    ordered, reasons = order_rules([*extra, rule("good", before="token-sid")])
    assert set(reasons) == refused
    assert all(reasons.values())
    found = [r.name for r in ordered]
    assert "good" in found
    assert [n for n in found if n in {r.name for r in ATTACH_RULES}] == [
        r.name for r in ATTACH_RULES
    ]


@given(st.permutations([rule(n, before="token-sid") for n in "abc"] + [rule("d", after="b")]))
def test_a_rules_place_depends_on_nothing_but_what_it_says(extra: list[AttachRule]) -> None:
    found = names(*extra)
    assert found.index("d") == found.index("b") + 1
    assert found[-2:] == ["token-sid", "create-new-session"]


def test_a_pattern_sees_an_unknown_field_as_empty_text() -> None:
    asks = facts(harness="codex", thread="release/1.2")
    assert matches_patterns({}, asks)
    assert matches_patterns({"harness": "codex", "thread": "release/*"}, asks)
    assert matches_patterns({"model": "", "native_parent_actor_key": ""}, asks)
    assert not matches_patterns({"model": "?*"}, asks)
    assert not matches_patterns({"harness": "CODEX"}, asks)


def test_a_rule_that_makes_an_entry_makes_one_for_each_actor_and_no_more() -> None:
    fresh = rule("fresh", when={"thread": "main"}, before="explicit-agent-session")
    rules, _ = order_rules([fresh])
    asks = facts(native_actor_key="k")
    first = rule_on(Scene(facts=asks, living=()), rules)
    assert (first.step.creates, first.precedence) == (True, ("fresh:create:matched",))
    there = entry("agent-k", native_actor_key="k")
    again = rule_on(Scene(facts=asks, living=(there,)), rules)
    assert (again.step.entry, again.step.creates) == (there, False)


def test_a_rule_never_gives_one_actors_entry_to_another() -> None:
    share = rule("share", attach_to="path", before="native-actor-key")
    theirs = entry("agent-x", native_actor_key="x", path="/work")
    loaded = Loaded(entries={"agent-x": theirs})
    rules, _ = order_rules([share])
    asks = facts(native_actor_key="k", model="m")
    decision = decide_attach(asks, NEW, rules, loaded, NOW, {})
    assert not isinstance(decision, NeedFacts)
    assert isinstance(decision.answer, AttachDecision)
    assert (decision.answer.entry, decision.effects) == (theirs, ())


KEYS = st.sampled_from([None, "a", "b"])


@st.composite
def situations(draw: Any) -> tuple[AttachFacts, list[AgentEntry]]:
    owners = [None, Owner(pid=7, start_ticks=70, **HERE), Owner(pid=8, start_ticks=80, **HERE)]
    names_of_keys = (
        "native_actor_key", "native_parent_actor_key", "native_instance_key",
        "client_instance_id", "heddle_session_id",
    )  # fmt: skip
    fields = dict.fromkeys(names_of_keys, KEYS)
    entries = [
        entry(
            f"agent-{n}", second=n, owner=draw(st.sampled_from(owners)),
            path=draw(st.sampled_from([None, "/work", "/else"])),
            **{name: draw(kind) for name, kind in fields.items()},
        )
        for n in range(draw(st.integers(0, 4)))
    ]  # fmt: skip
    asks = facts(
        agent_session_id=draw(st.sampled_from([None, "agent-0", "agent-1", "agent-gone"])),
        ancestors=draw(st.sampled_from([(), ((7, 70),), ((8, 80), (7, 70))])),
        is_sub_agent=draw(st.booleans()),
        **{name: draw(kind) for name, kind in fields.items()},
    )
    return asks, entries


@given(situations())
def test_whatever_is_there_the_decision_is_idempotent_and_takes_nobodys_place(
    situation: tuple[AttachFacts, list[AgentEntry]],
) -> None:
    asks, entries = situation
    runs = Observation(process=ProcessState.RUNNING, start_ticks=None, **HERE)
    first = decide(asks, *entries, seen=runs)
    rest = [e for e in entries if e.session_id != first.entry.session_id]
    again = decide(asks, *rest, first.entry, seen=runs)
    stays = asks.native_actor_key is not None or asks.native_instance_key is not None
    if stays and asks.client_instance_id is None:
        assert again.entry.session_id == first.entry.session_id
        assert again.action is not AttachAction.CREATE
    was = next((e for e in entries if e.session_id == first.entry.session_id), None)
    if was is not None and was.native_actor_key is not None and asks.client_instance_id is None:
        assert first.entry.native_actor_key == was.native_actor_key
    assert first.entry.fence is None


@pytest.mark.parametrize(
    ("wrong", "keys"),
    [
        ({"name": 7}, {"name"}),
        ({"reason": 7, "attach_to": None}, {"reason", "attach_to"}),
        ({"before": 7}, {"before"}),
        ({"after": 7}, {"after"}),
        ({"when": {"harness": 7}}, {"when.harness"}),
        ({"when": {"harnes": "x", "model": "y"}}, {"when.harnes"}),
        ({"name": ""}, {"name"}),
        ({"name": "a\n"}, {"name"}),
        ({"name": "a:b"}, {"name"}),
        ({"name": "token-sid"}, {"name"}),
        ({"look": lambda _: None}, {"look"}),
        ({"attach_to": "elsewhere"}, {"attach_to"}),
        ({"before": "x", "after": "y"}, {"after"}),
        ({"after": "create-new-session"}, {"after"}),
        ({"before": "create-new-session"}, set()),
        ({}, set()),
    ],
)
def test_each_problem_of_a_rule_is_told_with_the_key_it_is_at(
    wrong: dict[str, Any], keys: set[str]
) -> None:
    assert {key for key, _ in rule_problems(rule(**{"name": "a", **wrong}))} == keys


def test_only_the_rules_in_a_circle_are_in_it() -> None:
    rules = [
        rule("in", before="circle"),
        rule("circle", after="of-two"),
        rule("of-two", before="circle"),
        rule("chain", before="token-sid"),
        rule("of-chain", after="chain"),
        rule("free"),
    ]
    assert circular(rules) == {"circle", "of-two"}
    ordered, refused = order_rules(rules)
    assert set(refused) == {"in", "circle", "of-two"}
    assert "circle" in refused["of-two"]
    assert "'circle'" in refused["in"]
    found = [r.name for r in ordered]
    at = found.index("chain")
    assert found[at : at + 3] == ["chain", "of-chain", "token-sid"]


def test_rules_after_one_place_keep_their_order_also_behind_rules_of_rules() -> None:
    found = names(
        rule("one", after="native-actor-key"),
        rule("of-one", after="one"),
        rule("two", after="native-actor-key"),
        rule("before-two", before="two"),
        rule("three", after="native-actor-key"),
    )
    at = found.index("native-actor-key")
    assert [n for n in found[at:] if n in ("one", "two", "three")] == ["one", "two", "three"]
    assert found.index("of-one") > found.index("one")
    assert found.index("before-two") == found.index("two") - 1
