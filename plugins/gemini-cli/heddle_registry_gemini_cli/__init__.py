"""Gemini CLI: sessions and the agents of its invoke_agent tool. Observed on 0.61.0.

Hooks name the session, in payload and variables; a tool's variables name nothing, and a
sub-agent is named nowhere but in the files: its chat lies in a folder called after its parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from heddle_registry.core.harness import DEFINITE, PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

GEMINI_CLI = Harness(
    name="gemini-cli",  # its marks are in the table that comes with the registry
    events={"SessionStart": "opened", "SessionEnd": "closed", "Notification": "waiting"},
)
_TAIL_BYTES = 524_288
_MAX_CHATS = 40
_MAX_DEPTH = 16


class _Chat(NamedTuple):
    """One chat file. ``owner`` is the folder it lies in: the parent's id, or empty."""

    id: str
    path: str
    owner: str


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer Gemini CLI."""
    return [GEMINI_CLI]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session or agent whose hook or command this is."""
    session, source = native_id(probe.payload.get("session_id")), "payload"
    if session is None:
        session, source = native_id(probe.env.get("GEMINI_SESSION_ID")), "environment"
    chats = _Chats(probe, session)
    if probe.payload or session is not None:
        return chats.identity(session, source, DEFINITE) if session is not None else None
    return chats.of_command()


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a chat file."""
    from .usage import records

    return records(source)


class _Chats:
    """The chat files of the project that the command runs in."""

    def __init__(self, probe: Probe, session: str | None) -> None:
        self.probe = probe
        self._named = probe.payload.get("transcript_path")
        self.chats: dict[str, _Chat] = {}
        folder = self._folder()
        if folder is not None:
            self._collect(folder, session)

    def _folder(self) -> str | None:
        if isinstance(self._named, str) and self._named.endswith(".jsonl"):
            return self._named.rsplit("/", 1)[0]
        base = self.probe.at_home(".gemini")
        projects = self.probe.read_json(f"{base}/projects.json").get("projects")
        here = self.probe.cwd
        while here.strip("/") and isinstance(projects, dict):
            name = projects.get(here)
            if isinstance(name, str) and "/" not in name:
                return f"{base}/tmp/{name}/chats"  # noqa: S108
            here = here.rpartition("/")[0]
        return None

    def _collect(self, folder: str, session: str | None) -> None:
        files = self.probe.files
        names = [n for n in files.names(folder) if n.startswith("session-")]
        if session is not None:
            names = [n for n in names if n.endswith(f"-{session[:8]}.jsonl")]
        elif len(names) > _MAX_CHATS:
            names.sort(key=lambda n: files.modified_at(f"{folder}/{n}") or 0)
        for name in names[-_MAX_CHATS:]:
            self._add(f"{folder}/{name}", "")
        pending = list(self.chats)
        while pending and len(self.chats) <= _MAX_CHATS * 4:
            owner = pending.pop()
            for name in files.names(f"{folder}/{owner}"):
                if name.endswith(".jsonl"):
                    added = self._add(f"{folder}/{owner}/{name}", owner)
                    pending += [added] if added else []

    def _add(self, path: str, owner: str) -> str | None:
        chat = native_id(self.probe.first_line(path).get("sessionId"))
        if chat is None or chat in self.chats:
            return None
        self.chats[chat] = _Chat(chat, path, owner)
        return chat

    def identity(self, actor: str, source: str, confidence: float) -> Identity:
        chat = self.chats.get(actor)
        above: list[Identity] = []
        owner = chat.owner if chat else ""
        while owner and owner in self.chats and len(above) < _MAX_DEPTH:
            parent = self.chats[owner]
            above.insert(0, self._plain(parent, source))
            owner = parent.owner
        path = chat.path if chat else self._named
        return Identity(
            actor=actor,
            actor_kind=_kind(chat),
            lineage=tuple(above),
            model=self._model(chat),
            provider="google",
            transcript=self.probe.transcript(path),
            source=source,
            confidence=confidence,
        )

    def _plain(self, chat: _Chat, source: str) -> Identity:
        return Identity(
            actor=chat.id,
            actor_kind=_kind(chat),
            transcript=self.probe.transcript(chat.path),
            model=self._model(chat),
            provider="google",
            source=source,
        )

    def of_command(self) -> Identity:
        """Return the actor that ran the command that we are in."""
        from heddle_registry.core.attribution import Command, ran_by

        commands = []
        at_work = set()
        for chat in self.chats.values():
            lines = self._lines(chat)
            found = list(_commands(lines))
            commands += [Command(chat.id, text, running) for text, running in found]
            if any(running for _, running in found):
                at_work.add(chat.id)
        winner = ran_by(commands, at_work, self.probe.below, self.probe.env.get("_", ""))
        if winner is not None:
            return self.identity(str(winner), "transcript", DEFINITE)
        started_at = min((p.started_at for p in self.probe.processes if p.started_at), default=None)
        lately = [
            chat.id
            for chat in self.chats.values()
            if started_at
            and (self.probe.files.modified_at(chat.path) or 0) >= started_at - 1
            and not self._has_ended(chat)
        ]
        if len(lately) == 1:
            return self.identity(lately[0], "transcript", PROBABLE)
        return Identity(
            provider="google",
            confidence=PROBABLE,
            candidates=tuple(self.identity(one, "transcript", PROBABLE) for one in lately),
        )

    def _has_ended(self, chat: _Chat) -> bool:
        """Whether an agent has handed its task back. A session never has."""
        if not chat.owner:
            return False
        for line in self.probe.last_lines(chat.path, 65_536, holding=("complete_task", "$set")):
            change, calls = line.get("$set"), line.get("toolCalls")
            if isinstance(change, dict) and "summary" in change:
                return True
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict) and call.get("name") == "complete_task":
                    return bool(call.get("result"))
        return False

    def _lines(self, chat: _Chat) -> list[dict[str, Any]]:
        return self.probe.last_lines(chat.path, _TAIL_BYTES, holding=('"gemini"',))

    def _model(self, chat: _Chat | None) -> str | None:
        for line in reversed(self._lines(chat) if chat else []):
            if line.get("type") == "gemini" and isinstance(line.get("model"), str):
                return str(line["model"])
        return None


def _kind(chat: _Chat | None) -> str:
    return "agent" if chat is not None and chat.owner else "session"


def _commands(lines: list[dict[str, Any]]) -> Iterable[tuple[str, bool]]:
    for line in lines:
        calls = line.get("toolCalls")
        for call in calls if isinstance(calls, list) else ():
            arguments = call.get("args") if isinstance(call, dict) else None
            command = arguments.get("command") if isinstance(arguments, dict) else None
            if call.get("name") == "run_shell_command" and isinstance(command, str):
                yield command, not call.get("result")
