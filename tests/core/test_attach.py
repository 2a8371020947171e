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
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import AgentEntry, entry_problems
from heddle_registry.core.evidence import Observation, Owner, ProcessState
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.transaction import (
    IdTaken,
    Loaded,
    NeedFacts,
    PutEntry,
    UnknownFacts,
    fact_key,
)
from heddle_registry.errors import UsageError

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
    assert decide(facts(), near, seen=None).entry == near, "nobody can tell whether it lives"


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


def answered(
    asks: AttachFacts, *entries: AgentEntry, told: AttachDecision | None = None, **more: Any
) -> AttachDecision:
    loaded = Loaded(entries={e.session_id: e for e in entries}, **more)
    decision = decide_attach(asks, NEW, ATTACH_RULES, loaded, NOW, UnknownFacts(), told)
    assert not isinstance(decision, NeedFacts)
    assert isinstance(decision.answer, AttachDecision), decision
    return decision.answer


def test_a_used_id_a_missing_fact_and_an_entry_that_cannot_be_written_are_told() -> None:
    taken = Loaded(used_ids=frozenset({NEW.session_id}))
    used = decide_attach(facts(), NEW, ATTACH_RULES, taken, NOW, {})
    assert not isinstance(used, NeedFacts)
    assert used.answer == IdTaken(NEW.session_id)
    there = entry("agent-there", owner=Owner(pid=7, start_ticks=70, **HERE))
    loaded = Loaded(entries={"agent-there": there})
    asked = decide_attach(facts(), NEW, ATTACH_RULES, loaded, NOW, {})
    assert isinstance(asked, NeedFacts)
    assert [subject.session_id for subject in asked.subjects] == ["agent-there"]
    bad = decide_attach(facts(thread=""), NEW, ATTACH_RULES, Loaded(), NOW, {})
    assert not isinstance(bad, NeedFacts)
    assert isinstance(bad.refusal, UsageError)
    assert bad.effects == ()


def test_a_new_entry_is_all_that_the_asker_says_of_itself() -> None:
    said = {
        "native_actor_key": "k",
        "native_instance_key": "i",
        "heddle_session_id": "h",
        "harness": "acme",
        "provider": "p",
        "model": "m",
        "thinking_level": "high",
        "probe_source": "payload",
        "probe_confidence": 0.5,
    }
    owner = Owner(pid=7, start_ticks=70, **HERE)
    made = answered(
        facts(**said, native_parent_actor_key="p", owner=owner, continues="before", transcript="/t")
    )
    assert (made.action, made.created) == (AttachAction.CREATE, True)
    for name, value in said.items():
        assert getattr(made.entry, name) == value
    assert (made.entry.thread, made.entry.path) == ("main", "/work")
    assert (made.entry.pid, made.entry.boot_id, made.entry.owner) == (7, "b", owner)
    assert made.entry.native_parent_actor_key == "p"
    extension = made.entry.extension
    assert extension is not None
    assert (extension.continues, extension.usage_sources) == ("before", ("/t",))
    assert made.entry.attach_reason == "k has no living entry yet"
    assert made.entry.winning_attach_rule == "create-new-session"
    nobody = answered(facts()).entry
    assert (nobody.pid, nobody.boot_id, nobody.owner) == (None, None, None)
    assert nobody.extension is not None
    assert nobody.extension.usage_sources == ()
    bootless = answered(facts(owner=Owner(pid=7))).entry
    assert (bootless.pid, bootless.boot_id) == (7, None)


def test_a_new_entry_keeps_the_ancestry_of_its_living_parent() -> None:
    root = entry("agent-root", native_actor_key="r")
    parent = entry("agent-p", native_actor_key="p", native_parent_actor_key="r", second=1)
    made = answered(facts(native_actor_key="k", native_parent_actor_key="p"), root, parent).entry
    assert made.extension is not None
    assert made.extension.ancestors == (root.chain_node(), parent.chain_node())
    for asks in (
        facts(native_actor_key="k"),
        facts(native_actor_key="k", native_parent_actor_key="x"),
    ):
        orphan = answered(asks, root, parent).entry
        assert orphan.extension is not None
        assert orphan.extension.ancestors == ()


