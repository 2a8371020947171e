"""What no test would have missed, until a mutation asked: answers for people, rare neighbours."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import (
    Claim,
    ClaimHolder,
    ClaimState,
    EndCause,
    PastHolder,
    TtlReading,
    with_ttl,
)
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.evidence import (
    Evidence,
    LivenessFile,
    Observation,
    ProcessState,
    Subject,
    Verdict,
    VerdictKind,
    judge,
)
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.renew import bearer_refusal
from heddle_registry.core.reserve import LiveOwner, Reserved
from heddle_registry.core.standing import (
    Standing,
    Witness,
    entry_verdict,
    holder_sentence,
    presence_frees,
    presence_sentence,
)
from heddle_registry.errors import ClaimLost
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    FENCE,
    NOW,
    make_entry,
    owner_of,
    token_hash,
)
from tests.core.exploration_shapes import DEAD, NOBODY, Branch, ClaimShape, HolderShape
from tests.core.situations import ALICE, BOB, HOLDER, IN_STATE, Situation, new_entry, present

COMPLETE = AgentStatus.COMPLETE
ALIVE = Verdict(VerdictKind.ALIVE, (Evidence("process", "it runs"),))
UNKNOWN = Verdict(VerdictKind.UNKNOWN, (Evidence("no_pid", "it recorded no process"),))


def _holder(**fields: object) -> ClaimHolder:
    told = {"session_id": HOLDER, "granted_at": NOW.at, "renewed_at": NOW, **fields}
    return ClaimHolder(**told)


def _standing(state: ClaimState, verdict: Verdict = ALIVE, **holder: object) -> Standing:
    claim = Claim(thread=BRANCH, fence=FENCE, holder=_holder(**holder))
    entry = make_entry(HOLDER, ALICE, mark=True)
    return Standing(claim=claim, state=state, entry=entry, verdict=verdict, ttl=None)


@pytest.mark.parametrize(
    ("reason", "ending"), [("", str(NOW.at)), ("why not", f"{NOW.at}: why not")]
)
def test_a_story_ends_with_its_reason_or_with_the_moment(reason: str, ending: str) -> None:
    for cause in EndCause:
        past = PastHolder(session_id="a", fence=1, ended_at=NOW.at, cause=cause, reason=reason)
        assert past.story().endswith(ending), cause


def test_the_evidence_of_a_living_holder_comes_before_its_ttl_and_of_an_unknown_one_after() -> None:
    ttl = TtlReading(left_s=60, wall_clock=False)
    assert [e.code for e in with_ttl(ALIVE, ttl).evidence] == ["process", "ttl_running"]
    assert [e.code for e in with_ttl(UNKNOWN, ttl).evidence] == ["ttl_running", "no_pid"]


def test_what_frees_a_branch_names_the_process_with_its_command_where_one_is_known() -> None:
    named = attrs.evolve(owner_of(ALICE), command="claude")
    nameless = attrs.evolve(owner_of(ALICE), command="")
    state = ClaimState.HELD
    assert f"process {named.pid} (claude) ends" in _standing(state, owner=named).frees_when()
    assert f"process {named.pid} ends" in _standing(state, owner=nameless).frees_when()
    lock = LivenessFile(device=1, inode=2)
    assert "its process ends" in _standing(state, liveness=lock).frees_when()
    assert "process" not in _standing(state).frees_when()


def test_an_entry_beside_the_holder_is_judged_by_itself() -> None:
    beside = present("beside", NOBODY)
    claim = IN_STATE[ClaimState.HELD]
    situation = Situation(claim)
    situation.add(beside)
    witness = Witness(FACTS)
    holders = entry_verdict(situation.entries[HOLDER], situation.claim, witness, NOW)
    assert holders.is_alive
    assert not entry_verdict(beside, situation.claim, witness, NOW).is_alive


def test_evidence_names_a_process_with_its_command_where_one_is_known() -> None:
    for command, name in (("claude", "process 100 (claude)"), ("", "process 100")):
        owner = attrs.evolve(owner_of(ALICE), command=command, pid=100)
        seen = Observation(
            boot_id=owner.boot_id, host=owner.host, pid_ns=owner.pid_ns, time_ns=owner.time_ns,
            process=ProcessState.MISSING,
        )  # fmt: skip
        verdict = judge(Subject(session_id="a", owner=owner), seen)
        assert verdict.evidence[0].detail == f"{name} is gone"


def test_a_held_and_a_lost_branch_are_told_apart_in_words() -> None:
    held = holder_sentence(_standing(ClaimState.HELD))
    assert held == f"{HOLDER} holds it since {NOW.at}: it runs"
    lost = holder_sentence(_standing(ClaimState.LOST))
    assert "another program ended the entry" in lost
    assert "may still write" in lost
    assert "holds it" not in lost


@pytest.mark.parametrize("harness", [None, "codex"])
def test_an_entry_is_named_with_its_harness_where_one_is_known(harness: str | None) -> None:
    entry = attrs.evolve(present("there", ALICE), harness=harness)
    told = presence_sentence(entry, ALIVE)
    assert told.startswith("there (codex) is there" if harness else "there is there")


def test_what_would_free_an_occupied_branch_depends_on_whether_anybody_can_tell() -> None:
    for agent, pid, words in (
        (ALICE, owner_of(ALICE).pid, "ends"),
        (NOBODY, None, "--status abandoned"),
    ):
        situation = Situation()
        situation.add(attrs.evolve(present("there", agent), pid=pid))
        refused = situation.reserve(keep=False).answer
        assert isinstance(refused, LiveOwner)
        assert words in refused.frees_when
        assert ("process" in refused.frees_when) == (pid is not None)


def test_a_recorded_process_frees_nothing_where_nobody_can_tell_whether_it_lives() -> None:
    entry = attrs.evolve(present("there", ALICE), pid=7)
    assert presence_frees(entry, ALIVE) == "It frees when process 7 or the session ends"
    assert presence_frees(entry, UNKNOWN).startswith("Nobody can tell whether it lives")
    nameless = attrs.evolve(entry, pid=None)
    assert presence_frees(nameless, ALIVE).startswith("Nobody can tell whether it lives")


def test_force_ends_everybody_who_is_not_proven_alive_however_many() -> None:
    situation = Situation()
    names = [f"ghost-{number:02d}" for number in range(MAX_SWEEP + 5)]
    for name in names:
        situation.add(present(name, NOBODY))
    assert isinstance(situation.reserve(force_reason="they are gone").answer, Reserved)
    assert {situation.status_of(name) for name in names} == {AgentStatus.ABANDONED}


def test_a_claim_without_a_folder_stands_in_nobodys_way_on_another_branch() -> None:
    situation = Situation()
    assert isinstance(situation.reserve(ALICE, session_id="asker").answer, Reserved)
    other = situation.reserve(BOB, thread="other", asker="asker")
    assert isinstance(other.answer, Reserved)


def test_an_asker_without_a_native_key_is_no_relative_of_those_without_a_parent() -> None:
    situation = Situation()
    situation.add(present("asker", BOB, native_actor_key=None, thread="elsewhere"))
    situation.add(present("there", ALICE, native_actor_key=None))
    refused = situation.reserve(session_id="n", agent=NOBODY, owner=None, ttl_s=60.0, asker="asker")
    assert isinstance(refused.answer, LiveOwner)


def test_an_askers_child_is_a_relative_though_a_newer_entry_has_its_key() -> None:
    situation = Situation()
    situation.add(present("asker", BOB, native_actor_key="k", thread="elsewhere"))
    newer = present("newer", ALICE, native_actor_key="k", thread="elsewhere")
    situation.add(attrs.evolve(newer, session_id="zz-newer"))
    situation.add(present("child", ALICE, native_parent_actor_key="k"))
    granted = situation.reserve(session_id="n", agent=NOBODY, owner=None, ttl_s=60.0, asker="asker")
    assert isinstance(granted.answer, Reserved)


@pytest.mark.parametrize("state", [ClaimState.HELD, ClaimState.LOST])
def test_force_keeps_its_reason_for_the_one_it_was_used_on(state: ClaimState) -> None:
    situation = Situation(IN_STATE[state])
    situation.reserve(force_reason="the release is today")
    assert situation.claim.past[0].reason == "the release is today"
    assert situation.claim.past[0].by == "n"


def test_who_takes_a_branch_after_half_a_release_says_that_it_was_released() -> None:
    situation = Situation(IN_STATE[ClaimState.HELD])
    ended = attrs.evolve(
        situation.entries[HOLDER], status=AgentStatus.COMPLETE, completed_at=NOW.at
    )
    situation.add(ended.extended(fence=FENCE))
    assert isinstance(situation.reserve().answer, Reserved)
    assert situation.claim.past[0].cause is EndCause.RELEASED


def test_new_entries_of_these_tests_are_plain() -> None:
    assert new_entry().extension is None


def test_a_holder_whose_claim_file_is_gone_is_renewed_by_its_entrys_copies() -> None:
    situation = Situation(IN_STATE[ClaimState.HELD])
    bystander = Claim(thread="elsewhere", fence=7)
    situation.claims = {"elsewhere": bystander}
    renewed = situation.renew()
    assert renewed.refusal is None
    assert renewed.answer.fence == FENCE
    assert situation.claim.holder is not None
    assert situation.claim.holder.session_id == HOLDER


def test_an_ended_entry_that_becomes_merged_wakes_nobody() -> None:
    situation = Situation(IN_STATE[ClaimState.HELD])
    first = situation.release(EntryEvent.COMPLETE)
    assert first.freed == (BRANCH,)
    assert situation.claim.past[0].reason == "complete"
    second = situation.release(EntryEvent.MERGE)
    assert second.refusal is None
    assert second.freed == ()


def test_an_entry_with_a_token_and_without_a_claim_asks_for_it_at_its_end() -> None:
    situation = Situation()
    situation.add(attrs.evolve(present("rust", ALICE), reservation_token="its own"))
    refused = situation.release(EntryEvent.COMPLETE, "guess", session_id="rust")
    assert isinstance(refused.refusal, ClaimLost)
    assert refused.effects == ()
    ended = situation.release(EntryEvent.COMPLETE, "its own", session_id="rust")
    assert ended.refusal is None


def test_who_ends_beside_a_lost_claim_leaves_the_claim_alone() -> None:
    situation = Situation(IN_STATE[ClaimState.LOST])
    situation.add(present("beside", BOB))
    before = situation.claim
    ended = situation.release(EntryEvent.COMPLETE, None, session_id="beside")
    assert situation.claim == before
    assert isinstance(ended.refusal, ClaimLost) or situation.status_of("beside") is COMPLETE


def _told(asker: str, *, is_held: bool, newest_by: str) -> str:
    # Three ended one after another; each is told from its own end forward, and nothing before.
    def past(session_id: str, fence: int, cause: EndCause, by: str) -> PastHolder:
        return PastHolder(
            session_id=session_id, fence=fence, token=token_hash(session_id), ended_at=NOW.at,
            cause=cause, by=by,
        )  # fmt: skip

    claim = Claim(
        thread=BRANCH,
        fence=3,
        holder=_holder(session_id="now", token=token_hash("now")) if is_held else None,
        past=(
            past("c", 3, EndCause.DEAD, newest_by),
            past("b", 2, EndCause.HANDED_OVER, "c"),
            past("a", 1, EndCause.RELEASED, ""),
        ),
    )
    refused = bearer_refusal(claim, asker, f"token of {asker}")
    assert isinstance(refused, ClaimLost)
    return refused.why


def test_a_story_is_told_from_ones_own_end_forward_and_says_whether_the_branch_is_free() -> None:
    handed, died, free = "handed over to c", "found dead", "the branch is free"
    told = _told("b", is_held=False, newest_by="")
    assert told.index(handed) < told.index(died) < told.index(free)
    assert "released" not in told  # that is of the one before
    assert free not in _told("b", is_held=True, newest_by="")
    assert free not in _told("b", is_held=False, newest_by="somebody")
    assert free not in _told("c", is_held=False, newest_by="")


def _with_a_dead_holder() -> Situation:
    held = HolderShape("active", DEAD, True, DEAD, believes=True, done=False)
    return Situation(Branch(ClaimShape(held=True, owner=DEAD), held))


def test_a_dead_owners_bearer_is_told_by_what_evidence_and_the_branch_is_freed() -> None:
    situation = _with_a_dead_holder()
    refused = situation.renew()
    assert isinstance(refused.refusal, ClaimLost)
    assert refused.freed == (BRANCH,)
    past = situation.claim.past[0]
    assert past.cause is EndCause.DEAD
    assert past.reason
    assert past.reason in refused.refusal.why
    assert situation.status_of(HOLDER) is AgentStatus.ABANDONED


def test_a_newer_programs_entry_of_a_dead_owner_is_left_to_that_program() -> None:
    situation = _with_a_dead_holder()
    situation.add(situation.entries[HOLDER].extended(schema=SCHEMA + 1))
    refused = situation.renew()
    assert isinstance(refused.refusal, ClaimLost)
    assert (refused.effects, refused.freed) == ((), ())
    situation.add(situation.entries[HOLDER].extended(schema=SCHEMA))
    assert situation.renew().freed == (BRANCH,)


def test_a_bearer_who_lost_a_living_claim_frees_nothing() -> None:
    refused = Situation(IN_STATE[ClaimState.LOST]).renew()
    assert isinstance(refused.refusal, ClaimLost)
    assert refused.freed == ()


@pytest.mark.parametrize("guess", ["\ud800", "", "x"])
def test_no_guess_at_a_clear_text_token_is_an_error_of_its_own(guess: str) -> None:
    situation = Situation()
    situation.add(attrs.evolve(present("rust", ALICE), reservation_token="its own"))
    assert isinstance(situation.renew("rust", guess).refusal, ClaimLost)
