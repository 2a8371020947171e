"""JSON text that keeps its shape: a parser that remembers where everything stands, and two edits.

Settings belong to their user: comments, order and indentation stay as they are. So a change is
never "read, modify, write again" but the insertion, or the removal, of one piece of text. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 100
_SCALAR: Final = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BLANK: Final = " \t\r\n"
_decode_string: Final = json.JSONDecoder().raw_decode


class NotJson(ValueError):
    """The text is no JSON, comments and trailing commas allowed. ``line`` counts from 1."""

    def __init__(self, text: str, at: int, why: str) -> None:
        self.line = text.count("\n", 0, at) + 1
        self.why = why
        super().__init__(f"line {self.line}: {why}")


class Node:
    """A value and where it stands: ``text[start:end]``.

    ``children`` are the members of an object by key, or the items of an array by index.
    ``starts`` holds where each child begins, its key included.
    """

    __slots__ = ("children", "end", "last_comma", "start", "starts", "value")

    def __init__(self, start: int, value: Any) -> None:
        self.start = start
        self.end = start
        self.value = value
        self.children: dict[Any, Node] = {}
        self.starts: dict[Any, int] = {}
        self.last_comma: int | None = None
        """Where the comma after the last child stands; None without one."""

    @property
    def is_object(self) -> bool:
        """Whether it is an object."""
        return isinstance(self.value, dict)

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return isinstance(self.value, list)


def parse(text: str) -> Node:
    """Return the value that ``text`` holds.

    :raises NotJson: it is none, or names a key twice: nobody knows which one counts.
    """
    at = skip_blank(text, 0)
    node = _value(text, at, 0)
    rest = skip_blank(text, node.end)
    if rest != len(text):
        raise NotJson(text, rest, "something follows the value")
    return node


def skip_blank(text: str, at: int) -> int:
    """Return where the next thing that is neither blank nor comment stands."""
    while at < len(text):
        if text[at] in _BLANK:
            at += 1
        elif text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise NotJson(text, at, "a comment does not end")
            at = end + 2
        else:
            break
    return at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise NotJson(text, at, f"nested deeper than {MAX_DEPTH} levels")
    mark = text[at : at + 1]
    if mark == "{":
        return _container(text, Node(at, {}), "}", depth)
    if mark == "[":
        return _container(text, Node(at, []), "]", depth)
    if mark == '"':
        value, end = _string(text, at)
    else:
        found = _SCALAR.match(text, at)
        if found is None:
            raise NotJson(text, at, "the file ends early" if not mark else f"unexpected {mark!r}")
        value, end = json.loads(found.group()), found.end()
    node = Node(at, value)
    node.end = end
    return node


def _string(text: str, at: int) -> tuple[str, int]:
    try:
        value, end = _decode_string(text, at)
    except ValueError:
        raise NotJson(text, at, "a text does not end, or holds what it may not") from None
    return str(value), end


def _container(text: str, node: Node, closing: str, depth: int) -> Node:
    at = skip_blank(text, node.start + 1)
    while text[at : at + 1] != closing:
        begin = at
        key: Any = len(node.children)
        if node.is_object:
            if text[at : at + 1] != '"':
                raise NotJson(text, at, "a key is missing")
            key, at = _string(text, at)
            if key in node.children:
                raise NotJson(text, begin, f"the key {key!r} is there twice")
            at = skip_blank(text, at)
            if text[at : at + 1] != ":":
                raise NotJson(text, at, "a colon is missing")
            at = skip_blank(text, at + 1)
        child = _value(text, at, depth + 1)
        node.children[key] = child
        node.starts[key] = begin
        if node.is_object:
            node.value[key] = child.value
        else:
            node.value.append(child.value)
        node.last_comma = None
        at = skip_blank(text, child.end)
        if text[at : at + 1] == ",":
            node.last_comma = at
            at = skip_blank(text, at + 1)
        elif text[at : at + 1] != closing:
            raise NotJson(text, at, "a comma is missing")
    node.end = at + 1
    return node


def newline_of(text: str) -> str:
    """Return how the lines of ``text`` end."""
    return "\r\n" if "\r\n" in text else "\n"


def indent_unit(text: str, root: Node) -> str:
    """Return by how much ``text`` indents."""
    for start in root.starts.values():
        indent = _indent_at(text, start)
        if indent:
            return indent
    return "  "


def _indent_at(text: str, at: int) -> str:
    """Return the blanks before ``at`` where nothing else stands on its line; else nothing."""
    begin = text.rfind("\n", 0, at) + 1
    before = text[begin:at]
    return before if not before.strip(" \t") else ""


def _line_indent(text: str, at: int) -> str:
    begin = text.rfind("\n", 0, at) + 1
    line = text[begin:at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def insert(text: str, parent: Node, piece: str, unit: str) -> str:
    """Return ``text`` with ``piece`` as the last child of ``parent``.

    ``piece`` has its lines ended by LF and not indented. `cut` undoes this to the byte.
    """
    newline = newline_of(text)
    if not parent.children:
        # No blank before it: so `cut` knows that an empty container was here before us.
        base = _line_indent(text, parent.start)
        at = parent.start + 1
        return text[:at] + _indented(piece, base, newline) + text[at:]
    last_key = next(reversed(parent.children))
    last = parent.children[last_key]
    base = _indent_at(text, parent.starts[last_key]) or _line_indent(text, parent.start) + unit
    spot = _end_of_line_comment(
        text, (last.end if parent.last_comma is None else parent.last_comma + 1)
    )
    placed = newline + base + _indented(piece, base, newline)
    if parent.last_comma is not None:
        return text[:spot] + placed + "," + text[spot:]
    return text[: last.end] + "," + text[last.end : spot] + placed + text[spot:]


def _indented(piece: str, base: str, newline: str) -> str:
    return piece.replace("\n", newline + base)


def _end_of_line_comment(text: str, at: int) -> int:
    """Return the end of the comments that follow ``at`` on its line; ``at`` where none do."""
    end = at
    look = at
    while True:
        while text[look : look + 1] in (" ", "\t"):
            look += 1
        if text.startswith("//", look):
            stop = text.find("\n", look)
            stop = len(text) if stop < 0 else stop
            return stop - 1 if text[stop - 1 : stop] == "\r" else stop
        stop = text.find("*/", look + 2) if text.startswith("/*", look) else -1
        if stop < 0 or "\n" in text[look:stop]:
            return end
        look = end = stop + 2


def is_made_for(text: str, parent: Node, key: Any) -> bool:
    """Return whether ``parent`` was made for its child ``key``: it goes with it.

    That is so where the child stands alone in it, and not as `insert` puts it into an empty one.
    Where the child is on one line, somebody wrote it anew, and an empty container is of no use.
    """
    if len(parent.children) != 1:
        return False
    start, end = parent.starts[key], parent.children[key].end
    if start == parent.start + 1 and "\n" in text[start:end]:
        return False
    around = text[parent.start + 1 : start] + text[end : parent.end - 1]
    return not around.strip(_BLANK + ",")  # a comment is the user's


def cut(text: str, parent: Node, key: Any) -> str:
    """Return ``text`` without the child ``key`` of ``parent``: what `insert` put there is gone."""
    keys = list(parent.children)
    place = keys.index(key)
    child = parent.children[key]
    before = start = parent.starts[key]
    while text[before - 1] in _BLANK:
        before -= 1
    follows = skip_blank(text, child.end)
    is_comma = text[follows : follows + 1] == ","
    ends = follows + 1 if is_comma else child.end
    if len(keys) == 1:
        return text[:start] + text[ends:]
    earlier = parent.children[keys[place - 1]].end if place else parent.start + 1
    if place == len(keys) - 1 and not is_comma:
        comma = skip_blank(text, earlier)
        return text[:comma] + _joined(text[comma + 1 : before], text[ends:])
    return text[:earlier] + _joined(text[earlier:before], text[ends:])


def _joined(between: str, after: str) -> str:
    # A comment that runs to the end of its line must not swallow what follows.
    if "//" in between.rpartition("\n")[2] and after.lstrip(" \t")[:1] not in ("\n", "\r", ""):
        return between + "\n" + after
    return between + after
