"""A fork while another OS thread imports: nothing of ours is half imported then.

What one OS thread imports when another forks stays half imported in the child, and locked: whoever
asks for it there waits for ever. Commands are quick because much is imported where it is first
needed; so all of that is imported before a fork.
"""

from __future__ import annotations

LATE = (
    "heddle_registry.adapters.host",
    "heddle_registry.adapters.directory",
    "heddle_registry.adapters.examination",
    "heddle_registry.adapters.housekeeping",
    "heddle_registry.adapters.index_building",
    "heddle_registry.adapters.line",
    "heddle_registry.adapters.liveness_file",
    "heddle_registry.adapters.lock_holders",
    "heddle_registry.adapters.moving",
    "heddle_registry.adapters.os_faults",
    "heddle_registry.adapters.query_log",
    "heddle_registry.adapters.snapshot",
    "heddle_registry.adapters.writing",
    "heddle_registry.codec",
    "heddle_registry.core.digest",
    "heddle_registry.core.edit",
    "heddle_registry.core.evidence",
    "heddle_registry.core.release",
    "heddle_registry.core.renew",
    "heddle_registry.core.reserve",
    "heddle_registry.core.sweep",
    "heddle_registry.core.tree",
    "heddle_registry.registry.attempt",
    "heddle_registry.registry.reservation",
    "heddle_registry.registry.waiting",
    "json",
    "tomli",
)
"""What a registry in a long-lived process imports in the middle of a call."""


def import_what_is_late() -> None:
    """Import all of `LATE`; where another OS thread is at it, wait until that is done."""
    for name in LATE:
        __import__(name)
