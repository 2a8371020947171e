"""Which files of a folder are transcripts, and which belong to one session's family.

Layouts as the harnesses write them (``FORMATS`` in the docs). A harness that is not in the table
keeps ``*.jsonl``. Looks at names, and at the first 4 KB of a candidate where the name does not
tell whose child it is. Blocking; follows no links.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TRANSCRIPTS: Final[Mapping[str, str]] = {
    "claude-code": r"\.jsonl$",
    "codex": r"/rollout-[^/]*\.jsonl$",
    "gemini-cli": r"/chats/.*\.jsonl?$",
    "qwen-code": r"/(chats|subagents)/.*(?<!runtime)\.jsonl$",
    "copilot-cli": r"/events\.jsonl$",
    "opencode": r"/opencode(-[^/]*)?\.db$",
    "aider": r"/\.aider\.chat\.history\.md$",
}
_ANY: Final = re.compile(r"\.(jsonl?|db)$")
"""What is taken for a transcript in a folder that nobody laid out, such as a backup."""
_ROOTS: Final[Mapping[str, str]] = {"claude-code": "projects", "pi": "sessions"}
"""Where a harness's home is given, only this folder of it holds transcripts."""
_HEAD_BYTES: Final = 4096
_SESSION_ID: Final = re.compile(rb'"sessionId"\s*:\s*"([^"]+)"')


class Looked:
    """What was seen of folders and heads of files, for one round of `discover` over many paths."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._heads: dict[str, bytes] = {}

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none where it cannot be read."""
        if folder not in self._names:
            self._names[folder] = _names(folder)
        return self._names[folder]

    def head(self, path: str) -> bytes:
        """Return a file's first 4 KB."""
        if path not in self._heads:
            self._heads[path] = _head(path)
        return self._heads[path]


def discover(harness: str, path: str, looked: Looked | None = None) -> list[str]:
    """Return the transcripts that a path stands for, in order of their names.

    A folder: every transcript below it, by the harness's own layout; where there is none of that,
    everything that may be one. A file: itself and its sub-agents'. Nothing there: the path itself,
    so that the reader can report it. With the same ``looked`` no folder is listed twice.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        found = sorted(_below(harness, path)) or sorted(_files(path, _ANY))
        return found or [path]
    return [path, *sorted(_family(harness, path, looked or Looked()))]


def _below(harness: str, folder: str) -> Iterator[str]:
    root = os.path.join(folder, _ROOTS.get(harness, ""))
    if harness == "opencode" and _is_storage(folder):
        yield folder
        return
    wanted = re.compile(_TRANSCRIPTS.get(harness, r"\.jsonl$"))
    yield from _files(root if os.path.isdir(root) else folder, wanted)
    if harness == "opencode" and _is_storage(os.path.join(folder, "storage")):
        yield os.path.join(folder, "storage")


def _files(folder: str, wanted: re.Pattern[str]) -> Iterator[str]:
    for inner, _, names in os.walk(folder):
        for name in names:
            file = f"{inner}/{name}"
            if wanted.search(file):
                yield file


def _is_storage(folder: str) -> bool:
    if os.path.isdir(os.path.join(folder, "message")):
        return True
    return os.path.basename(os.path.dirname(folder)) == "message"


def _family(harness: str, path: str, looked: Looked) -> Iterator[str]:
    folder, name = os.path.split(path)
    stem = name.partition(".")[0]
    if harness == "claude-code":
        for inner, _, names in os.walk(os.path.join(folder, stem, "subagents")):
            yield from (f"{inner}/{one}" for one in names if one.endswith(".jsonl"))
        # Until 2.0 the sub-agents' files lay beside all sessions of the project.
        for one in looked.names(folder):
            if one.startswith("agent-") and one.endswith(".jsonl") and one != name:
                session = _SESSION_ID.search(looked.head(os.path.join(folder, one)))
                if session is not None and session[1].decode("utf-8", "replace") == stem:
                    yield os.path.join(folder, one)
    elif harness == "codex":
        thread = re.search(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", stem)
        for one in looked.names(folder) if thread else ():
            if one != name and one.startswith("rollout-"):
                file = os.path.join(folder, one)
                if thread is not None and thread[0].encode() in looked.head(file):
                    yield file
    elif harness == "gemini-cli":
        found = _SESSION_ID.search(looked.head(path))
        if found is not None:
            children = os.path.join(folder, found[1].decode("utf-8", "replace"))
            yield from (os.path.join(children, one) for one in looked.names(children))
    elif harness == "qwen-code":
        children = os.path.join(os.path.dirname(folder), "subagents", stem)
        yield from (
            os.path.join(children, one) for one in looked.names(children) if one.endswith(".jsonl")
        )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
