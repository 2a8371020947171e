"""pi, the coding agent: its sessions and what they used.

Known from its transcripts and from documents, not from a recorded run: what the environment says
is never better than probable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

PI = Harness(name="pi")  # its marks are in the table that comes with the registry


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer pi."""
    return [PI]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session that the environment names."""
    session = native_id(probe.env.get("PI_SESSION_ID"))
    if session is None:
        return None
    return Identity(actor=session, source="environment", confidence=PROBABLE)


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a session."""
    from .usage import records

    return records(source)
