"""acme: whose process is this, and what did it use? Copy the package and replace what is acme's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry import Harness, Identity, Probe, UsageRecord, env, hookimpl, program

if TYPE_CHECKING:
    from collections.abc import Iterator

ACME = Harness(
    name="acme",
    signals=[env("ACME_AGENT", equals="1"), env("ACME_SESSION", kind="session"), program("acme")],
    events={"start": "opened", "spawn": "child_opened", "end": "closed"},
)


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer acme."""
    return [ACME]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session that acme's hook, or the variables of its command, name."""
    session = probe.payload.get("session") or probe.env.get("ACME_SESSION")
    if session is None:
        return None
    return Identity(
        actor=session,
        parent=probe.payload.get("parent"),
        model=probe.payload.get("model"),
        transcript=probe.transcript(probe.payload.get("log")),
    )


@hookimpl
def heddle_usage(source: Any) -> Iterator[UsageRecord]:
    """Answer a record for each response in acme's log.

    Copies of a line count once, by their id. The buckets are disjoint: acme's ``in`` holds the
    cached tokens, so they are taken out.
    """
    for line in source.json_lines(b'"in"'):  # only lines that have this key are parsed
        source.declare(f"session:{line['session']}")
        cached = line.get("cached", 0)
        yield UsageRecord(
            id=line["id"],
            input=line["in"] - cached,
            cache_read=cached,
            output=line["out"],
            model=line.get("model"),
            at=line.get("at"),
        )
