"""For every operation of the store: every I/O call in turn fails in every way, or kills.

Outcomes: ``done`` (the answer is true and on the disk), ``refused`` (nothing was changed),
``denied`` (somebody else has the branch; nothing was changed), ``unknown`` (old or new, and
readable), ``killed``. Whatever it was, the next writer finds a sound registry.

``python -m tests.reliability.test_every_boundary`` prints the whole table.
"""

from __future__ import annotations

import collections
import copy
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentStatus
from heddle_registry.codec import claim_from_toml, claim_to_toml, entry_from_toml, entry_to_toml
from heddle_registry.core.claim import EndCause
from tests.registry.world import World
from tests.reliability.boundaries import (
    OPERATIONS,
    Operation,
    aftermath,
    assert_kept,
    classify,
    copy_of,
    fences_of,
    forget,
    in_folder,
    records_of,
    signature_of,
)
from tests.reliability.io_faults import (
    FAULTS,
    KILL,
    KILLED_STATUS,
    NEEDS_SPACE,
    Faults,
    no_waiting_for_the_disk,
    quick_folder,
)
from tests.reliability.mending import MENDING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a death is a fork's")

Table = dict[tuple[str, str], collections.Counter[str]]
EVERYTHING = (*OPERATIONS, *MENDING)
MOST_CALLS = 2_000
LOOKS = {"open", "stat", "lstat", "fstat", "read", "pread", "listdir", "scandir", "access", "dup"}


