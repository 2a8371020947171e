"""What went wrong where nobody reads an error: noted for ``doctor``, a bounded number of lines.

Harnesses call ``relay`` and ignore what it says. A note holds our own words, the kind of an error
and names that were given on a command line, never anything of a payload.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from heddle_registry.core.timestamp import Timestamp
    from heddle_registry.errors import PluginFault

NAME: Final = "faults.jsonl"
MAX_FAULTS: Final = 50
_MAX_BYTES: Final = 65_536
_MAX_TEXT: Final = 200


def note_fault(heddle_dir: str, plugin: str, hook: str, why: str, at: Timestamp) -> None:
    """Keep one fault; an equal one that is there already only gets the new time.

    Makes the registry's folder where it is missing. What cannot be written is let go: there is
    nobody to tell.
    """
    import fcntl
    import json

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.errors import RegistryError

    note = {"plugin": _clip(plugin), "hook": _clip(hook), "why": _clip(why)}
    layout = Layout(heddle_dir)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with suppress(OSError, RegistryError):
        layout.make()
        fd = os.open(os.path.join(layout.root, NAME), flags, 0o600)
        try:
            # Two hooks at once: the second one's fault is let go rather than waited for.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = [old for old in _read(fd) if not note.items() <= old.items()]
            kept = [*kept, {**note, "at": at.text}][-MAX_FAULTS:]
            text = "".join(f"{json.dumps(one)}\n" for one in kept)
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        finally:
            os.close(fd)


def noted_faults(heddle_dir: str) -> tuple[PluginFault, ...]:
    """Return what was noted, oldest first; empty where there is nothing, or nothing readable."""
    from heddle_registry.errors import PluginFault

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(os.path.join(heddle_dir, NAME), flags)
    except OSError:
        return ()
    try:
        notes = _read(fd)
    except OSError:
        return ()
    finally:
        os.close(fd)
    return tuple(
        PluginFault(note["plugin"], note["hook"], f"{note['why']} (last at {note['at']})")
        for note in notes
    )


def _read(fd: int) -> list[dict[str, Any]]:
    import json

    found = []
    for line in os.pread(fd, _MAX_BYTES, 0).split(b"\n"):
        try:
            note = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn, or somebody else's
        keys = ("plugin", "hook", "why", "at")
        if isinstance(note, dict) and all(isinstance(note.get(key), str) for key in keys):
            found.append({key: _clip(note[key]) for key in keys})
    return found[-MAX_FAULTS:]


def _clip(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_TEXT])
