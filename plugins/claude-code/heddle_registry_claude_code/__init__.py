"""Claude Code: sessions, sub-agents at any depth, forks. Observed on 2.1.330.

A hook's payload names the session and, in a sub-agent, the agent. A tool's variables name the
session only: a sub-agent's command is told from its parent's by the transcripts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import DEFINITE, PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

CLAUDE_CODE = Harness(
    name="claude-code",  # its marks are in the table that comes with the registry
    events={
        "SessionStart": "opened",
        "SubagentStart": "child_opened",
        "SubagentStop": "child_closed",
        "SessionEnd": "closed",
        "Notification": "waiting",
        "Stop": "waiting",
    },
)
_SHELLS = frozenset({"Bash", "PowerShell"})
_SPAWNERS = frozenset({"Agent", "Task"})
_TAIL_BYTES = 524_288
_MAX_AGENTS = 64
_MAX_DEPTH = 16


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer Claude Code."""
    return [CLAUDE_CODE]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session or sub-agent whose hook or command this is."""
    session, source = _session(probe)
    if session is None:
        return None
    place = _Session(probe, session)
    agent = native_id(probe.payload.get("agent_id"))
    if agent is not None:
        return place.sub_agent(agent, source)
    if probe.payload:
        return place.root(source, DEFINITE)
    return place.of_command(source)


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a transcript."""
    from .usage import records

    return records(source)


def _session(probe: Probe) -> tuple[str | None, str]:
    payload = native_id(probe.payload.get("session_id"))
    if payload is not None:
        return payload, "payload"
    variable = native_id(probe.env.get("CLAUDE_CODE_SESSION_ID"))
    if variable is not None:
        return variable, "environment"
    for process in probe.processes:
        live = probe.read_json(f"{_folder(probe)}/sessions/{process.pid}.json")
        started = process.starttime
        # The file outlives a crash: only pid and start time together name the process.
        if started is not None and str(live.get("procStart")) == str(started):
            return native_id(live.get("sessionId")), "live_file"
    return None, "none"


def _folder(probe: Probe) -> str:
    return probe.env.get("CLAUDE_CONFIG_DIR") or probe.at_home(".claude")


