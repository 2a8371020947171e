"""Nothing that writes below the folder is missing from the table of `test_every_boundary`."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from heddle_registry import ports
from heddle_registry.adapters import directory, housekeeping, line, moving, query_log, repair
from heddle_registry.adapters.writing import Writer
from heddle_registry.core import transaction
from tests.reliability.boundaries import OPERATIONS
from tests.reliability.io_faults import no_waiting_for_the_disk, quick_folder
from tests.reliability.mending import MENDING
from tests.reliability.test_every_boundary import Trial

if TYPE_CHECKING:
    from types import CodeType, FrameType

MODULES = (repair, housekeeping, line, moving, query_log)
CLASSES = (directory.DirectoryStore, directory.HeldFile, line.Place)
ONLY_LOOK = {
    "DirectoryStore.edited_in_place", "DirectoryStore.examine", "DirectoryStore.load",
    "DirectoryStore.look", "DirectoryStore.observe", "DirectoryStore.peek",
    # Nobody else's business: no file, or one that is there already.
    "DirectoryStore.lock", "HeldFile.fileno", "HeldFile.release", "Place.wait",
    "housekeeping.leftovers", "housekeeping.temp_files",
    "line.living_tickets", "moving.kept_name", "repair.claim_name_by_content", "repair.counted",
    "repair.is_spare", "repair.name_by_content", "repair.named", "repair.next_fence",
    "repair.thread_of_claim", "repair.why_wait",
}  # fmt: skip
"""Every other public function is one that writes: a new one stands on the table or in here."""
ONLY_UNDO = {"query_log.cut_queries"}
"""Called on the table too, but only where a call failed."""


def public_functions() -> dict[str, CodeType]:
    found = {}
    for place in (*MODULES, *CLASSES):
        short = place.__name__.rpartition(".")[2]
        for name, thing in vars(place).items():
            function = inspect.unwrap(thing) if callable(thing) else None
            is_own = inspect.isfunction(function) and (
                inspect.isclass(place) or function.__module__ == place.__name__
            )
            if is_own and not name.startswith("_"):
                found[f"{short}.{name}"] = function.__code__
    return found


def called_on_the_table() -> tuple[set[CodeType], set[type]]:
    """Return what the table's operations call, and the kinds of effects they have written."""
    called: set[CodeType] = set()
    effects: set[type] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            called.add(frame.f_code)
            if frame.f_code is Writer._apply.__code__:
                effects.add(type(frame.f_locals["effect"]))

    for operation in (*OPERATIONS, *MENDING):
        if operation.looks or operation.refuses:
            continue
        with quick_folder() as folder, no_waiting_for_the_disk():
            trial = Trial(operation, folder)
            world, given, _ = trial._fresh()
            sys.setprofile(note)
            try:
                operation.act(world, given)
            finally:
                sys.setprofile(None)
    return called, effects


def test_every_public_function_that_writes_and_every_effect_is_on_the_table() -> None:
    functions = public_functions()
    assert functions.keys() >= ONLY_LOOK | ONLY_UNDO, "one of those that only look is gone"
    called, effects = called_on_the_table()
    writing = functions.keys() - ONLY_LOOK - ONLY_UNDO
    assert {name for name in writing if functions[name] not in called} == set()
    assert effects == set(transaction.Effect.__args__)


def test_no_operation_of_the_port_is_unknown_to_the_store() -> None:
    names = {name for name in vars(ports.Store) if not name.startswith("_")}
    assert names <= {name.partition(".")[2] for name in public_functions()}