def test_who_comes_by_an_adopted_entry_is_a_child_of_who_adopted_it() -> None:
    owner = Owner(pid=7, start_ticks=70, **HERE)
    adopted = entry("agent-run", owner=owner, native_actor_key="j", native_parent_actor_key="top")
    asks = {"agent_session_id": "agent-run", "ancestors": ((7, 70),), "native_actor_key": "k"}
    for parent, child_of in ((None, "j"), ("top", "j"), ("other", "other")):
        made = answered(facts(native_parent_actor_key=parent, **asks), adopted).entry
        assert made.native_parent_actor_key == child_of
    nameless = entry("agent-run", owner=owner, native_instance_key="i")
    made = answered(facts(native_parent_actor_key=None, **asks), nameless)
    assert made.created
    assert made.entry.native_parent_actor_key is None


def test_an_entry_that_is_found_is_filled_in_and_loses_nothing() -> None:
    found = entry("agent-e", path=None, provider="before", heddle_session_id="h")
    owner = Owner(pid=7, start_ticks=70, boot_id="", pid_ns="n")
    asks = facts(
        heddle_session_id="h",
        native_actor_key="k",
        native_parent_actor_key="up",
        model="m",
        owner=owner,
        transcript="/t",
        probe_source="s",
        probe_confidence=0.5,
    )
    filled = answered(asks, found)
    assert filled.action is AttachAction.ADOPT
    entry_now = filled.entry
    assert (entry_now.native_actor_key, entry_now.native_parent_actor_key) == ("k", "up")
    assert (entry_now.model, entry_now.provider, entry_now.path) == ("m", "before", "/work")
    assert (entry_now.pid, entry_now.boot_id, entry_now.owner) == (7, None, owner)
    assert entry_now.extension is not None
    assert entry_now.extension.usage_sources == ("/t",)
    assert (entry_now.probe_source, entry_now.probe_confidence) == ("s", 0.5)
    # Once more: the same actor, another transcript, and a surer probe that came too late.
    again = answered(
        attrs.evolve(
            asks, transcript="/u", probe_source="late", probe_confidence=0.9, path="/else",
            native_parent_actor_key="another",
        ),
        entry_now,
    )  # fmt: skip
    assert again.action is AttachAction.ATTACH
    assert again.entry.extension is not None
    assert again.entry.extension.usage_sources == ("/t", "/u")
    assert (again.entry.probe_source, again.entry.probe_confidence) == ("s", 0.5)
    assert (again.entry.path, again.entry.native_parent_actor_key) == ("/work", "up")
    same = answered(asks, again.entry)
    assert same.entry == again.entry
    unsure = attrs.evolve(entry_now, probe_confidence=None)
    assert answered(asks, unsure).entry.probe_confidence == 0.5


@pytest.mark.parametrize("has", ["a pid", "a fence", "a claim", "nothing"])
def test_a_process_is_filled_in_only_where_nothing_speaks_for_another(has: str) -> None:
    found = entry("agent-e", heddle_session_id="h")
    claims = {}
    if has == "a pid":
        found = attrs.evolve(found, pid=99)
    if has == "a fence":
        found = found.extended(fence=1)
    if has == "a claim":
        holder = ClaimHolder(session_id="agent-x", granted_at=NOW.at, renewed_at=NOW)
        claims["main"] = Claim(thread="main").granted(holder, 1, None)
    elif has != "a fence":  # with a claim that names nobody it would be an orphan
        claims["main"] = Claim(thread="main")
    owner = Owner(pid=7, start_ticks=70, **HERE)
    filled = answered(
        facts(heddle_session_id="h", native_actor_key="k", owner=owner), found, claims=claims
    )
    assert (filled.entry.owner == owner) == (has == "nothing")
    assert filled.entry.native_actor_key == "k"


def test_a_nameless_asker_adds_nothing_to_a_named_entry() -> None:
    named = entry("agent-e", native_actor_key="k", native_instance_key="i", path="/work")
    same = answered(facts(native_instance_key="i", model="m"), named)
    assert (same.action, same.entry) == (AttachAction.ATTACH, named)
    nameless = entry("agent-e", native_instance_key="i", path="/work")
    filled = answered(facts(native_instance_key="i", model="m"), nameless)
    assert (filled.action, filled.entry.model) == (AttachAction.ATTACH, "m")