class _Session:
    """One session's transcripts: its own, and those of its sub-agents beside it."""

    def __init__(self, probe: Probe, session: str) -> None:
        self.probe = probe
        self.session = session
        self.path = self._path()
        self.agents = f"{self.path.removesuffix('.jsonl')}/subagents"

    def _path(self) -> str:
        named = self.probe.payload.get("transcript_path")
        if isinstance(named, str) and named.endswith(f"{self.session}.jsonl"):
            return self.probe.transcript(named) or named
        projects = f"{_folder(self.probe)}/projects"
        here = re.sub(r"[^A-Za-z0-9]", "-", self.probe.cwd)
        # The folder is that of the directory the session began in, which need not be ours.
        for folder in (here, *self.probe.files.names(projects)):
            path = f"{projects}/{folder}/{self.session}.jsonl"
            if folder and self.probe.files.modified_at(path) is not None:
                return self.probe.transcript(path) or path
        return f"{projects}/{here}/{self.session}.jsonl" if here else ""

    def root(self, source: str, confidence: float) -> Identity:
        lines = self._lines(self.path)
        return Identity(
            actor=self.session,
            model=_model_in(self.probe.payload) or _model(lines),
            provider="anthropic",
            thinking_level=self._effort(),
            transcript=self.path or None,
            continues=self._forked_from(lines),
            source=source,
            confidence=confidence,
        )

    def sub_agent(self, agent: str, source: str) -> Identity:
        """Return the agent below its true parent, which may itself be a sub-agent."""
        above: list[Identity] = []
        parent, orphan = self._parent(agent)
        seen = {agent}
        while parent is not None and parent not in seen and len(above) < _MAX_DEPTH:
            seen.add(parent)
            next_parent, lost = self._parent(parent)
            path = self.agent_path(parent)
            above.insert(
                0,
                Identity(
                    actor=parent, actor_kind="agent", orphan=lost, transcript=path, source=source
                ),
            )
            parent = next_parent
        path = self.agent_path(agent)
        named = self.probe.payload.get("agent_transcript_path")
        meta = self.probe.read_json(path.replace(".jsonl", ".meta.json"))
        return Identity(
            actor=agent,
            actor_kind="agent",
            lineage=(self.root(source, DEFINITE), *above),
            orphan=orphan,
            model=_model_in(self.probe.payload) or _model(self._lines(path)) or meta.get("model"),
            provider="anthropic",
            thinking_level=self._effort(),
            transcript=self.probe.transcript(named) or path,
            source=source,
        )

    def of_command(self, source: str) -> Identity:
        """Return whose command this is by what the transcripts say that each actor ran."""
        agents = self.agent_names()
        actors = {None: self._lines(self.path)} | {
            name: self._lines(self.agent_path(name)) for name in agents
        }
        spawning = any(_open_calls(lines, _SPAWNERS) for lines in actors.values())
        if not agents and not spawning:
            # Where no transcript can be read there may be agents that nobody sees.
            return self.root(source, DEFINITE if actors[None] or not self.path else PROBABLE)
        from heddle_registry.core.attribution import Command, ran_by

        at_work = {name or "" for name, lines in actors.items() if _is_at_work(lines)}
        commands = [
            Command(name or "", text, running)
            for name, lines in actors.items()
            for text, running in _commands(lines)
        ]
        last = self.probe.env.get("_", "")
        winner = ran_by(commands, at_work, self.probe.below, last)
        if winner is not None and winner != "":
            return self.sub_agent(str(winner), "transcript")
        idle = not spawning and not at_work - {""}
        if winner == "" or (idle and at_work) or (idle and not self.probe.below):
            return self.root(source, DEFINITE if winner == "" else PROBABLE)
        if not self.probe.below and not at_work - {""}:
            return self.root(source, PROBABLE)
        return Identity(
            provider="anthropic",
            source=source,
            confidence=PROBABLE,
            candidates=(
                self.root(source, PROBABLE),
                *(self.sub_agent(n, "transcript") for n in agents if n in at_work),
            ),
        )

    def agent_path(self, agent: str) -> str:
        return f"{self.agents}/agent-{agent}.jsonl"

    def agent_names(self) -> list[str]:
        files = [
            name.removeprefix("agent-").removesuffix(".jsonl")
            for name in self.probe.files.names(self.agents)
            if name.startswith("agent-") and name.endswith(".jsonl")
        ]
        if len(files) > _MAX_AGENTS:
            files.sort(key=lambda n: self.probe.files.modified_at(self.agent_path(n)) or 0)
        return files[-_MAX_AGENTS:]

    def _parent(self, agent: str) -> tuple[str | None, bool]:
        """Return the sub-agent that started this one (None: the session), and whether unknown."""
        meta = self.probe.read_json(self.agent_path(agent).replace(".jsonl", ".meta.json"))
        call = meta.get("toolUseId")
        if meta.get("spawnDepth") == 1:
            return None, False
        if isinstance(call, str) and call:
            if _made(self._lines(self.path), call):
                return None, False
            for other in self.agent_names():
                if other != agent and _made(self._lines(self.agent_path(other)), call):
                    return other, False
            return None, True
        # No word yet of who asked for it: the session, unless another agent may have.
        others = (n for n in self.agent_names() if n != agent)
        return None, any(_open_calls(self._lines(self.agent_path(n)), _SPAWNERS) for n in others)

    def _lines(self, path: str) -> list[dict[str, Any]]:
        if not path:
            return []
        return self.probe.last_lines(
            path, _TAIL_BYTES, holding=('"assistant"', '"tool_result"', '"modelId"', '"user"')
        )

    def _effort(self) -> str | None:
        effort = self.probe.payload.get("effort")
        level = effort.get("level") if isinstance(effort, dict) else None
        return level or self.probe.env.get("CLAUDE_EFFORT")

    def _forked_from(self, lines: list[dict[str, Any]]) -> str | None:
        """Return the session that this one's first lines were copied from."""
        for line in reversed(lines):
            origin = line.get("requestSessionId")
            if isinstance(origin, str) and origin != self.session:
                return origin
        return None


def _model_in(payload: Any) -> str | None:
    model = payload.get("model")
    model = model.get("id") if isinstance(model, dict) else model
    return model if isinstance(model, str) else None


def _model(lines: list[dict[str, Any]]) -> str | None:
    attached = None
    for line in reversed(lines):
        message, attachment = line.get("message"), line.get("attachment")
        model = message.get("model") if isinstance(message, dict) else None
        if isinstance(model, str) and not model.startswith("<"):
            return model
        identity = attachment.get("identity") if isinstance(attachment, dict) else None
        if attached is None and isinstance(identity, dict):
            attached = identity.get("modelId")
    return attached


def _blocks(lines: list[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    for line in lines:
        message = line.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == kind:
                yield block


def _calls(lines: list[dict[str, Any]], tools: frozenset[str]) -> Iterable[tuple[Any, bool]]:
    answered = {block.get("tool_use_id") for block in _blocks(lines, "tool_result")}
    for block in _blocks(lines, "tool_use"):
        if block.get("name") in tools:
            yield block.get("input"), block.get("id") not in answered


def _open_calls(lines: list[dict[str, Any]], tools: frozenset[str]) -> bool:
    return any(running for _, running in _calls(lines, tools))


def _commands(lines: list[dict[str, Any]]) -> Iterable[tuple[str, bool]]:
    for arguments, running in _calls(lines, _SHELLS):
        command = arguments.get("command") if isinstance(arguments, dict) else None
        if isinstance(command, str):
            yield command, running


def _made(lines: list[dict[str, Any]], call: str) -> bool:
    return any(block.get("id") == call for block in _blocks(lines, "tool_use"))


def _is_at_work(lines: list[dict[str, Any]]) -> bool:
    """Whether the last word is not an answer that ends the turn. No lines: it just began."""
    for line in reversed(lines):
        message = line.get("message")
        if line.get("type") in {"assistant", "user"} and isinstance(message, dict):
            ended = message.get("stop_reason") not in {None, "tool_use", "pause_turn"}
            return not (line["type"] == "assistant" and ended)
    return True
