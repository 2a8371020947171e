"""Ctrl-C at every single line of taking and giving back the lock leaves nothing held.

Left out, because Python has no guard there: the first line of ``__exit__``, and a second interrupt
while the first error is being cleaned up. Each test runs in a child: an interrupt raised on the way
out of a ``with``, where no signal is ever delivered, leaves the module's own mutex locked for good,
and whoever waited for a lock in the same process later would wait for ever.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters import flock, lock_file
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.errors import LockTimeout
from tests.process_helpers import flock_holder, in_fork, locked_elsewhere, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

SOURCES = {flock.__file__, lock_file.__file__}


def in_a_child(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)
    def apart(*given: Any, **named: Any) -> None:
        in_fork(lambda: test(*given, **named), 60)

    return apart


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that runs in the lock's modules."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, _value: Any) -> Interrupt | None:
        code = frame.f_code
        if code.co_filename not in SOURCES:
            return None
        cleaning_up = code.co_name == "__exit__" or sys.exc_info()[0] is not None
        if event == "line" and not cleaning_up:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        return self


def interrupt_each_line(attempt: Callable[[], object], check: Callable[[], object]) -> int:
    """Run ``attempt`` interrupted at line 1, 2, ... and ``check`` after each; return how many."""
    before = sys.gettrace()
    where: object = "the end"
    for nth in range(1, 1000):
        interrupt = Interrupt(nth)
        sys.settrace(interrupt)
        try:
            attempt()
        except KeyboardInterrupt as error:
            where = error
        finally:
            sys.settrace(before)
        try:
            check()
        except AssertionError as error:
            raise AssertionError(f"interrupted at {where}") from error
        if interrupt.left > 0:
            return nth - 1
    raise AssertionError("the lines never ended")


@in_a_child
def test_an_interrupt_at_any_line_of_a_held_block_leaves_nothing_held(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with lock.held():
        pass

    def hold_twice() -> None:
        with lock.held(1), lock.held(1):
            pass

    def nothing_is_held() -> None:
        assert not lock.is_held
        assert not locked_elsewhere(lock.path)
        gate = flock._gates[lock._key]
        assert (gate.owner, gate.depth, gate.queue) == (0, 0, {})

    assert interrupt_each_line(hold_twice, nothing_is_held) > 50


@pytest.mark.parametrize("waiting", ["for the kernel", "for the gate"])
@in_a_child
def test_an_interrupt_at_any_line_of_a_wait_leaves_nothing_held(
    tmp_path: Path, waiting: str
) -> None:
    lock = DirectoryLock(str(tmp_path))

    def wait() -> None:
        with pytest.raises(LockTimeout), lock.held(0.001):
            pass

    def nothing_is_held() -> None:
        assert not lock.is_held

    with flock_holder(lock.path):
        if waiting == "for the gate":
            flock._gates[lock._key] = gate = flock._Gate()
            gate.owner = -1  # some other OS thread's
        assert interrupt_each_line(wait, nothing_is_held) > 20
    gate = flock._gates[lock._key]
    assert (gate.owner, gate.depth, gate.queue) == (
        0 if waiting == "for the kernel" else -1,
        0,
        {},
    )
    flock._gates.clear()
    # In between two of them the lock is free for a moment.
    until(lambda: not lock_file._idle and not locked_elsewhere(lock.path), "all waits to let go")
