from __future__ import annotations

import itertools
from collections import Counter

import attrs
import pytest

from heddle_registry.core.evidence import (
    LivenessFact,
    LivenessFile,
    Observation,
    Owner,
    ProcessState,
    Subject,
    VerdictKind,
    judge,
)

ALIVE, DEAD, UNKNOWN = VerdictKind.ALIVE, VerdictKind.DEAD, VerdictKind.UNKNOWN
HELD, FREE = LivenessFact.HELD, LivenessFact.FREE
MISSING, ZOMBIE, RUNNING, HIDDEN = (
    ProcessState.MISSING,
    ProcessState.ZOMBIE,
    ProcessState.RUNNING,
    ProcessState.HIDDEN,
)
LOCK_FILE = LivenessFile(device=1, inode=2)

SEEN = [
    Observation(
        boot_id=boot,
        host="here",
        pid_ns="P",
        time_ns="T",
        in_inner_pid_ns=inner,
        liveness=lock,
        process=process,
        start_ticks=ticks,
    )
    for boot, inner, lock, process, ticks in itertools.product(
        ("now", ""), (False, True), (None, HELD, FREE), (None, *ProcessState), (None, 5, 6)
    )
]
OWNED = [
    Subject(
        session_id="agent-a",
        liveness=lock_file,
        owner=Owner(pid=7, boot_id=boot, host=host, pid_ns=pid_ns, time_ns=time_ns, start_ticks=at),
    )
    for lock_file, boot, host, pid_ns, time_ns, at in itertools.product(
        (None, LOCK_FILE),
        ("now", "before", ""),
        ("here", "there", ""),
        ("P", "Q"),
        ("T", "U"),
        (5, None),
    )
]
UNOWNED = [
    Subject(session_id="agent-a", liveness=lock_file, boot_id=boot, pid=pid)
    for lock_file, boot, pid in itertools.product(
        (None, LOCK_FILE), ("now", "before", ""), (7, None)
    )
]


def verdict_by_the_table(who: Subject, seen: Observation) -> VerdictKind:
    """The design's evidence table, its rows in their order, for a record with an owner."""
    owner = who.owner
    assert owner is not None
    boots_known = "" not in (owner.boot_id, seen.boot_id)
    same_boot = boots_known and owner.boot_id == seen.boot_id
    other_boot = boots_known and owner.boot_id != seen.boot_id
    same_namespaces = owner.pid_ns == seen.pid_ns and owner.time_ns == seen.time_ns
    lock = seen.liveness if who.liveness else None
    both_starts = seen.process is RUNNING and None not in (owner.start_ticks, seen.start_ticks)
    same_start = both_starts and owner.start_ticks == seen.start_ticks
    rows = [
        (lock is HELD, ALIVE),
        # The one deviation: whoever is seen alive may have closed what it inherited.
        (same_boot and same_namespaces and same_start, ALIVE),
        (lock is FREE and same_boot, DEAD),
        (other_boot and owner.host == seen.host, DEAD),
        (other_boot, UNKNOWN),
        (not boots_known, UNKNOWN),
        (not same_namespaces, UNKNOWN),
        (seen.process in (MISSING, ZOMBIE), DEAD),
        (both_starts and not same_start, DEAD),
        (True, UNKNOWN),
    ]
    return next(kind for applies, kind in rows if applies)


def verdict_as_the_original(who: Subject, seen: Observation) -> VerdictKind:
    """`(pid, boot_id)` as the Rust tool judges it, with the two exceptions of the design."""
    assert who.owner is None
    lock = seen.liveness if who.liveness else None
    if lock is HELD:
        return ALIVE
    if lock is FREE and who.boot_id and who.boot_id == seen.boot_id:
        return DEAD
    if who.pid is None:
        return UNKNOWN
    if "" not in (who.boot_id, seen.boot_id) and who.boot_id != seen.boot_id:
        return DEAD
    return {
        MISSING: UNKNOWN if seen.in_inner_pid_ns else DEAD,
        ZOMBIE: DEAD,
        RUNNING: ALIVE,
        HIDDEN: ALIVE,
        None: UNKNOWN,
    }[seen.process]


