"""Running harnesses that nobody registered: found from processes and the harnesses' live files.

No hook, no plugin and no set-up is needed, and nothing is written. Only the table that comes with
the package is asked, so that a listing pays a look at each process's first arguments and no more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.glance import path_patterns, program_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from heddle_registry.ports import Host
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.running_harnesses import Unregistered

_ENDINGS: Final = (".exe", ".mjs", ".cjs", ".js", ".py")
_OFF: Final = frozenset({"off", "0", "false", "no"})
_INTERPRETERS: Final = ("node", "bun", "deno", "python", "pypy", "ruby", "tsx", "MainThread")
_FEW_WORDS: Final = 8
_MAX_LIVE_FILES: Final = 256
_MAX_LIVE_BYTES: Final = 65_536


def unregistered_harnesses(registry: AgentRegistry, heddle_dir: str) -> tuple[Unregistered, ...]:
    """Return the harnesses that run in the repository of ``heddle_dir`` without an entry.

    Their own working directories say where they run; of processes whose directory cannot be seen,
    another user's, nothing is known and nothing is said.
    """
    host = registry.host
    if host.environment().get("HEDDLE_REGISTRY_DETECTION", "").strip().lower() in _OFF:
        return ()
    seen = {info.pid: info for info in host.processes(_Programs())}
    live = list(_claude_sessions(host))
    repository = _Repository(heddle_dir, host.cwd())
    folders = [*(info.cwd for info in seen.values()), *(cwd for _, _, _, cwd in live)]
    if not any(map(repository.holds, folders)):
        return ()
    # From here on it costs more: the harnesses' signals are built and asked.
    from heddle_registry.running_harnesses import running_without_entry

    return running_without_entry(registry, seen, live, repository.holds)


class _Programs:
    """Whether arguments may be those of a harness: a cheap look, made sure of afterwards."""

    def __init__(self) -> None:
        self.names = program_names()
        # The longest plain piece of each pattern: a path without it cannot match.
        self._pieces = {max(_plain_pieces(path), key=len) for path in path_patterns()}

    def __call__(self, arguments: Sequence[str]) -> bool:
        if not arguments:
            return False
        first = _base_name(arguments[0])
        if first in self.names:
            return True
        words = arguments[:_FEW_WORDS] if first.startswith(_INTERPRETERS) else arguments[:1]
        return any(
            _base_name(word) in self.names or any(piece in word for piece in self._pieces)
            for word in words
        )


def _plain_pieces(pattern: str) -> list[str]:
    pieces, depth = [""], 0
    for char in pattern:
        depth += (char == "[") - (char == "]")
        if char in "*?[]/" or depth:
            pieces.append("")
        else:
            pieces[-1] += char
    return pieces


def _base_name(path: str) -> str:
    # As `core.harness.base_name`, whose module is not worth importing for a first look.
    name = path.rstrip("/").rsplit("/", 1)[-1].removeprefix("-")
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def _claude_sessions(host: Host) -> Iterable[tuple[int, str, str, str]]:
    """Return pid, start ticks, session and folder of Claude Code's ``sessions/<pid>.json``."""
    base = host.environment().get("CLAUDE_CONFIG_DIR") or os.path.join(host.home(), ".claude")
    folder = os.path.join(base, "sessions")
    for name in names_in(folder):
        pid = name.removesuffix(".json")
        if pid == name or not pid.isdecimal():
            continue  # beside it lies a key, which is nobody's to read
        live = json_object_in(os.path.join(folder, name))
        session, cwd = live.get("sessionId"), live.get("cwd")
        if isinstance(session, str) and isinstance(cwd, str):
            yield int(pid), str(live.get("procStart")), session, cwd


def names_in(folder: str) -> list[str]:
    """Return the first names in a folder, sorted; empty where it cannot be read."""
    try:
        return sorted(os.listdir(folder))[:_MAX_LIVE_FILES]
    except OSError:
        return []


def json_object_in(path: str) -> dict[str, Any]:
    """Return a small JSON file's object; empty for anything else."""
    from heddle_registry.core.harness import json_object

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return json_object(os.read(fd, _MAX_LIVE_BYTES))
    except OSError:
        return {}
    finally:
        os.close(fd)


class _Repository:
    """Which folders belong to the registry's repository, its linked worktrees among them."""

    def __init__(self, heddle_dir: str, cwd: str) -> None:
        from heddle_registry.adapters.location import find_worktree

        self._find = find_worktree
        self._roots = {os.path.realpath(os.path.dirname(heddle_dir))}
        worktree = find_worktree(cwd)
        if worktree is not None:
            # A registry elsewhere (--heddle-dir) is still about the repository that asks.
            self._roots.add(os.path.realpath(worktree.main_root))
        self._known: dict[str, bool] = {}

    def holds(self, folder: str | None) -> bool:
        if not folder:
            return False
        if folder not in self._known:
            worktree = self._find(folder)
            real = os.path.realpath(worktree.main_root if worktree is not None else folder)
            self._known[folder] = any(
                real == root or (worktree is None and real.startswith(f"{root}{os.sep}"))
                for root in self._roots
            )
        return self._known[folder]
