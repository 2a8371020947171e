"""Where a registry lies, and what git says of a folder. Reads files; runs no program."""

from __future__ import annotations

import os
from typing import Final

from heddle_registry.errors import UsageError


class Worktree:
    """A git worktree: its folder, the main one's, its git folder, its branch."""

    __slots__ = ("branch", "git_dir", "main_root", "root")

    def __init__(self, root: str, main_root: str, git_dir: str, branch: str | None) -> None:
        self.root = root
        self.main_root = main_root
        self.git_dir = git_dir
        self.branch = branch


FOLDER: Final = ".heddle"
_SMALL: Final = 65_536
_MOST_REFS: Final = 16_777_216
_SHORT_COMMIT: Final = 12


def find_heddle_dir(start: str | None = None, *, explicit: str | None = None) -> str:
    """See `heddle_registry.opening.find_heddle_dir`."""
    told = explicit or os.environ.get("HEDDLE_DIR")
    if told:
        return _absolute(os.path.expanduser(told))
    folder = _absolute(start) if start else _working_folder()
    home = os.path.realpath(os.path.expanduser("~"))
    for above in _upward(folder):
        candidate = os.path.join(above, FOLDER)
        # A ~/.heddle is the user's own settings, not a registry of all below the home.
        if os.path.isdir(candidate) and (above == folder or os.path.realpath(above) != home):
            return candidate
        if os.path.lexists(os.path.join(above, ".git")):
            worktree = find_worktree(above)
            if worktree is not None:
                return os.path.join(worktree.main_root, FOLDER)
    raise UsageError(
        f"no registry for {folder}: no {FOLDER} folder upward, and no git repository",
        "Change into a repository, or name a folder with --heddle-dir or HEDDLE_DIR",
    )


def _absolute(path: str) -> str:
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(_working_folder(), path))


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        raise UsageError(
            "the working directory no longer exists", "Change to a folder that exists"
        ) from None


def _upward(folder: str) -> list[str]:
    found = [folder]
    while (parent := os.path.dirname(folder)) != folder:
        folder = parent
        found.append(folder)
    return found


def find_worktree(folder: str) -> Worktree | None:
    """Return the git worktree that ``folder`` lies in; None outside of any.

    A linked worktree names the main one through its ``commondir``. A bare repository's main root
    is the repository itself.
    """
    for above in _upward(os.path.abspath(folder)):
        marker = os.path.join(above, ".git")
        git_dir: str | None = None
        if os.path.isdir(marker):
            git_dir = marker
        else:
            text = _read(marker)
            if text is not None and text.startswith("gitdir:"):
                git_dir = os.path.normpath(os.path.join(above, text[len("gitdir:") :].strip()))
        if git_dir is None:
            continue
        common = _common_dir(git_dir)
        is_plain = os.path.basename(common) == ".git"
        linked = common != git_dir
        main_root = (os.path.dirname(common) if is_plain else common) if linked else above
        return Worktree(above, main_root, git_dir, _branch(git_dir))
    return None


def _common_dir(git_dir: str) -> str:
    text = _read(os.path.join(git_dir, "commondir"))
    if text is None:
        return git_dir
    return os.path.normpath(os.path.join(git_dir, text.strip()))


def _branch(git_dir: str) -> str | None:
    head = _read(os.path.join(git_dir, "HEAD")) or ""
    prefix = "ref: refs/heads/"
    return head[len(prefix) :].strip() or None if head.startswith(prefix) else None


def head_state(folder: str) -> str | None:
    """Return the first 12 digits of the commit that ``folder`` has checked out; None if unknown."""
    worktree = find_worktree(folder)
    if worktree is None:
        return None
    head = (_read(os.path.join(worktree.git_dir, "HEAD")) or "").strip()
    if head.startswith("ref: "):
        head = _resolve(worktree.git_dir, head[len("ref: ") :]) or ""
    is_commit = len(head) >= _SHORT_COMMIT and all(char in "0123456789abcdef" for char in head)
    return head[:_SHORT_COMMIT] if is_commit else None


def _resolve(git_dir: str, ref: str) -> str | None:
    common = _common_dir(git_dir)
    for base in (git_dir, common):
        text = _read(os.path.join(base, *ref.split("/")))
        if text is not None:
            return text.strip()
    packed = _read(os.path.join(common, "packed-refs"), _MOST_REFS) or ""
    for line in packed.splitlines():
        if line.endswith(" " + ref):
            return line.split(" ", 1)[0]
    return None


def _read(path: str, limit: int = _SMALL) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "surrogateescape")
    except OSError:
        return None


def thread_of_folder(folder: str) -> str | None:
    """Return the branch checked out in ``folder``, ``detached/<worktree>`` without one.

    None outside of a git worktree.
    """
    worktree = find_worktree(folder)
    if worktree is None:
        return None
    return worktree.branch or f"detached/{os.path.basename(worktree.root)}"
