"""Recorded runs, runners and leaks, attached through the registry's own doors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.codec.config import AttachRuleSetting, AttachSettings, Settings
from heddle_registry.core.attach import ATTACH_RULES, AttachAction, AttachRule
from heddle_registry.core.edit import decide_attach as decide_put
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.harness import Process
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import UsageError
from heddle_registry.hookspecs import hookimpl
from heddle_registry.plugins import Plugins
from heddle_registry.ports.query import Query
from heddle_registry.registry import AgentRegistry
from heddle_registry.registry.attaching import AttachWish, attach_situation, rules_in_force
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.rehearsal import rehearse
from heddle_registry.registry.scripting import build_entry, find_asker
from heddle_registry.surroundings import Situation, recorded_situation
from heddle_registry.testing.fake_host import FakeHost
from tests.plugins import recordings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from heddle_registry.core.attach import AttachDecision
    from heddle_registry.ports import Store

PLUGINS = recordings.plugins()
WITH_IDS = [harness for harness in recordings.FOLDERS if harness != "aider"]


class Scenery:
    """A registry on a fake host, and agents on it."""

    def __init__(self, folder: Path | None) -> None:
        self.host = FakeHost()
        store: Store = MemoryStore(self.host)
        if folder is not None:
            store = DirectoryStore(str(folder / ".heddle"), self.host, lock_timeout_s=30)
        self.registry = AgentRegistry(store=store, host=self.host)

    def attach(self, situation: Situation, plugins: Any = PLUGINS, **more: Any) -> AttachDecision:
        self.host.advance(1)
        wish = AttachWish(
            thread=more.pop("thread", None),
            client_instance_id=more.pop("client_instance_id", None),
            token=more.pop("token", None),
        )
        return attach_situation(self.registry, situation, plugins, wish, **more)

    def recorded(self, situation: Mapping[str, Any], **more: Any) -> AttachDecision:
        return self.attach(recorded_situation(situation), **more)

    def entries(self) -> list[AgentEntry]:
        return self.registry.list()

    def claims(self, thread: str) -> Any:
        return self.registry.look(Query(thread=thread)).claims

    def run(self, thread: str, argv: Sequence[str], *, asker: str | None = None) -> Any:
        """What `run` leaves behind: a claim whose owner is the command, the runner above it."""
        runner = self.host.spawn(["heddle-registry", "run"])
        command = self.host.spawn(list(argv), ppid=runner)
        terms = Terms(owner=self.host.owner_for(command), runner_pid=runner, asker=asker)
        build = build_entry(self.registry, thread, path="/work", task="the task")
        outcome, _ = self.registry.reserve_on_terms(thread, build, terms)
        return outcome, command

    def below(self, *pids: int, environ: Mapping[str, str], **more: Any) -> Situation:
        """A command whose ancestors are ``pids``, nearest first."""
        table = {info.pid: info for info in self.host.processes()}
        return Situation(
            environ={"HOME": "/nowhere", **environ},
            ancestors=tuple(
                Process(pid=pid, argv=table[pid].argv, starttime=table[pid].start_ticks)
                for pid in pids
            ),
            cwd="/work",
            **more,
        )


@pytest.fixture(params=["memory", "directory"])
def scenery(request: pytest.FixtureRequest, tmp_path: Path) -> Scenery:
    return Scenery(tmp_path if request.param == "directory" else None)


def codex_env(thread: str, session: str | None = None) -> dict[str, str]:
    return {"CODEX_THREAD_ID": thread, "CODEX_SESSION_ID": session or thread}


def run_env(reserved: Any) -> dict[str, str]:
    return {
        "HEDDLE_AGENT_SESSION_ID": reserved.entry.session_id,
        "HEDDLE_THREAD": reserved.entry.thread,
        "HEDDLE_AGENT_TOKEN": reserved.token,
    }


@pytest.mark.parametrize("harness", recordings.FOLDERS)
def test_each_actor_of_a_recorded_run_gets_one_entry_under_its_true_parent(
    scenery: Scenery, harness: str
) -> None:
    wanted = {}
    for _, situation, case in recordings.commands(harness):
        decisions = [scenery.recorded(situation) for _ in range(2)]
        assert len({d.entry.session_id for d in decisions}) == 1
        assert not decisions[1].created
        wanted[decisions[0].entry.session_id] = case["actor"]
    actors = recordings.actors(harness)
    for entry in scenery.entries():
        key = entry.native_actor_key or wanted[entry.session_id]
        assert key == wanted[entry.session_id]
        assert entry.native_parent_actor_key == actors[key]["parent_key"]
        assert entry.harness == harness
        assert entry.model in actors[key]["models"]
        sources = entry.extension.usage_sources
        assert [s.endswith(actors[key]["transcript"]) for s in sources] == [True]
        assert entry.winning_attach_rule == "create-new-session"
        assert entry.attach_precedence[-1] == "create-new-session:matched"
        assert entry.thread == "detached/project"
    if harness != "aider":
        assert len({e.native_actor_key for e in scenery.entries()}) == len(scenery.entries())


def test_a_child_keeps_its_ancestors_after_they_are_gone(scenery: Scenery) -> None:
    parent = scenery.recorded(recordings.command("codex", "sub", "spawnwait-2"))
    child = scenery.recorded(recordings.command("codex", "sub", "child-0"))
    kept = child.entry.extension.ancestors
    assert [node.session_id for node in kept] == [parent.entry.session_id]
    assert [e.session_id for e in child.present] == [parent.entry.session_id]


@pytest.mark.parametrize("outer", WITH_IDS)
def test_a_nested_harness_is_attached_below_the_outer_ones_actor(
    scenery: Scenery, outer: str, tmp_path: Path
) -> None:
    inner = "codex" if outer != "codex" else "claude-code"
    _, situation, case = recordings.commands(outer)[0]
    around = scenery.recorded(situation)
    nested = recordings.inside(situation, recordings.commands(inner)[0][1], tmp_path)
    decision = scenery.recorded(nested)
    parent = decision.entry.native_parent_actor_key
    # OpenCode's recordings leave nothing of the outer command line: silence, never another name.
    assert parent == around.entry.native_actor_key or (outer == "opencode" and parent is None)
    assert decision.entry.harness == inner
    assert around.entry.native_actor_key == case["actor"]


def test_the_first_native_actor_under_a_runner_adopts_its_entry_and_the_claim_stays(
    scenery: Scenery,
) -> None:
    reserved, codex = scenery.run("feature/x", ["codex", "exec"])
    claims = scenery.claims("feature/x")
    environ = {**run_env(reserved), **codex_env("t1")}
    decision = scenery.attach(scenery.below(codex, environ=environ))
    assert decision.action is AttachAction.ADOPT
    assert decision.rule == "explicit-agent-session"
    entry = scenery.registry.load(reserved.entry.session_id)
    assert entry.session_id == decision.entry.session_id
    assert entry.native_actor_key == "codex:thread:t1"
    assert entry.harness == "codex"
    assert entry.attach_reason == "the task"
    assert (entry.pid, entry.fence, entry.thread) == (codex, reserved.fence, "feature/x")
    assert scenery.claims("feature/x") == claims
    again = scenery.attach(scenery.below(codex, environ=environ))
    assert (again.created, again.entry) == (False, entry)


def test_any_other_actor_under_a_runner_becomes_the_adopted_ones_child(scenery: Scenery) -> None:
    reserved, shell = scenery.run("feature/x", ["bash"])
    first = scenery.host.spawn(["codex"], ppid=shell)
    second = scenery.host.spawn(["claude"], ppid=shell)
    base = run_env(reserved)
    scenery.attach(scenery.below(first, shell, environ={**base, **codex_env("t1")}))
    environ = {**base, "CLAUDE_CODE_SESSION_ID": "s2"}
    other = scenery.attach(scenery.below(second, shell, environ=environ))
    assert other.created
    assert other.entry.native_parent_actor_key == "codex:thread:t1"
    assert other.entry.thread == "feature/x"
    assert f"explicit-agent-session:{reserved.entry.session_id}:claimed" in other.precedence
    nodes = other.entry.extension.ancestors
    assert [node.session_id for node in nodes] == [reserved.entry.session_id]
    assert scenery.attach(scenery.below(second, shell, environ=environ)).entry == other.entry


def test_an_entry_whose_actors_process_is_gone_may_be_adopted_by_the_next(
    scenery: Scenery,
) -> None:
    reserved, shell = scenery.run("feature/x", ["bash"])
    first = scenery.host.spawn(["codex"], ppid=shell)
    environ = {**run_env(reserved), **codex_env("t1")}
    scenery.attach(scenery.below(first, shell, environ=environ))
    scenery.host.kill(first)
    scenery.host.advance(1)
    second = scenery.host.spawn(["codex"], ppid=shell)
    environ = {**run_env(reserved), **codex_env("t2")}
    decision = scenery.attach(scenery.below(second, shell, environ=environ))
    assert decision.action is AttachAction.ADOPT
    assert decision.entry.session_id == reserved.entry.session_id
    assert decision.entry.native_actor_key == "codex:thread:t2"


def test_a_sub_agent_that_comes_by_first_leaves_the_runners_entry_to_its_session(
    scenery: Scenery,
) -> None:
    reserved, codex = scenery.run("feature/x", ["codex"])
    base = run_env(reserved)
    child = scenery.attach(
        scenery.below(codex, environ={**base, **codex_env("kid", session="root")})
    )
    assert child.created
    assert child.entry.native_parent_actor_key == "codex:thread:root"
    root = scenery.attach(scenery.below(codex, environ={**base, **codex_env("root")}))
    assert root.entry.session_id == reserved.entry.session_id


def test_variables_that_a_multiplexers_server_leaked_attach_to_nobody(scenery: Scenery) -> None:
    reserved, _ = scenery.run("feature/x", ["codex"])
    tmux = scenery.host.spawn(["tmux"], ppid=1)
    shell = scenery.host.spawn(["bash"], ppid=tmux)
    for harness in ([], [scenery.host.spawn(["codex"], ppid=shell)]):
        environ = {**run_env(reserved), **(codex_env("stranger") if harness else {})}
        decision = scenery.attach(scenery.below(*harness, shell, tmux, 1, environ=environ))
        named = f"explicit-agent-session:{reserved.entry.session_id}"
        assert f"{named}:skipped-not-an-ancestor" in decision.precedence
        assert decision.created
        assert decision.entry.thread == "detached/work"
        assert decision.entry.native_parent_actor_key is None
    kept = scenery.registry.load(reserved.entry.session_id)
    assert kept == reserved.entry


def test_a_person_under_a_runner_is_at_the_runners_entry_and_takes_nothing(
    scenery: Scenery,
) -> None:
    reserved, shell = scenery.run("feature/x", ["bash"])
    decision = scenery.attach(scenery.below(shell, environ=run_env(reserved)))
    assert (decision.created, decision.entry) == (False, reserved.entry)


def test_a_reservation_that_an_agent_made_for_somebody_else_is_not_adopted_by_itself(
    scenery: Scenery,
) -> None:
    claude = scenery.host.spawn(["claude"])
    environ = {"CLAUDE_CODE_SESSION_ID": "s1"}
    own = scenery.attach(scenery.below(claude, environ=environ)).entry
    reserved, codex = scenery.run("feature/x", ["codex"], asker=own.session_id)
    still = scenery.attach(
        scenery.below(claude, environ={**environ, **run_env(reserved)}), thread="other"
    )
    assert still.entry.session_id == own.session_id
    inner = scenery.attach(
        scenery.below(codex, claude, environ={**run_env(reserved), **codex_env("t1")})
    )
    assert inner.entry.session_id == reserved.entry.session_id
    assert inner.entry.native_parent_actor_key == own.native_actor_key


def test_a_resumed_session_gets_a_new_entry_that_continues_the_old_one(scenery: Scenery) -> None:
    first = scenery.host.spawn(["codex"])
    old = scenery.attach(scenery.below(first, environ=codex_env("t1"))).entry
    scenery.registry.release(old.session_id, ask_token=False)
    again = scenery.host.spawn(["codex"])
    new = scenery.attach(scenery.below(again, environ=codex_env("t1")))
    assert new.created
    assert new.entry.extension.continues == old.session_id
    # The harness died and nobody said so: dead, though its entry is still Active.
    scenery.host.kill(again)
    third = scenery.host.spawn(["codex"])
    last = scenery.attach(scenery.below(third, environ=codex_env("t1")))
    assert last.created
    assert last.entry.extension.continues == new.entry.session_id


def test_a_dead_owners_entry_is_no_place_to_attach_to(scenery: Scenery) -> None:
    codex = scenery.host.spawn(["codex"])
    scenery.attach(scenery.below(codex, environ=codex_env("t1")), client_instance_id="c1")
    scenery.host.kill(codex)
    decision = scenery.attach(scenery.below(100, environ={}), client_instance_id="c1")
    assert decision.created
    assert "client-instance-id:c1:miss" in decision.precedence


def test_where_others_hold_the_branch_attaching_works_and_says_so(scenery: Scenery) -> None:
    reserved, _ = scenery.run("detached/work", ["codex"])
    claude = scenery.host.spawn(["claude"])
    decision = scenery.attach(
        scenery.below(claude, environ={"CLAUDE_CODE_SESSION_ID": "s1"}), thread="detached/work"
    )
    assert decision.created
    assert decision.held_by == reserved.entry
    assert decision.present == (reserved.entry,)
    assert decision.entry.fence is None


def test_a_client_instance_is_stronger_than_a_native_key_and_its_miss_creates(
    scenery: Scenery,
) -> None:
    codex = scenery.host.spawn(["codex"])
    situation = scenery.below(codex, environ=codex_env("t1"))
    by_key = scenery.attach(situation).entry
    other = scenery.attach(situation, client_instance_id="c1")
    assert other.created
    assert "native-actor-key:codex:thread:t1:skipped-client-instance" in other.precedence
    assert other.entry.session_id != by_key.session_id
    assert scenery.attach(situation, client_instance_id="c1").rule == "client-instance-id"


def test_two_aiders_in_one_folder_have_an_entry_each(scenery: Scenery) -> None:
    first, second = (scenery.host.spawn(["aider"]), scenery.host.spawn(["aider"]))
    scenery.host.advance(1)
    third = scenery.host.spawn(["aider"])
    one = scenery.attach(scenery.below(first, environ={}))
    assert scenery.attach(scenery.below(first, environ={})).rule == "native-instance-key"
    others = [scenery.attach(scenery.below(pid, environ={})) for pid in (second, third)]
    assert [o.created for o in others] == [True, True]
    assert one.entry.native_actor_key is None
    line = f"current-worktree-session:{one.entry.session_id}:claimed"
    assert line in others[0].precedence


def test_a_shown_token_names_the_entry_and_an_inherited_one_does_not(scenery: Scenery) -> None:
    build = build_entry(scenery.registry, "feature/x")
    reserved, _ = scenery.registry.reserve_on_terms("feature/x", build, Terms(ttl_s=300))
    aider = scenery.host.spawn(["aider"])
    environ = {"HEDDLE_AGENT_TOKEN": reserved.token}
    inherited = scenery.attach(scenery.below(aider, environ=environ), thread="feature/x")
    assert inherited.created
    other = scenery.host.spawn(["aider"])
    situation = attrs.evolve(scenery.below(other, environ={}), cwd="/elsewhere")
    shown = scenery.attach(situation, thread="feature/x", token=reserved.token)
    assert shown.entry.session_id == reserved.entry.session_id
    assert shown.rule == "token-sid"


def test_heddles_own_session_is_read_from_its_variable(scenery: Scenery) -> None:
    entry = AgentEntry(
        session_id="agent-rust",
        thread="main",
        heddle_session_id="hs-1",
        base_state="b",
        started_at=scenery.host.now().at,
        status=AgentStatus.ACTIVE,
    )
    scenery.registry.store.transact(Keys(), lambda loaded, *_: decide_put(entry, loaded), {})
    codex, other = scenery.host.spawn(["codex"]), scenery.host.spawn(["claude"])
    environ = {"HEDDLE_SESSION_ID": "hs-1"}
    first = scenery.attach(scenery.below(codex, environ={**environ, **codex_env("t1")}))
    assert (first.rule, first.entry.session_id) == ("explicit-heddle-session", "agent-rust")
    second = scenery.attach(
        scenery.below(other, environ={**environ, "CLAUDE_CODE_SESSION_ID": "s"})
    )
    assert second.created
    assert "explicit-heddle-session:hs-1:claimed" in second.precedence
    assert second.entry.heddle_session_id == "hs-1"


def team(*rules: AttachRuleSetting) -> Settings:
    return Settings(attach=AttachSettings(rules=rules))


def test_a_teams_rule_decides_where_it_stands_and_leaves_its_line(scenery: Scenery) -> None:
    rule = AttachRuleSetting(
        name="one-entry-a-codex",
        when={"harness": "codex", "native_parent_actor_key": "?*"},
        attach_to="parent",
        reason="our sub-agents count as their session",
        before="native-actor-key",
    )
    settings = team(rule)
    codex = scenery.host.spawn(["codex"])
    root = scenery.attach(scenery.below(codex, environ=codex_env("root")), settings=settings)
    kid = scenery.attach(
        scenery.below(codex, environ=codex_env("kid", session="root")), settings=settings
    )
    assert kid.entry == root.entry
    assert (kid.rule, kid.reason) == (rule.name, rule.reason)
    assert f"{rule.name}:{root.entry.session_id}:matched" in kid.precedence
    assert f"{rule.name}:miss" in root.precedence


def test_a_rule_beside_one_that_is_nowhere_is_refused_if_a_team_wrote_it() -> None:
    lost = AttachRuleSetting(name="lost", attach_to="create", before="no-such-rule")
    with pytest.raises(UsageError, match="no-such-rule"):
        rules_in_force(team(lost), Plugins())


class Ruled:
    """A plugin whose rules are good, circular, named twice, and of the wrong kind."""

    @staticmethod
    def rules() -> list[AttachRule]:
        return [
            AttachRule(name="good", when={"harness": "codex"}, before="create-new-session"),
            AttachRule(name="a", before="b"),
            AttachRule(name="b", before="a"),
            AttachRule(name="twice"),
            AttachRule(name="odd", when={"harness": 3}),  # type: ignore[dict-item]
        ]


def test_a_plugins_bad_rules_cost_only_themselves() -> None:
    module = SimpleNamespace(heddle_attach_rules=hookimpl(Ruled.rules))
    plugins = Plugins([("ruled", module)])
    mine = AttachRuleSetting(name="twice", attach_to="create")
    rules = rules_in_force(team(mine), plugins)
    built_in = [rule.name for rule in ATTACH_RULES]
    assert [r.name for r in rules if r.name not in built_in] == ["twice", "good"]
    assert {fault.plugin for fault in plugins.faults} == {
        "rule a", "rule b", "rule twice", "rule odd",
    }  # fmt: skip


def test_a_plugin_may_say_it_better_and_its_failure_keeps_the_sentence(scenery: Scenery) -> None:
    def better(decision: Any) -> str:
        return f"{decision.rule}, because it is Sunday"

    def broken(decision: Any) -> str:
        raise RuntimeError

    codex = scenery.host.spawn(["codex"])
    situation = scenery.below(codex, environ=codex_env("t1"))
    for client, function in (("one", broken), ("two", better)):
        module = SimpleNamespace(heddle_attach_reason=hookimpl(function))
        plugins = Plugins([*recordings.all_modules(), ("says", module)])
        made = scenery.attach(situation, plugins, client_instance_id=client)
        assert ("Sunday" in made.reason) == (function is better)
        assert made.reason == made.entry.attach_reason


def test_a_rehearsal_names_the_cases_that_new_rules_change_and_writes_nothing(
    scenery: Scenery,
) -> None:
    commands = recordings.commands("codex") + recordings.commands("claude-code")
    situations = [recorded_situation(situation) for _, situation, _ in commands]
    rule = AttachRuleSetting(
        name="children", when={"native_parent_actor_key": "codex:*"}, attach_to="parent",
        before="native-actor-key",
    )  # fmt: skip
    cases = rehearse(
        scenery.registry,
        situations,
        PLUGINS,
        AttachWish(),
        before=ATTACH_RULES,
        after=rules_in_force(team(rule), PLUGINS),
    )
    changed = [c["actor"] for (_, _, c), case in zip(commands, cases, strict=True) if case.changed]
    assert set(changed) <= {
        key for key, actor in recordings.actors("codex").items() if actor["parent_key"]
    }
    assert scenery.entries() == []


def test_a_dry_run_writes_nothing(scenery: Scenery) -> None:
    codex = scenery.host.spawn(["codex"])
    decision = scenery.attach(scenery.below(codex, environ=codex_env("t1")), dry_run=True)
    assert decision.created
    assert scenery.entries() == []


def test_of_several_actors_in_one_process_the_probe_tells_which_one_asks(
    scenery: Scenery, monkeypatch: pytest.MonkeyPatch
) -> None:
    codex = scenery.host.spawn(["codex"], ppid=1)
    root = scenery.attach(scenery.below(codex, environ=codex_env("root"))).entry
    kid = scenery.attach(scenery.below(codex, environ=codex_env("kid", "root"))).entry
    monkeypatch.setattr("heddle_registry.surroundings.plugins_here", lambda *_: PLUGINS)
    for environ, asker in ((codex_env("kid", "root"), kid), (codex_env("root"), root), ({}, root)):
        scenery.host.spawn(["bash"], ppid=codex, act_as=True, environment=environ)
        assert find_asker(scenery.registry) == asker
    # Leaked into a shell that no harness is above of, the same variables name nobody.
    scenery.host.spawn(["bash"], ppid=1, act_as=True, environment=codex_env("kid", "root"))
    assert find_asker(scenery.registry) is None


def test_many_who_attach_one_actor_at_once_make_one_entry(scenery: Scenery) -> None:
    codex = scenery.host.spawn(["codex"])
    situation = scenery.below(codex, environ=codex_env("t1"))
    start = threading.Barrier(6)

    def attach(_: int) -> AttachDecision:
        start.wait(60)
        wish = AttachWish(client_instance_id="c1")
        return attach_situation(scenery.registry, situation, PLUGINS, wish, rules=ATTACH_RULES)

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(attach, range(6)))
    assert len({decision.entry.session_id for decision in made}) == 1
    assert sum(decision.created for decision in made) == 1
    assert len(scenery.entries()) == 1