class Trial:
    """One operation on copies of one prepared folder."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self._folder = folder
        self._template = folder / "template" / ".heddle"
        self._template.parent.mkdir(parents=True)
        self._world = World("directory", self._template.parent)
        self._given = operation.prepare(self._world)
        forget(self._template)
        self.before = self._records(self._template)
        self._fences = fences_of(self._template)
        self._runs = 0
        self._proven: set[object] = set()
        world, _, target = self._fresh()
        self.right_answer = operation.act(world, self._given)
        self.after = self._records(target)
        self._put_away(target)

    def _records(self, folder: Path) -> dict[str, bytes]:
        # Where a damaged entry lies is no part of what an operation changes or leaves.
        return {
            name: data
            for name, data in records_of(folder).items()
            if not (name.startswith("agents/") and data == self.operation.keeps)
        }

    def _fresh(self) -> tuple[World, Any, Path]:
        # Where the original lay, so that every path in it is still right.
        self._runs += 1
        target = self._template
        if self._runs == 1:
            self._kept = self._folder / "kept"
            if target.exists():
                os.rename(target, self._kept)
        copy_of(self._kept, target)
        world = in_folder(self._world, target)
        world.host = copy.deepcopy(self._world.host)
        return in_folder(world, target, index=self.operation.index), self._given, target

    def _put_away(self, target: Path) -> None:
        forget(target)
        shutil.rmtree(target, ignore_errors=True)

    def run(self, nth: int, fault: str) -> tuple[str, str] | None:
        """Let call ``nth`` fail; answer the call and the outcome, None when it never came."""
        code = FAULTS[fault]
        world, given, target = self._fresh()
        try:
            if code == KILL:
                call = self._killed(world, given, target, nth)
                outcome = "killed"
            else:
                call, outcome = self._failed(world, given, target, nth, code)
            if call is None:
                return None
            state = signature_of(target)
            assert_kept(target, self.operation.keeps)
            if state not in self._proven:
                if self.operation.mends is not None:
                    self.operation.mends(in_folder(world, target))
                aftermath(world, self._fences)
                self._proven.add(state)
            return call, outcome
        finally:
            self._put_away(target)

    def _failed(
        self, world: World, given: Any, target: Path, nth: int, code: int
    ) -> tuple[str | None, str]:
        error: BaseException | None = None
        answer: object = None
        with Faults(str(target), nth, code) as faults:
            try:
                answer = self.operation.act(world, given)
            except BaseException as raised:
                error = raised
        if faults.failed is None:
            return None, ""
        where = f"{faults.failed.name} {_kind(faults.failed.path)}"
        records = self._records(target)
        try:
            outcome = classify(error)
            self._judge(outcome, answer, records)
            if outcome == "done" and self.operation.proves is not None:
                self.operation.proves(target, answer)
            assert not faults.open_fds, f"left open: {faults.open_fds}"
        except BaseException as found:
            found.add_note(f"{self.operation.name}: call {nth}, {where}, errno {code}: {error!r}")
            raise
        return where, outcome

    def _judge(self, outcome: str, answer: object, records: dict[str, bytes]) -> None:
        if outcome in ("refused", "denied"):
            assert records == self.before, "refused, and yet something was changed"
        elif outcome == "unknown":
            self._judge_old_or_new(records, self._given_back if self.operation.grants else {})
        elif self.operation.looks:
            assert answer == self.right_answer, "a look said what is not so"
            assert records == self.before
        elif self.operation.refuses:
            assert records == self.before
        else:
            changed = {name for name in records if records[name] != self.before.get(name)}
            wanted = {name for name in self.after if self.after[name] != self.before.get(name)}
            # Ids, tokens and salts are the same in every run: the host is a copy of one.
            assert wanted - changed <= _tidying(self), f"done, but not written: {wanted - changed}"

    def _judge_old_or_new(
        self, records: dict[str, bytes], given_back: dict[str, bytes] | None = None
    ) -> None:
        odd: dict[str, bytes | None] = {
            name: records.get(name)
            for name in records.keys() | self.before.keys()
            if records.get(name) not in (self.before.get(name), self.after.get(name))
        }
        assert odd in ({}, given_back or {}), f"neither the old one nor the new: {odd}"

    @property
    def _given_back(self) -> dict[str, bytes]:
        # Whoever cannot be told its token has its branch given back: its entry is Abandoned.
        claims = {name: data for name, data in self.after.items() if name.startswith("claims/")}
        [(name, data)] = claims.items() - self.before.items()
        claim = claim_from_toml(data, name)
        assert claim.holder is not None
        of_entry = f"agents/{claim.holder.session_id}.toml"
        entry = entry_from_toml(self.after[of_entry], of_entry)
        now = self._world.host.now().at
        return {
            name: claim_to_toml(claim.ended(EndCause.RELEASED, now, reason="abandoned")),
            of_entry: entry_to_toml(
                attrs.evolve(entry, status=AgentStatus.ABANDONED, completed_at=now)
            ),
        }

    def _killed(self, world: World, given: Any, target: Path, nth: int) -> str | None:
        reads, writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reads)
                with Faults(str(target), nth, KILL) as faults:
                    faults.report = writes  # type: ignore[attr-defined]
                    self.operation.act(world, given)
                status = 0
            except BaseException as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(status)
        os.close(writes)
        os.close(reads)
        _, ended = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(ended)
        if status == 0:
            return None
        assert status == KILLED_STATUS, f"{self.operation.name}: call {nth}: status {status}"
        self._judge_old_or_new(self._records(target))
        return self.names[nth - 1]

    @property
    def names(self) -> list[str]:
        """What the calls of an undisturbed run are, in order."""
        if not hasattr(self, "_names"):
            world, given, target = self._fresh()
            with Faults(str(target)) as faults:
                self.operation.act(world, given)
            self._put_away(target)
            self._names = [f"{call.name} {_kind(call.path)}" for call in faults.calls]
        return self._names


def _tidying(trial: Trial) -> set[str]:
    """Return what only tidies up behind the commit, and may be left to the next writer.

    A sweep ends what it can read, and is not asked for more.
    """
    tidies = ("reserve", "take over", "force", "hand over", "sweep")
    if not trial.operation.name.startswith(tidies):
        return set()
    wanted = trial.after.keys() & trial.before.keys()
    return {name for name in wanted if name.startswith("agents/")} | (
        set(wanted) if trial.operation.name.startswith("sweep") else set()
    )


def _kind(path: str) -> str:
    first, _, rest = path.partition("/")
    return f"{first}/*" if rest else first


def table_of(operation: Operation, folder: Path, *, thorough: bool = False) -> Table:
    """Run one operation through every fault at every call."""
    trial = Trial(operation, folder)
    table: Table = collections.defaultdict(collections.Counter)
    for fault in FAULTS:
        nth = 0
        while True:
            nth += 1
            assert nth < MOST_CALLS, "the calls have no end"
            if not thorough and not _tells_more(trial.names, nth, fault):
                continue
            found = trial.run(nth, fault)
            if found is None:
                # None was left out: as many calls met the fault as there are.
                assert nth >= len(trial.names), (nth, fault)
                break
            call, outcome = found
            table[call, fault][outcome] += 1
    return table


def _tells_more(names: list[str], nth: int, fault: str) -> bool:
    """Return whether this run can come out differently from another that is made anyway.

    A death at a call that only looks is the death at the next call that changes something. A call
    that only looks needs no space and no writable disk; it can find a bad disk or a closed door.
    """
    if nth > len(names):
        return True
    name = names[nth - 1].split(maxsplit=1)[0]
    if fault == "full":
        return name in NEEDS_SPACE
    return name not in LOOKS or fault in ("EIO", "EACCES")


def lines_of(name: str, table: Table) -> list[str]:
    """Return the table as text: a line a call and outcome, the faults behind it."""
    rows: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for (call, fault), outcomes in table.items():
        for outcome, count in outcomes.items():
            rows[call, outcome].append(fault if count == 1 else f"{fault}*{count}")
    return [f"{name} | {call} | {outcome} | {' '.join(faults)}"
            for (call, outcome), faults in sorted(rows.items())]  # fmt: skip


@pytest.mark.parametrize("operation", EVERYTHING, ids=lambda operation: operation.name)
def test_whatever_call_fails_nothing_is_lost_and_nothing_is_given_twice(
    operation: Operation,
) -> None:
    with quick_folder() as folder, no_waiting_for_the_disk():
        table = table_of(operation, folder)
    print("\n".join(lines_of(operation.name, table)))
    changes = any(call.split()[0] not in LOOKS for call, _ in table)
    assert {fault for _, fault in table} - {"full"} == (
        set(FAULTS) - {"full"} if changes else {"EIO", "EACCES"}
    )


def test_undisturbed_the_quick_heartbeat_is_the_one_that_renews() -> None:
    [operation] = [one for one in OPERATIONS if one.name == "renew by the quick heartbeat"]
    with quick_folder() as folder:
        assert Trial(operation, folder).right_answer is True


@pytest.mark.nightly
@pytest.mark.parametrize("operation", EVERYTHING, ids=lambda operation: operation.name)
def test_the_same_with_every_fault_at_every_call_that_only_looks(
    operation: Operation,
) -> None:
    with quick_folder() as folder, no_waiting_for_the_disk():
        table = table_of(operation, folder, thorough=True)
    print("\n".join(lines_of(operation.name, table)))


def main() -> None:
    """Print the table operation, call, outcome, faults."""
    total: collections.Counter[str] = collections.Counter()
    for operation in EVERYTHING:
        with quick_folder() as folder, no_waiting_for_the_disk():
            table = table_of(operation, folder, thorough="--thorough" in sys.argv)
        print("\n".join(lines_of(operation.name, table)), flush=True)
        for outcomes in table.values():
            total.update(outcomes)
    print(f"{sum(total.values())} runs: " + ", ".join(f"{n} {o}" for o, n in total.most_common()))


if __name__ == "__main__":
    sys.exit(main())
