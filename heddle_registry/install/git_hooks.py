"""``install git``: where the guard goes, beside which hooks."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from heddle_registry.errors import StoreUnavailable, UsageError
from heddle_registry.install.change import FileChange, missing_folders, read_settings
from heddle_registry.install.git_script import (
    ASIDE,
    HOOK,
    folders_made,
    guard_script,
    is_guard,
    is_pure_guard,
)
from heddle_registry.install.launch import command_line, shell_text
from heddle_registry.install.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCRIPT_MODE = 0o755
_GIT_TIMEOUT_S = 30
_VERSION_AT = 2
_OLDEST_GIT = (2, 28)


def plan_git(folder: str, *, registry: str | None = None, remove: bool = False) -> Plan:
    """Return what puts the guard into the repository of ``folder``, or takes it out.

    :param registry: the registry that guards it, where that is told; else HEDDLE_DIR, else the one
        that is found from a worktree
    :raises UsageError: there is no repository, or git is too old for the hook, or the guard was
        changed by somebody.
    :raises StoreUnavailable: git cannot be asked.
    """
    if not remove:
        _refuse_old_git(folder)
    folders = _hook_folders(folder)
    told = _told_registry(folder, registry)
    notes = [] if remove else _notes(folder, folders, told)
    changes: list[FileChange] = []
    for hooks in folders:
        changes += _removal(hooks) if remove else _insertion(hooks, told)
    return Plan(target="git", changes=tuple(changes), notes=tuple(notes))


def _insertion(hooks: str, told: str) -> list[FileChange]:
    path = os.path.join(hooks, HOOK)
    link = os.path.islink(path)
    before = read_settings(path)
    text = (before or b"").decode("utf-8", "replace")
    ask = shell_text(command_line("cli.guard"))
    if before is not None and not link and is_guard(text):
        _refuse_changed(path, text)
        script = guard_script(ask, told, made_folders=folders_made(text))
        return [FileChange(path=path, before=before, after=script.encode())]
    script = guard_script(ask, told, made_folders=missing_folders(path))
    new = FileChange(path=path, before=None, after=script.encode(), mode=_SCRIPT_MODE)
    if before is None and not link:
        return [new]
    aside = path + ASIDE
    if os.path.lexists(aside):
        raise UsageError(f"{aside} is in the way", "Move it, or take it away if nobody needs it")
    return [FileChange(path=aside, before=before, after=before, moved_from=path), new]


def _removal(hooks: str) -> list[FileChange]:
    path = os.path.join(hooks, HOOK)
    before = None if os.path.islink(path) else read_settings(path)
    text = (before or b"").decode("utf-8", "replace")
    if before is None or not is_guard(text):
        return []
    _refuse_changed(path, text)
    gone = FileChange(path=path, before=before, after=None, remove_folders=folders_made(text))
    aside = path + ASIDE
    if not os.path.lexists(aside):
        return [gone]
    kept = read_settings(aside)
    return [gone, FileChange(path=path, before=kept, after=kept, moved_from=aside)]


def _refuse_changed(path: str, text: str) -> None:
    if not is_pure_guard(text):
        raise UsageError(
            f"{path} holds the guard and something else",
            "Move what is not ours into a hook of its own, then try again",
        )


def _refuse_old_git(folder: str) -> None:
    said = _git(folder, "version").split()
    numbers = said[2].split(".")[:2] if len(said) > _VERSION_AT else []
    if all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) < _OLDEST_GIT:
        raise UsageError(f"git {said[2]} knows no {HOOK} hook", "It came with git 2.28")


def _hook_folders(folder: str) -> list[str]:
    """Return the folders that git takes hooks from: a relative hooksPath means one a worktree."""
    tops = [
        line.removeprefix("worktree ")
        for line in _git(folder, "worktree", "list", "--porcelain").splitlines()
        if line.startswith("worktree ")
    ]
    # A submodule's list names its git folder in place of its worktree.
    tops.append(_git(folder, "rev-parse", "--show-toplevel", missing=folder).rstrip("\n"))
    found: dict[str, None] = {}
    for top in tops:
        if os.path.isdir(top):  # else it was moved or deleted, and is not pruned yet
            hooks = _git(top, "rev-parse", "--git-path", "hooks").rstrip("\n")
            found[os.path.realpath(os.path.join(top, hooks))] = None
    return list(found)


def _git(folder: str, *words: str, missing: str | None = None) -> str:
    import subprocess

    # Inside a hook, or an agent's shell, git's own variables name another repository.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "-C", folder, *words],
            capture_output=True,
            check=False,
            env=environ,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreUnavailable(folder, f"git cannot be asked ({error})") from None
    if answer.returncode == 0:
        return os.fsdecode(answer.stdout)
    if missing is not None:
        return missing
    said = os.fsdecode(answer.stderr).strip().partition("\n")[0]
    raise UsageError(f"no guard for {folder}: {said}", "Change into a git repository")


def _told_registry(folder: str, registry: str | None) -> str:
    """Return the registry quoted for a shell; empty where the hook finds it by itself."""
    from heddle_registry.adapters.location import FOLDER, find_worktree

    told = registry or os.environ.get("HEDDLE_DIR")
    if not told:
        return ""
    told = os.path.realpath(os.path.expanduser(told))
    worktree = find_worktree(folder)
    roots = (worktree.root, worktree.main_root) if worktree is not None else ()
    own = {os.path.realpath(os.path.join(root, FOLDER)) for root in roots}
    return "" if told in own else shlex.quote(told)


def _notes(folder: str, folders: Sequence[str], told: str) -> list[str]:
    common = _git(folder, "rev-parse", "--git-common-dir").rstrip("\n")
    common = os.path.realpath(os.path.join(folder, common))
    top = os.path.dirname(common)
    notes: list[str] = []
    for hooks in folders:
        if hooks == os.path.join(common, "hooks"):
            continue
        if hooks.startswith(top + os.sep) or len(folders) > 1:
            notes.append(
                f"{hooks} is a part of the worktree: do not commit the hook for others, and "
                "install again after you added a worktree"
            )
        elif told:
            raise UsageError(
                f"{hooks} serves other repositories too, and the registry is not this one's own",
                "Leave out --heddle-dir and HEDDLE_DIR, or give the repository its own hooksPath",
            )
        else:
            notes.append(
                f"{hooks} may serve other repositories too: the guard then guards them all"
            )
    return notes
