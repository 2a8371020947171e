"""Our hooks in a settings file of the shape ``{"hooks": {EVENT: [{"hooks": [{"command"}]}]}}``.

Taking them out again needs no memory of what was there before: how our text is laid out says what
we made. A container that we made begins with a line break; in one that was there, empty, our text
follows its bracket at once. A file that we made ends with one line break, and one more for each
folder that we made for it; in a file that was there, blank, a space stands inside our braces.
Where somebody wrote the file anew since, its layout says nothing, and what is empty goes. Pure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.record import Record
from heddle_registry.install import jsonc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_BYTES: Final = 4 * 1024 * 1024
_BOM: Final = "\ufeff"
_UNIT: Final = "  "


class UnfitSettings(ValueError):
    """The file cannot be changed safely; ``str()`` says why."""


@attrs.frozen(eq=False, repr=False)
class _Found(Record):
    """One of our hooks in a file: where, and what it says."""

    event: str
    path: tuple[Any, ...]
    group: Mapping[str, Any]


def add_hooks(
    before: bytes | None,
    wanted: Mapping[str, Mapping[str, Any]],
    is_ours: Callable[[str], bool],
    made_folders: int = 0,
) -> bytes:
    """Return the file with one group for each event of ``wanted``; as it is where they are there.

    :param before: the file; None where there is none
    :param is_ours: whether a command is one of ours; all others stay
    :param made_folders: how many folders have to be made for the file
    :raises UnfitSettings: it is no such settings file.
    """
    if before is None:
        return (_fresh(wanted) + "\n" * (1 + made_folders)).encode()
    text, bom = _decoded(before)
    if not text.strip():
        return (bom + text + "{ " + _fresh(wanted)[1:-1].strip() + " }").encode()
    found = _ours(text, is_ours)
    is_whole = sorted(f.event for f in found) == sorted(wanted)
    if is_whole and all(wanted[f.event] == f.group for f in found):
        return before
    if found:
        rest, folders = remove_hooks(before, is_ours)
        return add_hooks(rest, wanted, is_ours, folders if rest is None else 0)
    for event, group in wanted.items():
        text = _with_group(text, event, group)
    return (bom + text).encode()


def remove_hooks(before: bytes, is_ours: Callable[[str], bool]) -> tuple[bytes | None, int]:
    """Return the file without our hooks, None where it is to go, and how many folders with it.

    :raises UnfitSettings: it is no such settings file.
    """
    text, bom = _decoded(before)
    # The last first: how the first one stands tells whether its container was there before us.
    while text.strip() and (found := _ours(text, is_ours)):
        nodes = [jsonc.parse(text)]
        for key in found[-1].path[:-1]:
            nodes.append(nodes[-1].children[key])
        keys = list(found[-1].path)
        while jsonc.is_made_for(text, nodes[-1], keys[-1]):
            emptied = nodes.pop()
            keys.pop()
            if not nodes:
                return _without_root(text, bom, emptied)
        text = jsonc.cut(text, nodes[-1], keys[-1])
    return (bom + text).encode(), 0


def _without_root(text: str, bom: str, root: jsonc.Node) -> tuple[bytes | None, int]:
    above, below = text[: root.start], text[root.end :]
    if text.startswith('{ "', root.start) and "\n" in text[root.start : root.end] and not below:
        return (bom + above).encode(), 0
    if (above + below).strip():
        return (bom + above + "{}" + below).encode(), 0
    return None, max(0, below.count("\n") - 1)


def _decoded(data: bytes | None) -> tuple[str, str]:
    if data is None:
        return "", ""
    if len(data) > MAX_BYTES:
        raise UnfitSettings(f"it has over {MAX_BYTES // (1024 * 1024)} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UnfitSettings(f"it is not UTF-8 (byte {error.start})") from None
    return text.removeprefix(_BOM), _BOM if text.startswith(_BOM) else ""


def _ours(text: str, is_ours: Callable[[str], bool]) -> list[_Found]:
    """Return our hooks in the order of the file.

    :raises UnfitSettings: the file is of another shape, so that nothing can be put into it.
    """
    try:
        root = jsonc.parse(text)
    except jsonc.NotJson as error:
        raise UnfitSettings(f"it is no JSON: {error}") from None
    if not root.is_object:
        raise UnfitSettings("it holds no object")
    hooks = root.value.get("hooks", {})
    if not isinstance(hooks, dict):
        raise UnfitSettings('its "hooks" is no object')
    found = []
    for event, groups in hooks.items():
        if not isinstance(groups, list):
            continue  # none of ours; `_with_group` refuses where we want something there
        for at, group in enumerate(groups):
            listed = group.get("hooks") if isinstance(group, dict) else None
            handlers = listed if isinstance(listed, list) else []
            for place, handler in enumerate(handlers):
                command = handler.get("command") if isinstance(handler, dict) else None
                if isinstance(command, str) and is_ours(command):
                    path: tuple[Any, ...] = ("hooks", event, at)
                    if len(handlers) > 1:  # somebody moved it to hooks of his own
                        path += ("hooks", place)
                    found.append(_Found(event, path, group))
    return found


def _with_group(text: str, event: str, group: Mapping[str, Any]) -> str:
    root = jsonc.parse(text)
    unit = jsonc.indent_unit(text, root)
    hooks = root.children.get("hooks")
    if hooks is None:
        return jsonc.insert(text, root, _member("hooks", {event: [group]}, unit), unit)
    groups = hooks.children.get(event)
    if groups is None:
        return jsonc.insert(text, hooks, _member(event, [group], unit), unit)
    if not groups.is_array:
        raise UnfitSettings(f"its hooks of {event} are no list")
    return jsonc.insert(text, groups, _pretty(group, unit), unit)


def _member(key: str, value: Any, unit: str) -> str:
    return f"{json.dumps(key)}: {_pretty(value, unit)}"


def _pretty(value: Any, unit: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False)


def _fresh(wanted: Mapping[str, Mapping[str, Any]]) -> str:
    return _pretty({"hooks": {event: [group] for event, group in wanted.items()}}, _UNIT)
