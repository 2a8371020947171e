"""Which file each harness reads its hooks from, which events we want, and what we write there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.record import Record
from heddle_registry.errors import UsageError
from heddle_registry.install import hook_files
from heddle_registry.install.launch import command_line, is_relay_command, shell_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S: Final = 10
"""The relay gives up long before; this is for a machine that stands still."""
OWN_MARK: Final = "heddle-registry install"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HarnessFile(Record):
    """How one harness is wired. Every event is one of a session's life; none is a tool call's."""

    name: str
    events: tuple[str, ...]
    kind: str
    """``settings`` (ours among others'), ``hooks`` or ``plugin`` (a file of our own)."""
    folder: str
    """Below the home."""
    file: str
    project_file: str
    """Below the worktree's root."""
    folder_variables: tuple[str, ...] = ()
    """Variables that name another folder in place of ``folder``."""
    timeout_unit_ms: int = 1000
    named: bool = False
    """Whether a hook has a name that the harness shows."""
    note: str = ""


_FOUR: Final = ("SessionStart", "SubagentStart", "SubagentStop", "SessionEnd")

HARNESS_FILES: Final[Mapping[str, HarnessFile]] = {
    spec.name: spec
    for spec in (
        HarnessFile(
            name="claude-code",
            events=(*_FOUR, "Notification", "Stop"),
            kind="settings",
            folder=".claude",
            file="settings.json",
            # Its own place for what concerns this machine only; git does not get to see it.
            project_file=".claude/settings.local.json",
            folder_variables=("CLAUDE_CONFIG_DIR",),
        ),
        HarnessFile(
            name="codex",
            events=(*_FOUR, "Stop"),
            kind="settings",
            folder=".codex",
            file="hooks.json",
            project_file=".codex/hooks.json",
            folder_variables=("CODEX_HOME",),
            note="Codex runs new hooks only after you trusted them: type /hooks in it once",
        ),
        HarnessFile(
            name="gemini-cli",
            events=("SessionStart", "SessionEnd", "Notification"),
            kind="settings",
            folder=".gemini",
            file="settings.json",
            project_file=".gemini/settings.json",
            timeout_unit_ms=1,
            named=True,
        ),
        HarnessFile(
            name="qwen-code",
            events=(*_FOUR, "Notification", "Stop"),
            kind="settings",
            folder=".qwen",
            file="settings.json",
            project_file=".qwen/settings.json",
            timeout_unit_ms=1,
            named=True,
        ),
        HarnessFile(
            name="copilot-cli",
            events=("sessionStart", "subagentStart", "subagentStop", "sessionEnd", "agentStop"),
            kind="hooks",
            folder=".copilot",
            file="hooks/heddle-registry.json",
            project_file=".github/hooks/heddle-registry.json",
            folder_variables=("COPILOT_HOME",),
        ),
        HarnessFile(
            name="opencode",
            events=("session.created", "session.idle", "session.deleted", "permission.asked"),
            kind="plugin",
            folder=".config/opencode",
            file="plugin/heddle-registry.js",
            project_file=".opencode/plugin/heddle-registry.js",
            folder_variables=("OPENCODE_CONFIG_DIR", "XDG_CONFIG_HOME/opencode"),
        ),
    )
}

_ALIASES: Final = {
    "claude": "claude-code",
    "gemini": "gemini-cli",
    "qwen": "qwen-code",
    "copilot": "copilot-cli",
}
_WITHOUT_HOOKS: Final = {
    "aider": "aider has no hooks: `list` finds it by its process, `run BRANCH -- aider` claims",
}


def harness_file(name: str) -> HarnessFile:
    """Return how the harness ``name`` is wired.

    :raises UsageError: it has no hooks, or nobody knows it.
    """
    known = HARNESS_FILES.get(_ALIASES.get(name, name))
    if known is not None:
        return known
    if name in _WITHOUT_HOOKS:
        why, _, hint = _WITHOUT_HOOKS[name].partition(": ")
        raise UsageError(why, hint)
    from difflib import get_close_matches

    names = [*HARNESS_FILES, "git"]
    near = get_close_matches(name, [*names, *_ALIASES], 1)
    hint = f"Did you mean `{near[0]}`?" if near else "Known: " + ", ".join(names)
    raise UsageError(f"{name[:80]!r} cannot be wired", hint)


def settings_path(
    spec: HarnessFile, environ: Mapping[str, str], home: str, project_root: str | None
) -> str:
    """Return the file to change: the user's, or with ``project_root`` the project's."""
    if project_root is not None:
        return os.path.join(project_root, *spec.project_file.split("/"))
    folder = os.path.join(home, *spec.folder.split("/"))
    for variable in spec.folder_variables:
        name, _, below = variable.partition("/")
        if environ.get(name):
            folder = os.path.join(os.path.abspath(environ[name]), below)
            break
    return os.path.join(folder, *spec.file.split("/"))


def wire(
    spec: HarnessFile, before: bytes | None, made_folders: int, registry: str | None = None
) -> bytes:
    """Return the file with our hooks in it; ``before`` is the file now, None for none.

    :param registry: the folder that the hooks are to use; else the one of the session's own folder
    :raises hook_files.UnfitSettings: the file is of another shape, or not ours to replace.
    """
    if spec.kind == "settings":
        wanted = {event: _group(spec, event, registry) for event in spec.events}
        return hook_files.add_hooks(
            before, wanted, lambda command: is_relay_command(command, spec.name), made_folders
        )
    if before is not None and not is_own_file(spec, before):
        raise hook_files.UnfitSettings("it is not ours, and would be replaced")
    text = (_copilot_hooks if spec.kind == "hooks" else _opencode_plugin)(spec, registry)
    data = text.encode()
    if before is not None:
        # As many line breaks at its end as folders were made for it, plus one.
        made_folders = _line_breaks(before) - 1
    return data + b"\n" * (1 + made_folders)


def unwire(spec: HarnessFile, before: bytes) -> tuple[bytes | None, int]:
    """Return the file without our hooks, None where it goes, and how many folders go with it.

    :raises hook_files.UnfitSettings: the file is of another shape.
    """
    if spec.kind == "settings":
        return hook_files.remove_hooks(before, lambda command: is_relay_command(command, spec.name))
    if not is_own_file(spec, before):
        return before, 0
    return None, max(0, _line_breaks(before) - 1)


def _line_breaks(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\n"))


def is_own_file(spec: HarnessFile, data: bytes) -> bool:
    """Return whether a whole file is one that we wrote for this harness."""
    text = data.decode("utf-8", "replace")
    if spec.kind == "hooks":
        return is_relay_command(text, spec.name)
    return OWN_MARK in text.partition("\n")[0]


def _relay(spec: HarnessFile, registry: str | None, *event: str) -> tuple[str, ...]:
    told = ("--heddle-dir", os.path.abspath(os.path.expanduser(registry))) if registry else ()
    return command_line("", *told, "relay", spec.name, *event)


def _group(spec: HarnessFile, event: str, registry: str | None) -> dict[str, Any]:
    handler: dict[str, Any] = {"type": "command"}
    if spec.named:
        handler["name"] = "heddle-registry"
    handler["command"] = shell_text(_relay(spec, registry, event))
    handler["timeout"] = _TIMEOUT_S * 1000 // spec.timeout_unit_ms
    return {"hooks": [handler]}


def _copilot_hooks(spec: HarnessFile, registry: str | None) -> str:
    hooks = {
        event: [
            {
                "type": "command",
                "bash": shell_text(_relay(spec, registry, event)),
                "timeoutSec": _TIMEOUT_S,
            }
        ]
        for event in spec.events
    }
    return json.dumps({"version": 1, "hooks": hooks}, indent=2, ensure_ascii=False)


def _opencode_plugin(spec: HarnessFile, registry: str | None) -> str:
    command = json.dumps(_relay(spec, registry))
    events = json.dumps(spec.events)
    return f"""\
// Written by `{OWN_MARK} {spec.name}`, taken away by the same with --remove.
import {{ spawn, spawnSync }} from "node:child_process";

const [PROGRAM, ...WORDS] = {command};
const EVENTS = new Set({events});
const open = new Map();

// Only what says whose session it is: titles and messages stay here.
const facts = (type, id, session) =>
  JSON.stringify({{
    type,
    properties: {{
      sessionID: id,
      info: {{
        id,
        parentID: session.parentID,
        directory: session.directory,
        agent: session.agent,
        model: session.model,
      }},
    }},
  }});

const relay = (type, input, folder) =>
  new Promise((done) => {{
    const options = {{ cwd: folder, stdio: ["pipe", "ignore", "ignore"] }};
    const child = spawn(PROGRAM, [...WORDS, type], options);
    child.on("error", done);
    child.on("close", done);
    child.stdin.on("error", () => {{}});
    child.stdin.end(input);
  }});

// OpenCode has no event for its own end: what is open then ends with it.
process.on("exit", () => {{
  for (const [id, {{ session, folder }}] of open) {{
    const input = facts("session.deleted", id, session);
    const options = {{ cwd: folder, input, timeout: 2000, stdio: ["pipe", "ignore", "ignore"] }};
    spawnSync(PROGRAM, [...WORDS, "session.deleted"], options);
  }}
}});

export const HeddleRegistry = async ({{ directory }}) => ({{
  event: async ({{ event }}) => {{
    if (!event.type.startsWith("session.") && !EVENTS.has(event.type)) return;
    const session = event.properties?.info ?? {{}};
    const id = event.properties?.sessionID ?? session.id;
    if (!id) return;
    if (!open.has(id) && event.type !== "session.deleted") {{
      // Created, or continued: of that there is no event.
      open.set(id, {{ session, folder: directory }});
      await relay("session.created", facts("session.created", id, session), directory);
    }}
    if (!EVENTS.has(event.type) || event.type === "session.created") return;
    if (event.type === "session.deleted") open.delete(id);
    await relay(event.type, facts(event.type, id, session), directory);
  }},
  // A command sees its session's id no other way. No process is started for it.
  "shell.env": async (input, output) => {{
    if (input.sessionID && output.env) output.env.OPENCODE_SESSION_ID = input.sessionID;
  }},
}});"""