def test_every_combination_of_facts_about_an_owner_is_judged_by_the_first_row_that_applies() -> (
    None
):
    seen_kinds: Counter[VerdictKind] = Counter()
    for who, seen in itertools.product(OWNED, SEEN):
        verdict = judge(who, seen)
        assert verdict.kind is verdict_by_the_table(who, seen), (who, seen)
        assert verdict.evidence, "a verdict without a reason"
        seen_kinds[verdict.kind] += 1
    assert min(seen_kinds[kind] for kind in VerdictKind) > 500


def test_every_combination_of_facts_without_an_owner_is_judged_as_the_original_would() -> None:
    for who, seen in itertools.product(UNOWNED, SEEN):
        verdict = judge(who, seen)
        assert verdict.kind is verdict_as_the_original(who, seen), (who, seen)
        assert verdict.evidence


def test_a_fact_that_goes_missing_never_makes_an_unknown_owner_dead() -> None:
    blanks = (
        {"liveness": None},
        {"process": None, "start_ticks": None},
        {"start_ticks": None},
        {"host": ""},
        {"boot_id": ""},
    )
    owner_blanks = ({"host": ""}, {"boot_id": ""}, {"start_ticks": None})
    for who, seen in itertools.product(OWNED, SEEN):
        if judge(who, seen).kind is not UNKNOWN:
            continue
        for blank in blanks:
            assert not judge(who, attrs.evolve(seen, **blank)).is_dead, (who, seen, blank)
        for blank in owner_blanks:
            assert who.owner is not None
            blanked = attrs.evolve(who, owner=attrs.evolve(who.owner, **blank))
            assert not judge(blanked, seen).is_dead, (blanked, seen)


def test_nobody_looked_means_unknown() -> None:
    for who in (*OWNED, *UNOWNED):
        assert judge(who, None).kind is UNKNOWN


US = Observation(boot_id="now", host="here", pid_ns="P", time_ns="T")
OWNER = Owner(
    pid=7, boot_id="now", host="here", pid_ns="P", time_ns="T", start_ticks=5, command="claude"
)


@pytest.mark.parametrize(
    ("owner", "seen", "codes"),
    [
        (OWNER, attrs.evolve(US, liveness=HELD, process=MISSING), ["lock_held", "exited"]),
        (OWNER, attrs.evolve(US, liveness=HELD, descriptor_pids=(8,)), ["lock_held", "lock_pids"]),
        (OWNER, attrs.evolve(US, liveness=FREE, process=ZOMBIE), ["lock_free", "zombie"]),
        (OWNER, attrs.evolve(US, liveness=FREE, process=RUNNING, start_ticks=5), ["process"]),
        (OWNER, attrs.evolve(US, process=RUNNING, start_ticks=9), ["pid_reused"]),
        (OWNER, attrs.evolve(US, process=HIDDEN), ["no_start_time"]),
        (OWNER, attrs.evolve(US, boot_id="later"), ["rebooted"]),
        (OWNER, attrs.evolve(US, boot_id="later", host="there"), ["other_host"]),
        (OWNER, attrs.evolve(US, boot_id="", process=MISSING), ["no_boot_id"]),
        (OWNER, attrs.evolve(US, pid_ns="Q"), ["other_namespace"]),
        (OWNER, attrs.evolve(US, time_ns="U", process=MISSING), ["other_namespace"]),
    ],
)
def test_the_deciding_reason_comes_first_under_its_stable_code(
    owner: Owner, seen: Observation, codes: list[str]
) -> None:
    who = Subject(session_id="agent-a", owner=owner, liveness=LOCK_FILE)
    assert [reason.code for reason in judge(who, seen).evidence] == codes


def test_reasons_name_the_process_for_people() -> None:
    gone = judge(Subject(session_id="a", owner=OWNER), attrs.evolve(US, process=MISSING))
    assert "7" in gone.evidence[0].detail
    assert "claude" in gone.evidence[0].detail


def test_two_records_name_one_process_only_when_the_start_is_known_and_all_agrees() -> None:
    assert OWNER.is_same_process(attrs.evolve(OWNER, command="renamed"))
    assert not OWNER.is_same_process(None)
    without = attrs.evolve(OWNER, start_ticks=None)
    assert not without.is_same_process(without)
    for change in ({"pid": 8}, {"start_ticks": 6}, {"boot_id": "x"}, {"pid_ns": "x"}):
        assert not OWNER.is_same_process(attrs.evolve(OWNER, **change))