def test_a_reservation_that_is_adopted_keeps_what_it_is_for_and_any_other_says_why() -> None:
    for reason in ("fix the build", None):
        found = entry("agent-e", heddle_session_id="h", attach_reason=reason)
        adopted = answered(facts(heddle_session_id="h", native_actor_key="k"), found).entry
        assert adopted.attach_reason == (reason or "its heddle session is this")
        assert adopted.winning_attach_rule == "explicit-heddle-session"
        assert adopted.attach_precedence[-1] == "explicit-heddle-session:h:matched"


def test_the_reason_that_was_told_first_stands_while_the_decision_is_the_same() -> None:
    first = answered(facts())
    told = attrs.evolve(first, reason="as it was said")
    assert answered(facts(), told=told).reason == "as it was said"
    assert answered(facts(native_actor_key="k"), told=told).reason == "as it was said"
    other = attrs.evolve(told, rule="another")
    assert answered(facts(), told=other).reason == first.reason
    found = entry("agent-e", heddle_session_id="h")
    asks = facts(heddle_session_id="h")
    assert answered(asks, found, told=told).reason == "its heddle session is this"


def test_a_teams_rule_without_a_reason_is_named_as_one() -> None:
    rules, _ = order_rules([rule("ours", before="explicit-agent-session")])
    decision = decide_attach(facts(), NEW, rules, Loaded(), NOW, {})
    assert not isinstance(decision, NeedFacts)
    assert isinstance(decision.answer, AttachDecision)
    assert decision.answer.reason == "the rule ours says so"
    assert is_made_by_attach(decision.answer.entry)


def test_who_else_is_on_the_branch_and_who_holds_it_is_told() -> None:
    holder = ClaimHolder(session_id="agent-h", granted_at=NOW.at, renewed_at=NOW, ttl_s=60.0)
    claim = Claim(thread="main").granted(holder, 1, None)
    holds = entry("agent-h", second=1, path="/h").extended(fence=1, ttl_s=60.0)
    beside, away = entry("agent-b", second=2, path="/b"), entry("agent-a", thread="other")
    ended = attrs.evolve(entry("agent-o"), status=AgentStatus.COMPLETE, completed_at=NOW.at)
    orphan = entry("agent-x", second=3, path="/x").extended(fence=2)
    everybody = (holds, beside, away, ended, orphan)
    found = answered(facts(), *everybody, claims={"main": claim})
    assert [e.session_id for e in found.present] == ["agent-b", "agent-h"]
    assert found.held_by == holds
    own = answered(facts(native_actor_key="k", heddle_session_id="s"),
                   attrs.evolve(holds, heddle_session_id="s"), claims={"main": claim})  # fmt: skip
    assert own.entry.session_id == "agent-h"
    assert (own.held_by, own.present) == (None, ())
    late = attrs.evolve(NOW, awake_ns=61 * 10**9)
    decision = decide_attach(
        facts(), NEW, ATTACH_RULES,
        Loaded(entries={"agent-h": holds}, claims={"main": claim}), late, UnknownFacts(),
    )  # fmt: skip
    assert not isinstance(decision, NeedFacts)
    assert isinstance(decision.answer, AttachDecision)
    assert decision.answer.held_by is None, "its TTL is over"
    assert answered(facts(), beside).held_by is None


@pytest.mark.parametrize(
    ("rule_name", "line", "made"),
    [
        ("create-new-session", "create-new-session:matched", True),
        ("ours", "ours:create:matched", True),
        ("ours", "ours:e:matched", False),
        ("ours", "theirs:create:matched", False),
        (None, "create-new-session:matched", False),
    ],
)
def test_the_last_line_says_whether_attaching_made_the_entry(
    rule_name: str | None, line: str, made: bool
) -> None:
    found = entry("e", winning_attach_rule=rule_name, attach_precedence=("x:miss", line))
    assert is_made_by_attach(found) is made
    assert is_made_by_attach(attrs.evolve(found, attach_precedence=())) is False
    holder = ClaimHolder(session_id="e", granted_at=NOW.at, renewed_at=NOW)
    held = Claim(thread="main").granted(holder, 1, None)
    assert is_made_by_attach(found, held) is False
    other = held.granted(attrs.evolve(holder, session_id="other"), 2, None)
    assert is_made_by_attach(found, other) is made
    assert is_made_by_attach(found, Claim(thread="main")) is made
