"""A power cut at every moment of every operation that writes, with all that the disk may hold.

And both files of a reservation in every order, whether or not a disk could leave them so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.codec import claim_from_toml, entry_from_toml
from heddle_registry.errors import RecordCorrupt
from tests.registry.world import World
from tests.reliability.boundaries import (
    OPERATIONS,
    Operation,
    aftermath,
    fences_of,
    forget,
    in_folder,
    records_of,
)
from tests.reliability.io_faults import Faults, no_waiting_for_the_disk, quick_folder
from tests.reliability.mending import LEFT_OVER, MENDING
from tests.reliability.power_loss import QUARANTINE, Disk, states_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.reliability.io_faults import Call

RENAMED = (
    "move a damaged entry away, without a second name",
    "move a folder away from an entry's place",
    "write a claim anew where a folder lies",
)
"""What can have one name only is moved in one call; the disk decides whether in one step."""
WRITING = tuple(
    operation
    for operation in (*OPERATIONS, *MENDING)
    if not (operation.looks or operation.refuses)
    and operation.name != "join the line"
    and operation.name not in RENAMED
)
LOSABLE = ("renew", "renew by the quick heartbeat")
"""A lost renewal is harmless: the boot whose clock it was counted by is over as well."""
TIDYING = ("remove what is left over", "tidy what is left over")
"""What comes back is removed by the next one."""
INDEXES = ("kept", "gone", "garbage")


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file that nobody may lose: the records, and what was put aside."""
    aside = {str(path.relative_to(folder)): path.read_bytes()
             for path in sorted((folder / QUARANTINE).glob("*"))}  # fmt: skip
    return records_of(folder) | aside


class Outage:
    """One operation, recorded once; then its power cuts, one after another."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self.folder = folder / ".heddle"
        self.world = World("directory", folder)
        given = operation.prepare(self.world)
        self.before = files_of(self.folder)
        self.fences = fences_of(self.folder)
        forget(self.folder)
        world = in_folder(self.world, self.folder)
        self.calls: list[Call] = []
        with Faults(str(self.folder)) as faults:
            operation.act(world, given)
        self.calls = faults.calls
        self.after = files_of(self.folder)
        self.granted = fences_of(self.folder)
        forget(self.folder)
        self._kept = folder / "kept"
        self.folder.rename(self._kept)

    def states(self) -> list[tuple[int, Disk]]:
        """Return what the disk may hold, and after how many calls."""
        return states_of(self.before, self.calls)

    @contextlib.contextmanager
    def rebooted(self, disk: Mapping[str, bytes], index: str) -> Iterator[World]:
        """Put those records into the folder, as another boot of the machine finds them."""
        shutil.copytree(self._kept, self.folder)
        for path in files_of(self.folder):
            os.unlink(self.folder / path)
        for path, data in disk.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)
            if data == self.operation.keeps:
                os.utime(self.folder / path, (1, 1))  # long ago, as it was
        database = self.folder / "index.sqlite"
        if index == "gone":
            database.unlink(missing_ok=True)
        elif index == "garbage" and database.exists():
            half = database.read_bytes()[: database.stat().st_size // 2]
            database.write_bytes(half + os.urandom(100))
        world = in_folder(self.world, self.folder)
        host = world.host
        boot, offset, table, own = host.boot_id, host._offset_ns, host._table, host._own_pid
        host.reboot()
        try:
            yield world
        finally:
            host.boot_id, host._offset_ns, host._table, host._own_pid = boot, offset, table, own
            forget(self.folder)
            shutil.rmtree(self.folder)

    def check(self, number: int, disk: Disk) -> None:
        """Assert what must be true of one power cut."""
        for path, data in disk.items():
            name = os.path.basename(path)
            if path.startswith("queries/"):
                continue  # lines, of which the last may be torn
            if data == self.operation.keeps or path in LEFT_OVER:
                continue  # damaged before
            read = claim_from_toml if path.startswith("claims/") else entry_from_toml
            try:
                read(data, name)
            except RecordCorrupt as error:
                raise AssertionError(f"{name} is empty, or torn") from error
        acknowledged = number == len(self.calls)
        kept = self.operation.keeps
        assert kept is None or kept in disk.values(), "the damaged file is nowhere any more"
        if acknowledged and self.operation.name not in (*LOSABLE, *TIDYING):
            assert disk == self.after, "an acknowledged change is gone"
        fences = self.granted if acknowledged else self.fences
        for index in INDEXES:
            with self.rebooted(disk, index) as world:
                if self.operation.mends is not None:
                    self.operation.mends(world)
                    assert kept is None or kept in files_of(self.folder).values()
                aftermath(world, fences)


def check_every_outage(operation: Operation, folder: Path) -> int:
    """Let the power fail at every moment of an operation; return how many disks came of it."""
    outage = Outage(operation, folder)
    states = outage.states()
    for number, disk in states:
        try:
            outage.check(number, disk)
        except BaseException as found:
            last = outage.calls[number - 1] if number else None
            found.add_note(f"{operation.name}: power lost after call {number}, {last}: {set(disk)}")
            raise
    return len(states)


@pytest.mark.parametrize("operation", WRITING, ids=lambda operation: operation.name)
def test_whatever_a_power_cut_leaves_is_whole_and_what_was_answered_is_kept(
    operation: Operation,
) -> None:
    with quick_folder() as folder, no_waiting_for_the_disk():
        count = check_every_outage(operation, folder)
    print(f"{operation.name}: {count} states of the disk, {len(INDEXES)} of the index each")


GRANTS = [operation for operation in WRITING if "reserve" in operation.name
          or operation.name in ("take over after the TTL", "force", "hand over")]  # fmt: skip


@pytest.mark.parametrize("is_rebooted", [False, True])
@pytest.mark.parametrize("operation", GRANTS, ids=lambda operation: operation.name)
def test_the_files_of_a_reservation_in_any_order_give_no_branch_twice(
    operation: Operation, is_rebooted: bool
) -> None:
    with quick_folder() as folder, no_waiting_for_the_disk():
        outage = Outage(operation, folder)
        paths = sorted({*outage.before, *outage.after})
        changed = [p for p in paths if outage.before.get(p) != outage.after.get(p)]
        assert len(changed) >= 2
        for arrived in itertools.product([False, True], repeat=len(changed)):
            disk: dict[str, Any] = dict(outage.before)
            for path, is_there in zip(changed, arrived, strict=True):
                if is_there:
                    disk[path] = outage.after.get(path)
            kept = {path: data for path, data in disk.items() if data is not None}
            with outage.rebooted(kept, "gone") as world:
                if not is_rebooted:
                    world.host.boot_id = "boot-1"
                aftermath(world, outage.fences)
