"""OpenCode: sessions and the child sessions of its task tool. Observed on 1.18.33.

Variables name no session. A plugin event does; for a command, the store tells which session ran
it. A plugin that exports ``OPENCODE_SESSION_ID`` from its ``shell.env`` hook makes that certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import DEFINITE, PROBABLE, Harness, json_object, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.core.attribution import Command

OPENCODE = Harness(
    name="opencode",  # its marks are in the table that comes with the registry
    events={
        "session.created": "opened",
        "session.deleted": "closed",
        "session.idle": "waiting",
        "permission.asked": "waiting",
    },
)
_MAX_DEPTH = 16
_MAX_PARTS = 400


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer OpenCode."""
    return [OPENCODE]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session whose event or command this is."""
    store = _Store(probe)
    try:
        named = _in_payload(probe.payload)
        if named is not None:
            return store.identity(named, "payload", DEFINITE, probe.payload)
        exported = native_id(probe.env.get("OPENCODE_SESSION_ID"))
        if exported is not None:
            return store.identity(exported, "environment", DEFINITE)
        return None if probe.payload else store.of_command()
    finally:
        store.close()


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in the store."""
    from .usage import records

    return records(source)


def _in_payload(payload: Any) -> str | None:
    """Return the session that a plugin's event or hook is about."""
    for part in (payload, payload.get("properties"), payload.get("input"), payload.get("output")):
        if not isinstance(part, dict):
            continue
        for key in ("sessionID", "session_id", "sessionId"):
            if native_id(part.get(key)) is not None:
                return native_id(part.get(key))
    return None


class _Store:
    """OpenCode's database, if there is one. Read only, together with its write-ahead log."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        data = probe.env.get("XDG_DATA_HOME") or probe.at_home(".local", "share")
        self.path = f"{data}/opencode/opencode.db"
        self._connection = probe.files.database(self.path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def rows(self, query: str, *arguments: object) -> list[Any]:
        """Return the rows, none where the store is missing or of another make."""
        if self._connection is None:
            return []
        import sqlite3

        try:
            return list(self._connection.execute(query, arguments))
        except sqlite3.Error:
            return []

    def identity(
        self,
        session: str,
        source: str,
        confidence: float,
        payload: Any = None,
    ) -> Identity:
        parents = self._above(session, payload or {})
        provider, model = _model_in(payload or {}) or self._model(session) or (None, None)
        path = self.probe.transcript(self.path) if self._connection is not None else None
        return Identity(
            actor=session,
            lineage=tuple(Identity(actor=p, transcript=path, source=source) for p in parents),
            # Without the store a session may be anybody's child.
            orphan=not parents and self._connection is None,
            model=model,
            provider=provider,
            transcript=path or self.path,
            source=source,
            confidence=confidence,
        )

    def of_command(self) -> Identity | None:
        """Return the session that ran the command that we are in."""
        sessions = {row[0]: row[1] for row in self._sessions()}
        if not sessions:
            return None
        from heddle_registry.core.attribution import ran_by

        commands, at_work = self._commands(list(sessions))
        last = self.probe.env.get("_", "")
        winner = ran_by(commands, at_work, self.probe.below, last)
        if winner is not None:
            return self.identity(str(winner), "transcript", DEFINITE)
        running = {str(command.actor) for command in commands if command.running}
        if len(running) == 1:
            # Written before it starts: what a wrapper made of its command line does not matter.
            return self.identity(running.pop(), "transcript", PROBABLE)
        started_at = min((p.started_at for p in self.probe.processes if p.started_at), default=None)
        lately = [s for s, at in sessions.items() if started_at and at / 1000 >= started_at - 1]
        if len(lately) == 1:
            return self.identity(lately[0], "transcript", PROBABLE)
        return Identity(
            confidence=PROBABLE,
            candidates=tuple(self.identity(s, "transcript", PROBABLE) for s in lately),
        )

    def _sessions(self) -> list[Any]:
        # A session belongs to the folder it began in; commands may run below it.
        found = self.rows(
            "SELECT id, time_updated, directory FROM session ORDER BY time_updated DESC LIMIT 100"
        )
        here = self.probe.cwd
        return [r for r in found if not here or here == r[2] or here.startswith(f"{r[2]}/")]

    def _commands(self, sessions: list[str]) -> tuple[list[Command], set[str]]:
        from heddle_registry.core.attribution import Command

        marks = ",".join("?" * len(sessions))
        parts = self.rows(
            f"SELECT session_id, data FROM part WHERE session_id IN ({marks}) "  # noqa: S608
            "AND data LIKE '%\"tool\"%' ORDER BY time_created DESC LIMIT ?",
            *sessions,
            _MAX_PARTS,
        )
        commands = []
        at_work = set()
        for session, text in parts:
            data = json_object(text)
            state = data.get("state")
            if data.get("type") != "tool" or not isinstance(state, dict):
                continue
            running = state.get("status") in {"pending", "running"}
            if running:
                at_work.add(session)
            arguments = state.get("input")
            command = arguments.get("command") if isinstance(arguments, dict) else None
            if data.get("tool") == "bash" and isinstance(command, str):
                commands.append(Command(session, command, running))
        return commands, at_work

    def _above(self, session: str, payload: Any) -> list[str]:
        above: list[str] = []
        current = session
        said = _parent_in(payload)
        while len(above) < _MAX_DEPTH:
            found = self.rows("SELECT parent_id FROM session WHERE id = ?", current)
            parent = found[0][0] if found else said if current == session else None
            if not isinstance(parent, str) or parent in above:
                break
            above.insert(0, parent)
            current = parent
        return above

    def _model(self, session: str) -> tuple[str | None, str | None] | None:
        found = self.rows(
            "SELECT data FROM message WHERE session_id = ? ORDER BY time_created DESC LIMIT 20",
            session,
        )
        for (text,) in found:
            data = json_object(text)
            pair = _pair(data) or _pair(data.get("model"))
            if pair is not None:
                return pair
        return None


def _info(payload: Any) -> dict[str, Any]:
    properties = payload.get("properties")
    info = properties.get("info") if isinstance(properties, dict) else None
    return info if isinstance(info, dict) else {}


def _parent_in(payload: Any) -> str | None:
    return native_id(_info(payload).get("parentID")) if _info(payload).get("slug") else None


def _model_in(payload: Any) -> tuple[str | None, str | None] | None:
    given = payload.get("input")
    info = _info(payload)
    return (
        _pair(info)
        or _pair(info.get("model"))
        or (_pair(given.get("model")) if isinstance(given, dict) else None)
    )


def _pair(model: Any) -> tuple[str | None, str | None] | None:
    """Return provider and model of any of the three ways in which OpenCode writes them."""
    if not isinstance(model, dict) or not isinstance(model.get("providerID"), str):
        return None
    name = model.get("modelID") or model.get("id")
    return (model["providerID"], name) if isinstance(name, str) else None
