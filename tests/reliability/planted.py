"""Bugs that somebody may make, each patched into the running program.

Only what is looked up at call time can be broken here; the rest is what tests/mutation is for.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry import ClaimLost
from heddle_registry.adapters import (
    atomic_file,
    layout,
    line,
    liveness_file,
    lock_file,
    moving,
    query_log,
    writing,
)
from heddle_registry.adapters.index import Index
from heddle_registry.adapters.layout import Layout
from heddle_registry.adapters.record_files import RecordFile, RecordFiles
from heddle_registry.core import evidence, release, renew, reserve, standing
from heddle_registry.core.claim import Claim, ClaimState
from heddle_registry.core.evidence import (
    Evidence,
    Observation,
    ProcessState,
    Verdict,
    VerdictKind,
)
from heddle_registry.core.renew import FenceAnswer
from heddle_registry.core.timestamp import NS_PER_S, Instant
from heddle_registry.core.transaction import Damage
from heddle_registry.registry import attempt
from tests.reliability import promises

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


@attrs.frozen
class Bug:
    """One bug: the class of failure, what is wrong, how to plant it, what must notice."""

    kind: str
    name: str
    plant: Callable[[pytest.MonkeyPatch], None]
    check: Callable[[Path], None]


def _patched(target: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, value)


def _lockf(patch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return fcntl.lockf if name == "flock" else getattr(fcntl, name)

    patch.setattr(lock_file, "fcntl", Wrong())


def _close_only(fd: int) -> None:
    if lock_file._open.pop(fd, None) is not None:
        os.close(fd)


def _no_file_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(atomic_file, "_sync_file", lambda _: None)


def _no_folder_sync(patch: pytest.MonkeyPatch) -> None:
    for module in (atomic_file, query_log):
        patch.setattr(module, "sync_folder", lambda *_, **__: None)


def _claim_first(patch: pytest.MonkeyPatch) -> None:
    decide = attempt.decide_reserve

    def turned(*given: Any) -> Any:
        decision = decide(*given)
        effects = getattr(decision, "effects", ())
        if len(effects) >= 2:
            return attrs.evolve(decision, effects=(effects[1], effects[0], *effects[2:]))
        return decision

    patch.setattr(attempt, "decide_reserve", turned)


def _always_trusted(patch: pytest.MonkeyPatch) -> None:
    def stamps(self: Index) -> Any:
        connection = self._connect()
        if connection is None:
            return FOLDER_STAMPS(self)
        return tuple(connection.execute("SELECT agents, claims FROM meta").fetchone())

    patch.setattr(Index, "folder_stamps", stamps)


FOLDER_STAMPS = Index.folder_stamps
RECORD = Index.record


def _stamped_regardless(patch: pytest.MonkeyPatch) -> None:
    def record(self: Index, _before: Any, *written: Any) -> None:
        connection = self._connect()
        assert connection is not None
        known = connection.execute("SELECT agents, claims FROM meta").fetchone()
        RECORD(self, tuple(known), *written)

    patch.setattr(Index, "record", record)


def _rows_unverified(patch: pytest.MonkeyPatch) -> None:
    def resolve(self: RecordFiles[Any], rows: Any, *_: Any) -> list[RecordFile[Any]]:
        found = []
        for row in rows:
            file: RecordFile[Any] = RecordFile(row.name, os.path.join(self.folder, row.name), 0)
            file.stamp, file.record = row.stamp, row.record()
            found.append(file)
        return found

    patch.setattr(RecordFiles, "resolve", resolve)


def _wall_clock(self: Instant, earlier: Instant) -> tuple[float, bool]:
    return (self.at.unix_ns - earlier.at.unix_ns) / NS_PER_S, True


def _same_fence(self: Claim, holder: Any, fence: int, path: str | None) -> Claim:
    return attrs.evolve(self, holder=holder, fence=max(self.fence, 1), path=path)


def _any_fence(_standing: Any, fence: int, *_: Any) -> FenceAnswer:
    return FenceAnswer(valid=True, fence=fence, holder=None, why="held")


def _without_entry(patch: pytest.MonkeyPatch) -> None:
    apply = writing.Writer._apply

    def skipping(self: Any, effect: Any) -> None:
        is_new = isinstance(effect, writing.PutEntry) and effect.entry.fence is not None
        if not (is_new and effect.entry.session_id not in self._loaded.entries):
            apply(self, effect)

    patch.setattr(writing.Writer, "_apply", skipping)


def _without_claim(patch: pytest.MonkeyPatch) -> None:
    apply = writing.Writer._apply
    patch.setattr(
        writing.Writer,
        "_apply",
        lambda self, effect: None if isinstance(effect, writing.PutClaim) else apply(self, effect),
    )


def _story_first(claim: Claim, session_id: str, token: str | None) -> Any:
    for past in claim.past:
        if past.session_id == session_id:
            return ClaimLost(claim.thread, by=past.by, why=past.story())
    return PLAIN_REFUSAL(claim, session_id, token)


PLAIN_REFUSAL = renew.bearer_refusal


def _everyone_bears(patch: pytest.MonkeyPatch) -> None:
    for module in (renew, release):
        patch.setattr(module, "bearer_refusal", lambda *_: None)


def _renewed_for_ever(patch: pytest.MonkeyPatch) -> None:
    def forgiving(claim: Claim, session_id: str, token: str | None) -> Any:
        lost = PLAIN_REFUSAL(claim, session_id, token)
        return None if lost is not None and lost.why != "token refused" else lost

    patch.setattr(renew, "bearer_refusal", forgiving)


def _no_story(self: Claim, cause: Any, at: Any, *, by: str = "", reason: str = "") -> Claim:
    return PLAIN_ENDED(self, cause, at)


PLAIN_ENDED = Claim.ended


def _unknown_is_dead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verdict, "is_dead", property(lambda v: v.kind is not VerdictKind.ALIVE))


def _process(wrong: dict[ProcessState, VerdictKind]) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        plain = evidence._process_evidence

        def judged(owner: Any, seen: Observation) -> Any:
            kind = wrong.get(seen.process) if seen.process is not None else None
            return plain(owner, seen) if kind is None else (kind, Evidence("wrong", "wrong"))

        patch.setattr(evidence, "_process_evidence", judged)

    return plant


def _expired_is_held(patch: pytest.MonkeyPatch) -> None:
    plain = standing.claim_state
    patch.setattr(
        standing,
        "claim_state",
        lambda *given: ClaimState.HELD if plain(*given) is ClaimState.EXPIRED else plain(*given),
    )


def _held_is_expired(patch: pytest.MonkeyPatch) -> None:
    plain = standing.claim_state
    patch.setattr(
        standing,
        "claim_state",
        lambda *given: ClaimState.EXPIRED if plain(*given) is ClaimState.HELD else plain(*given),
    )


BUGS = (
    Bug("lock", "lockf instead of flock", _lockf, promises.a_strangers_flock_is_respected),
    Bug(
        "lock",
        "lockf instead of flock, seen from the other side",
        _lockf,
        promises.our_lock_keeps_a_stranger_out,
    ),
    Bug(
        "lock",
        "released by close alone",
        _patched(lock_file, "close_lock", _close_only),
        promises.a_copy_of_the_descriptor_keeps_no_lock,
    ),
    Bug(
        "lock",
        "a replaced lock file is not noticed",
        _patched(lock_file, "is_at", lambda *_: True),
        promises.a_lock_on_a_replaced_file_is_taken_anew,
    ),
    Bug("power", "a file is not synced", _no_file_sync, promises.no_power_cut_tears_or_loses),
    Bug("power", "a folder is not synced", _no_folder_sync, promises.no_power_cut_tears_or_loses),
    Bug(
        "power",
        "a file that is moved has one name at a time",
        _patched(moving, "name_again", lambda *_: False),
        promises.no_power_cut_takes_a_damaged_file,
    ),
    Bug(
        "power",
        "a new folder is not synced",
        _patched(layout, "_sync_name", lambda _: None),
        promises.no_power_cut_takes_a_damaged_file,
    ),
    Bug(
        "power",
        "every replacement leaves its folder's sync out",
        _patched(
            writing,
            "replace_file",
            lambda *a, **k: atomic_file.replace_file(*a, **{**k, "durable_dir": False}),
        ),
        promises.no_power_cut_tears_or_loses,
    ),
    Bug(
        "faults",
        "a failed step is not undone",
        _patched(writing.Writer, "_undo", lambda *_: True),
        promises.whatever_fails_is_told_as_it_is,
    ),
    Bug(
        "faults",
        "appended queries stay after a failure",
        _patched(query_log, "cut_queries", lambda *_: None),
        promises.whatever_fails_is_told_as_it_is,
    ),
    Bug(
        "faults",
        "temp files stay for ever",
        _patched(writing, "sweep_temps", lambda _: 0),
        promises.a_killed_writers_temp_file_goes_with_the_next_write,
    ),
    Bug(
        "index",
        "the folder's stamp is not looked at",
        _always_trusted,
        promises.a_strangers_entry_is_seen,
    ),
    Bug(
        "index",
        "stamped although a stranger was there",
        _stamped_regardless,
        promises.a_strangers_entry_is_seen_after_we_wrote,
    ),
    Bug(
        "index",
        "a row is believed without its file",
        _rows_unverified,
        promises.an_edit_in_place_is_seen,
    ),
    Bug(
        "clock",
        "the TTL runs by the wall clock",
        _patched(Instant, "seconds_since", _wall_clock),
        promises.a_stepped_or_sleeping_clock_ends_no_claim,
    ),
    Bug(
        "clock",
        "the TTL runs by the wall clock, set back",
        _patched(Instant, "seconds_since", _wall_clock),
        promises.a_ttl_ends_a_claim_and_only_then,
    ),
    Bug(
        "clock", "the TTL never passes", _expired_is_held, promises.a_ttl_ends_a_claim_and_only_then
    ),
    Bug(
        "clock",
        "the TTL has always passed",
        _held_is_expired,
        promises.a_ttl_ends_a_claim_and_only_then,
    ),
    Bug(
        "fence",
        "the fence is not raised",
        _patched(Claim, "granted", _same_fence),
        promises.each_holder_has_a_greater_fence,
    ),
    Bug(
        "fence",
        "any fence is good",
        _patched(renew, "judge_fence", _any_fence),
        promises.an_old_fence_and_an_old_token_are_refused,
    ),
    Bug(
        "fence",
        "renewed after a take-over",
        _renewed_for_ever,
        promises.an_old_fence_and_an_old_token_are_refused,
    ),
    Bug(
        "two files",
        "a claim without its entry",
        _without_entry,
        promises.the_holders_entry_is_there,
    ),
    Bug(
        "two files",
        "an entry without its claim",
        _without_claim,
        promises.the_holders_entry_is_there,
    ),
    Bug(
        "two files",
        "an orphan counts as an owner",
        _patched(reserve, "is_orphan", lambda *_: False),
        promises.an_entry_without_its_claim_blocks_nobody,
    ),
    Bug(
        "two files",
        "the claim is written before the entry",
        _claim_first,
        promises.the_entry_is_written_before_the_claim_that_names_it,
    ),
    Bug(
        "token",
        "the story is told before the token is compared",
        _patched(renew, "bearer_refusal", _story_first),
        promises.a_wrong_token_is_told_nothing,
    ),
    Bug(
        "token",
        "the token is not compared",
        _everyone_bears,
        promises.a_wrong_token_is_told_nothing,
    ),
    Bug(
        "token",
        "force without a story",
        _patched(Claim, "ended", _no_story),
        promises.a_forced_holder_is_told_who_and_why,
    ),
    Bug("life", "unknown is dead", _unknown_is_dead, promises.who_cannot_be_seen_is_not_reaped),
    Bug(
        "life",
        "another namespace's pid is believed",
        _patched(evidence, "_is_visible", lambda *_: True),
        promises.a_pid_of_another_namespace_proves_nothing,
    ),
    Bug(
        "life",
        "a zombie lives",
        _process({ProcessState.ZOMBIE: VerdictKind.ALIVE}),
        promises.the_dead_free_their_branch,
    ),
    Bug(
        "life",
        "a pid without its start is believed",
        _process({ProcessState.RUNNING: VerdictKind.ALIVE}),
        promises.the_dead_free_their_branch,
    ),
    Bug(
        "life",
        "a held liveness lock means nothing",
        _patched(liveness_file, "observe_liveness", lambda *_: None),
        promises.a_held_liveness_lock_is_life,
    ),
    Bug(
        "line",
        "a newcomer overtakes",
        _patched(line, "living_tickets", lambda *_: ()),
        promises.nobody_overtakes_who_waits,
    ),
    Bug(
        "line",
        "a dead waiter counts",
        _patched(line, "is_held", lambda _: True),
        promises.a_dead_waiter_is_passed_over,
    ),
    Bug(
        "damage",
        "what cannot be read is not there",
        _patched(Damage, "concerns", lambda *_: False),
        promises.a_damaged_record_closes_its_branch_and_no_other,
    ),
    Bug(
        "damage",
        "what cannot be read closes everything",
        _patched(Damage, "concerns", lambda *_: True),
        promises.a_damaged_record_closes_its_branch_and_no_other,
    ),
    Bug(
        "damage",
        "a newer program's entry is rewritten",
        _patched(writing, "rewrites_newer", lambda *_: False),
        promises.a_newer_programs_entry_is_not_rewritten,
    ),
    Bug(
        "links",
        "a linked folder is swept",
        _patched(Layout, "refuse_links", lambda _: None),
        promises.no_link_is_followed,
    ),
    Bug(
        "folder",
        "one folder for two branches",
        _patched(reserve, "_folder_in_use", lambda *_: None),
        promises.one_folder_is_for_one_branch,
    ),
    Bug(
        "links",
        "whatever lies among the temp files is swept",
        _patched(atomic_file, "is_temp", lambda _: True),
        promises.only_our_own_temp_files_are_swept,
    ),
    Bug(
        "folder",
        "an expired claim is renewed over another's folder",
        _patched(renew, "other_claim_on_folder", lambda *_: None),
        promises.who_lost_the_folder_is_not_renewed,
    ),
)
