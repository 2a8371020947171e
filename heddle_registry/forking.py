"""A fork while another OS thread imports: nothing of ours is half imported then.

What one OS thread imports when another forks stays half imported in the child, and locked: whoever
asks for it there waits for ever. Commands are quick because much is imported where it is first
needed; so in a process of several OS threads all of that is imported before a fork.
"""

from __future__ import annotations

import _thread
import os
from contextlib import suppress
from functools import cache

LATE = (
    "heddle_registry.adapters.directory",
    "heddle_registry.adapters.examination",
    "heddle_registry.adapters.host",
    "heddle_registry.adapters.housekeeping",
    "heddle_registry.adapters.index_building",
    "heddle_registry.adapters.line",
    "heddle_registry.adapters.liveness_file",
    "heddle_registry.adapters.location",
    "heddle_registry.adapters.lock_holders",
    "heddle_registry.adapters.moving",
    "heddle_registry.adapters.os_faults",
    "heddle_registry.adapters.query_log",
    "heddle_registry.adapters.snapshot",
    "heddle_registry.adapters.writing",
    "heddle_registry.codec",
    "heddle_registry.codec.config",
    "heddle_registry.core.attach_order",
    "heddle_registry.core.attach_rules",
    "heddle_registry.core.digest",
    "heddle_registry.core.edit",
    "heddle_registry.core.evidence",
    "heddle_registry.core.release",
    "heddle_registry.core.renew",
    "heddle_registry.core.reserve",
    "heddle_registry.core.sweep",
    "heddle_registry.core.tree",
    "heddle_registry.glance",
    "heddle_registry.opening",
    "heddle_registry.probe",
    "heddle_registry.registry.attaching",
    "heddle_registry.registry.attempt",
    "heddle_registry.registry.reservation",
    "heddle_registry.registry.scripting",
    "heddle_registry.registry.waiting",
    "heddle_registry.settings",
    "heddle_registry.surroundings",
    "json",
    "tomli",
    "tomli_w",
)
"""What a registry in a long-lived process imports in the middle of a call."""


def import_what_is_late() -> None:
    """Import all of `LATE`; where another OS thread is at it, wait until that is done."""
    for name in LATE:
        # Of a fork in a signal handler that came in the middle of just this import.
        with suppress(ImportError):
            __import__(name)


def _before_fork() -> None:
    if _thread._count():  # noqa: SLF001 - the OS threads beside the main one; nobody else counts
        import_what_is_late()


@cache
def prepare_forks() -> None:
    """See to it that forks of this process wait for imports, from now on.

    Call it once the store's modules are there: what was prepared last is done first, and a lock
    must not be taken before it is waited for.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork)
