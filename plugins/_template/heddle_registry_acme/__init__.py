"""acme: whose process is this? Copy the package and replace what is acme's."""

from __future__ import annotations

from heddle_registry import Harness, Identity, Probe, env, hookimpl, program

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
