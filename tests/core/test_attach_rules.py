"""Each built-in rule alone: what it looks at, and the line that it leaves."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from heddle_registry.core.attach_rules import (
    ATTACH_RULES,
    AttachFacts,
    AttachRule,
    Scene,
    Step,
    rule_on,
)
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.evidence import Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import hash_token

AT = Timestamp("2026-07-01T12:00:00Z")
HERE = {"boot_id": "b", "pid_ns": "n"}
RULES = {rule.name: rule for rule in ATTACH_RULES}
OWNER = Owner(pid=7, start_ticks=70, **HERE)
BELOW = ((9, 90), (7, 70))


def entry(session_id: str = "e", *, owner: Owner | None = None, **more: Any) -> AgentEntry:
    fields = {
        "thread": "main",
        "base_state": "x",
        "started_at": AT,
        "status": AgentStatus.ACTIVE,
        "path": "/work",
        **more,
    }
    made = AgentEntry(session_id=session_id, **fields)
    if owner is None:
        return made
    return attrs.evolve(made, pid=owner.pid, boot_id=owner.boot_id).extended(owner=owner)


def scene(*living: AgentEntry, alive: tuple[str, ...] = (), **asks: Any) -> Scene:
    facts = AttachFacts(**{"thread": "main", "path": "/work", **HERE, **asks})
    return Scene(facts=facts, living=living, seen_alive=frozenset(alive))


def ask(name: str, seen: Scene) -> tuple[str, str | None, bool]:
    step = RULES[name].ask(seen)
    return step.line, step.entry.session_id if step.entry is not None else None, step.creates


# -- what rules see


def test_a_folder_is_the_askers_where_both_know_it_and_it_is_one() -> None:
    assert scene().is_here(entry())
    assert not scene().is_here(entry(path="/else"))
    assert not scene(path=None).is_here(entry(path=None))
    assert not scene(path=None, here=frozenset({"e"})).is_here(entry())
    assert scene(here=frozenset({"e"})).is_here(entry(path="/renamed"))


@pytest.mark.parametrize(
    ("ancestors", "runner", "is_around"),
    [
        (((7, 70),), None, True),
        (((7, 71),), None, False),
        (((8, 70),), None, False),
        (((5, 70),), 5, True),  # it may have started within one tick of its command
        (((5, 69),), 5, True),
        (((5, 71),), 5, False),
        (((5, None),), 5, False),
        (((6, 1),), 5, False),
        ((), 5, False),
    ],
)
def test_an_entry_is_around_whoever_its_owner_or_its_runner_is_an_ancestor_of(
    ancestors: Any, runner: int | None, is_around: bool
) -> None:
    made = entry(owner=OWNER).extended(owner=OWNER, runner_pid=runner)
    assert scene(ancestors=ancestors).is_around(made) is is_around
    for elsewhere in ({"boot_id": "another"}, {"pid_ns": "another"}):
        assert not scene(ancestors=ancestors, **elsewhere).is_around(made)


def test_without_an_owner_or_its_start_nothing_is_around() -> None:
    assert not scene(ancestors=BELOW).is_around(entry())
    timeless = attrs.evolve(OWNER, start_ticks=None)
    assert not scene(ancestors=((7, None),)).is_around(entry(owner=timeless))


@pytest.mark.parametrize(
    ("has", "asks", "is_claimed"),
    [
        ({}, {}, False),
        ({"native_actor_key": "k"}, {}, True),
        ({"native_actor_key": "k"}, {"native_actor_key": "k"}, False),
        ({"native_actor_key": "k"}, {"native_actor_key": "j"}, True),
        ({"native_instance_key": "i"}, {}, True),
        ({"native_instance_key": "i"}, {"native_instance_key": "i"}, False),
        ({"native_instance_key": "i"}, {"native_instance_key": "j"}, True),
        ({"native_instance_key": "i"}, {"gone_instances": frozenset("i")}, False),
        ({"native_instance_key": "i"}, {"gone_instances": frozenset("j")}, True),
        ({"native_actor_key": "k"}, {"gone_instances": frozenset("i")}, True),
        ({"native_actor_key": "k", "native_instance_key": "i"}, {"native_actor_key": "j"}, True),
        (
            {"native_actor_key": "k", "native_instance_key": "i"},
            {"native_instance_key": "i"},
            False,
        ),
        ({"native_actor_key": "k"}, {"native_instance_key": "i"}, True),
        (
            {"native_actor_key": "k", "native_instance_key": "i"},
            {"native_actor_key": "j", "native_instance_key": "i"},
            True,
        ),
    ],
)
def test_an_entry_is_claimed_by_a_native_actor_that_is_not_the_asker(
    has: dict[str, Any], asks: dict[str, Any], is_claimed: bool
) -> None:
    assert scene(**asks).is_claimed(entry(**has)) is is_claimed


def test_an_entry_is_anothers_where_it_is_claimed_or_its_living_owner_is_not_above() -> None:
    owned = entry(owner=OWNER)
    assert scene().is_anothers(entry(native_actor_key="k"))
    assert not scene().is_anothers(owned), "nobody saw its owner"
    assert scene(alive=("e",)).is_anothers(owned)
    assert not scene(alive=("e",), ancestors=BELOW).is_anothers(owned)
    assert not scene(alive=("e",)).is_anothers(entry())


def test_an_actor_has_an_identity_by_its_key_or_its_process() -> None:
    assert not scene().facts.has_identity
    assert scene(native_actor_key="k").facts.has_identity
    assert scene(native_instance_key="i").facts.has_identity


# -- the rules, one by one


@pytest.mark.parametrize(
    ("living", "asks", "said"),
    [
        ([], {"agent_session_id": None}, ("miss", None, False)),
        ([], {}, ("e:miss", None, False)),
        ([{}], {"ancestors": ()}, ("e:skipped-not-an-ancestor", None, False)),
        ([{}], {}, ("e:matched", "e", False)),
        ([{}], {"native_actor_key": "k"}, ("e:matched", "e", False)),
        ([{"native_actor_key": "k"}], {"native_actor_key": "k"}, ("e:matched", "e", False)),
        ([{"native_actor_key": "j"}], {"native_actor_key": "k"}, ("e:claimed", None, False)),
        (
            [{}],
            {"native_actor_key": "k", "is_sub_agent": True},
            ("e:skipped-sub-agent", None, False),
        ),
        (
            [{"native_actor_key": "k"}],
            {"native_actor_key": "k", "is_sub_agent": True},
            ("e:matched", "e", False),
        ),
        (
            [{}, {"session_id": "own", "native_actor_key": "k"}],
            {"native_actor_key": "k"},
            ("e:skipped-has-its-own", None, False),
        ),
    ],
)
def test_an_inherited_session_id(
    living: list[dict[str, Any]], asks: dict[str, Any], said: tuple[str, str | None, bool]
) -> None:
    entries = [entry(**{"owner": OWNER, **one}) for one in living]
    seen = scene(*entries, **{"agent_session_id": "e", "ancestors": BELOW, **asks})
    assert ask("explicit-agent-session", seen) == said


def test_a_nameless_process_joins_and_a_stranger_becomes_the_child_of_what_it_runs_under() -> None:
    claimed = entry(owner=OWNER, native_actor_key="j")
    asks = {"agent_session_id": "e", "ancestors": BELOW}
    joined = RULES["explicit-agent-session"].ask(scene(claimed, **asks))
    assert (joined.joins, joined.child_of) == (True, None)
    stranger = RULES["explicit-agent-session"].ask(scene(claimed, native_actor_key="k", **asks))
    assert (stranger.joins, stranger.child_of) == (False, claimed)
    own = RULES["explicit-agent-session"].ask(scene(claimed, native_actor_key="j", **asks))
    assert (own.joins, own.child_of) == (False, None)


@pytest.mark.parametrize(
    ("living", "asks", "said"),
    [
        ([{}], {"heddle_session_id": None}, ("miss", None, False)),
        ([{"heddle_session_id": "other"}], {}, ("h:miss", None, False)),
        ([{"heddle_session_id": "h"}], {}, ("h:matched", "e", False)),
        (
            [{"heddle_session_id": "h", "native_actor_key": "j"}],
            {},
            ("h:claimed", None, False),
        ),
        (
            [{"heddle_session_id": "h", "native_actor_key": "j"}],
            {"native_actor_key": "j"},
            ("h:matched", "e", False),
        ),
        (
            [
                {"heddle_session_id": "h"},
                {"session_id": "own", "native_actor_key": "k"},
            ],
            {"native_actor_key": "k"},
            ("h:claimed", None, False),
        ),
    ],
)
def test_a_heddle_session(
    living: list[dict[str, Any]], asks: dict[str, Any], said: tuple[str, str | None, bool]
) -> None:
    seen = scene(*(entry(**one) for one in living), **{"heddle_session_id": "h", **asks})
    assert ask("explicit-heddle-session", seen) == said


def test_a_native_key_and_a_client_instance() -> None:
    known = entry(native_actor_key="k", client_instance_id="c")
    assert ask("native-actor-key", scene(known)) == ("miss", None, False)
    assert ask("native-actor-key", scene(known, native_actor_key="k")) == ("k:matched", "e", False)
    assert ask("native-actor-key", scene(known, native_actor_key="j")) == ("j:miss", None, False)
    both = scene(known, native_actor_key="k", client_instance_id="c")
    assert ask("native-actor-key", both) == ("k:skipped-client-instance", None, False)
    assert ask("client-instance-id", both) == ("c:matched", "e", False)
    assert ask("client-instance-id", scene(known)) == ("miss", None, False)
    assert ask("client-instance-id", scene(client_instance_id="c")) == ("c:miss", None, True)


def test_of_an_instances_entries_here_the_session_it_began_with_answers() -> None:
    def of(session_id: str, key: str | None, parent: str | None = None) -> AgentEntry:
        return entry(
            session_id,
            native_instance_key="i",
            native_actor_key=key,
            native_parent_actor_key=parent,
        )

    root, child, keyless = of("root", "k"), of("child", "c", "k"), of("keyless", None, "k")
    asks = {"native_instance_key": "i"}
    name = "native-instance-key"
    assert ask(name, scene(root)) == ("miss", None, False)
    assert ask(name, scene(child, root, **asks)) == ("i:matched", "root", False)
    assert ask(name, scene(root, child, **asks)) == ("i:matched", "root", False)
    assert ask(name, scene(keyless, child, **asks)) == ("i:matched", "child", False)
    assert ask(name, scene(child, keyless, root, **asks)) == ("i:matched", "root", False)
    circle = [of("a", "x", "y"), of("b", "y", "x")]
    assert ask(name, scene(*circle, **asks)) == ("i:matched", "b", False)
    away = attrs.evolve(root, path="/else")
    assert ask(name, scene(away, **asks)) == ("i:miss", None, False)
    other = attrs.evolve(root, native_instance_key="j")
    assert ask(name, scene(other, **asks)) == ("i:miss", None, False)
    named = scene(root, native_actor_key="new", **asks)
    assert ask(name, named) == ("skipped-strong-native-key", None, True)


def test_a_worktree() -> None:
    name = "current-worktree-session"
    theirs, free = entry("theirs", native_actor_key="j"), entry("free")
    assert ask(name, scene()) == ("miss", None, False)
    assert ask(name, scene(entry(path="/else"))) == ("miss", None, False)
    assert ask(name, scene(theirs, free)) == ("free:matched", "free", False)
    assert ask(name, scene(theirs)) == ("theirs:claimed", None, True)
    child = scene(free, native_parent_actor_key="k")
    assert ask(name, child) == ("skipped-not-a-root-actor", None, False)


def test_a_token() -> None:
    now = Instant(at=AT, awake_ns=0, boot_id="b")
    holder = ClaimHolder(
        session_id="e", token=hash_token("secret", b"salt"), granted_at=AT, renewed_at=now
    )
    claims = {
        "free": Claim(thread="free"),
        "main": Claim(thread="main").granted(holder, 1, None),
    }

    def said(living: list[AgentEntry], **asks: Any) -> tuple[str, str | None, bool]:
        return ask("token-sid", attrs.evolve(scene(*living, **asks), claims=claims))

    assert said([entry()]) == ("miss", None, False)
    assert said([entry()], token="guess") == ("miss", None, False)
    assert said([entry()], token="secret") == ("e:matched", "e", False)
    assert said([entry("other")], token="secret") == ("miss", None, False)
    theirs = entry(native_actor_key="j")
    assert said([theirs], token="secret") == ("e:claimed", None, True)


# -- a team's rules


def by_pattern(seen: Scene, **rule: Any) -> Step:
    return AttachRule(name="team", reason="why", **rule).ask(seen)


def test_a_teams_rule_attaches_to_the_newest_that_has_the_askers_value() -> None:
    new, old = entry("new", client_instance_id="c"), entry("old", client_instance_id="c")
    seen = scene(new, old, client_instance_id="c")
    assert by_pattern(seen, attach_to="client_instance_id").entry == new
    assert by_pattern(seen, attach_to="thread").entry == new
    assert by_pattern(seen, attach_to="path").entry == new
    renamed = scene(entry("old-name", path="/else"), here=frozenset({"old-name"}))
    assert by_pattern(renamed, attach_to="path").entry == renamed.living[0]
    missed = by_pattern(scene(entry(), client_instance_id=None), attach_to="client_instance_id")
    assert (missed.line, missed.entry) == ("client_instance_id:miss", None)
    assert by_pattern(seen, attach_to="path", when={"thread": "other"}).line == "miss"
    parent = entry("parent", native_actor_key="k")
    assert by_pattern(scene(new, parent), attach_to="parent").line == "parent:miss"
    under = scene(new, parent, native_parent_actor_key="k")
    assert by_pattern(under, attach_to="parent").entry == parent


def test_a_teams_rule_joins_what_is_anothers_or_beside_ones_own() -> None:
    free, own = entry("free", path="/work"), entry("own", native_actor_key="k", path="/else")
    asks = {"native_actor_key": "k"}
    assert not by_pattern(scene(free, **asks), attach_to="path").joins
    assert by_pattern(scene(free, own, **asks), attach_to="path").joins
    mine = attrs.evolve(own, path="/work")
    assert not by_pattern(scene(mine, **asks), attach_to="path").joins
    theirs = entry("theirs", native_actor_key="j")
    assert by_pattern(scene(theirs, **asks), attach_to="path").joins


def test_a_rule_that_makes_entries_finds_the_one_it_made_for_a_nameless_process() -> None:
    made = entry("made", native_instance_key="i")
    again = by_pattern(scene(made, native_instance_key="i"), attach_to="create")
    assert (again.line, again.entry) == ("made:matched", made)
    for other in (
        entry("other", native_instance_key="j"),
        entry("other", native_instance_key="i", native_actor_key="k"),
        entry("other"),
    ):
        fresh = by_pattern(scene(other, native_instance_key="i"), attach_to="create")
        assert (fresh.line, fresh.creates) == ("create:matched", True)
    assert by_pattern(scene(entry()), attach_to="create").creates


def test_the_first_rule_that_decides_ends_the_search_and_a_list_without_one_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no rule decided"):
        rule_on(scene(), ATTACH_RULES[:-1])
    stranger = scene(
        entry(owner=OWNER, native_actor_key="j"),
        agent_session_id="e", ancestors=BELOW, native_actor_key="k",
    )  # fmt: skip
    ruling = rule_on(stranger)
    assert ruling.child_of == stranger.living[0]
    assert ruling.rule.name == "create-new-session"
    assert ruling.precedence[-1] == "create-new-session:matched"
    assert rule_on(scene()).precedence[-1] == "create-new-session:matched"
    assert rule_on(scene()).precedence.count("create-new-session:matched") == 1
    team = AttachRule(name="team", attach_to="create")
    assert rule_on(scene(), (team, *ATTACH_RULES)).precedence == ("team:create:matched",)


def test_what_a_rule_asks_for_cannot_be_changed_once_it_stands() -> None:
    rule = AttachRule(name="r", when={"harness": "acme"})
    with pytest.raises(TypeError):
        rule.when["harness"] = "*"  # type: ignore[index]
    assert rule.when == {"harness": "acme"}
