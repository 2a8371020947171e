"""A registry's files, read without a TOML parser where they are in the very form that we write.

That form is what the property tests hold to `codec`: a file that is plain here is one that `codec`
reads, and that it would write again byte for byte (an entry's strings and floats aside).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final

    Spec = Mapping[str, Mapping[str, str]]
    Record = Mapping[str, list[dict[str, str]]]
    """By header, ``""`` for the keys before the first: each table of that name, values as spelt."""

_OWNER: Final = {
    "pid": "4!", "boot_id": "o", "host": "o", "pid_ns": "o", "time_ns": "o", "start_ticks": "8",
    "command": "o",
}  # fmt: skip
_TOKEN: Final = {"salt": "s!", "digest": "s!"}

CLAIM: Final[Spec] = {
    "": {"schema": "n!", "thread": "s!", "fence": "n!", "path": "s"},
    "[holder]": {"session_id": "s!", "granted_at": "t!", "lost_at": "t", "ttl_s": "d"},
    "[holder.owner]": _OWNER,
    "[holder.liveness]": {"device": "8!", "inode": "8!"},
    "[holder.token]": _TOKEN,
    "[holder.renewed]": {"at": "t!", "awake_ns": "i!", "boot_id": "s!", "time_ns": "o"},
    "[[past]]": {
        "session_id": "s!", "fence": "n!", "ended_at": "t!", "cause": "c!", "by": "o",
        "reason": "o",
    },
    "[past.token]": _TOKEN,
}  # fmt: skip
"""The tables of a claim's file and their keys, in the order in which `codec.claims` writes them.

Behind each key stands its kind, ``!`` where it must be there; see `_is_of_kind`.
"""

ENTRY: Final[Spec] = {
    "": {
        "session_id": "s!", "client_instance_id": "s", "native_actor_key": "s",
        "native_parent_actor_key": "s", "native_instance_key": "s", "heddle_session_id": "s",
        "thread_id": "s", "thread": "s!", "pid": "4", "boot_id": "s", "liveness_path": "s",
        "heartbeat_at": "t", "anchor_state": "s", "anchor_root": "s", "reservation_token": "s",
        "path": "s", "base_state": "s!", "started_at": "t!", "provider": "s", "model": "s",
        "harness": "s", "thinking_level": "s", "last_progress_at": "t",
        "report_flush_state": "s", "attach_reason": "s", "task_assignment_id": "s",
        "attach_precedence": "a", "winning_attach_rule": "s", "probe_source": "s",
        "probe_confidence": "f", "status": "w!", "completed_at": "t", "context_queries": "e",
    },
    "[usage_summary]": {
        "input_tokens": "8", "output_tokens": "8", "reasoning_tokens": "8", "tool_calls": "4",
        "cost_micros_usd": "8",
    },
    "[[context_queries]]": {"path": "s!", "scope": "s", "queried_at": "t!"},
    "[heddle_registry]": {
        "schema": "n", "fence": "n", "ttl_s": "d", "runner_pid": "4", "continues": "s",
        "cache_creation_tokens": "8", "cache_read_tokens": "8", "usage_sources": "a",
    },
    "[heddle_registry.owner]": _OWNER,
    "[heddle_registry.token]": _TOKEN,
    "[[heddle_registry.ancestors]]": {
        "session_id": "s!", "native_actor_key": "s", "native_parent_actor_key": "s",
        "thread": "s!", "status": "w!", "provider": "s", "model": "s", "harness": "s",
    },
}  # fmt: skip
"""The same for an entry's file. Only read here, so its strings need not be in our own form."""

_STATUSES: Final = ("active", "complete", "merged", "abandoned")
_CAUSES: Final = ("released", "dead", "expired", "handed over", "forced", "lost", "deleted")
_MOST: Final = {"4": 2**32 - 1, "8": 2**64 - 1, "n": 2**63 - 1, "i": 2**63 - 1}


def plain_record(data: bytes, spec: Spec) -> Record | None:
    """Return a file's tables by header, each with its values as they are spelt; None if not plain.

    Plain is: every key is known, stands in the order of ``spec`` and in the spelling that the
    codec would give its value, and everything that must be there is.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if lines.pop():
        return None
    headers = list(spec)
    found: dict[str, list[dict[str, str]]] = {"": [{}]}
    at, expected, values = "", iter(spec[""].items()), found[""][0]
    rest = iter(lines)
    for line in rest:
        if line:
            key, equals, value = line.partition(" = ")
            if value == "[":
                value = _array(rest)
            if not (equals and _takes(expected, key, value)):
                return None
            values[key] = value
            continue
        header = next(rest, "")
        if header not in spec or not (header and _may_follow(at, header, headers, found)):
            return None
        if not _takes(expected, "", ""):
            return None
        at, expected, values = header, iter(spec[header].items()), {}
        found.setdefault(at, []).append(values)
    return found if _takes(expected, "", "") else None


def _takes(expected: Iterator[tuple[str, str]], key: str, value: str) -> bool:
    # Goes on to ``key``; no key goes on to the table's end.
    for name, kind in expected:
        if name == key:
            return _is_of_kind(value, kind[0])
        if kind[-1] == "!":
            return False
    return not key


def _may_follow(
    at: str, header: str, headers: Sequence[str], found: Mapping[str, list[dict[str, str]]]
) -> bool:
    # Forward only, but that the next of an array of tables may begin; and below its own table.
    is_next = header.startswith("[[") and at.strip("[]").startswith(header.strip("[]"))
    if not is_next and headers.index(header) <= headers.index(at):
        return False
    above = header.strip("[]").rpartition(".")[0]
    return not above or f"[{above}]" in found or at == f"[[{above}]]"


def _array(rest: Iterator[str]) -> str:
    # The strings themselves are nobody's business here.
    items = 0
    for line in rest:
        if line == "]":
            break
        item = line[4:-1]
        if line != f"    {item}," or not _is_text(item):
            return ""
        items += 1
    # One alone would stand on the key's line.
    return "[]" if items > 1 else ""


def _is_of_kind(value: str, kind: str) -> bool:
    if kind in "so":
        return _is_text(value) and (kind == "s" or len(value) > 2)  # noqa: PLR2004 - the quotes
    if kind == "t":
        return _is_time(value)
    if kind in _MOST:
        digits = value.removeprefix("-") if kind == "i" else value
        return _is_number(digits) and int(digits) <= _MOST[kind] and value != "-0"
    if kind in "df":
        whole, point, fraction = value.partition(".")
        if not (_is_number(whole) and len(whole) <= 15):  # noqa: PLR2004 - exact in a float
            return False
        if kind == "f" or (point and not _is_digits(fraction)):
            return _is_digits(fraction)
        return not point or (repr(float(value)) == value and fraction != "0")
    if kind == "w":
        return value.strip('"') in _STATUSES and _is_text(value)
    if kind == "c":
        return value.strip('"') in _CAUSES and _is_text(value)
    if kind == "a":
        # More than one were read line by line.
        return value == "[]" or (value == f"[{value[1:-1]}]" and _is_text(value[1:-1]))
    return value == "[]"


def _is_number(digits: str) -> bool:
    return (
        digits.isascii()
        and digits.isdigit()
        and len(digits) <= 20  # noqa: PLR2004 - 64 bits
        and (digits[0] != "0" or digits == "0")
    )


def _is_text(value: str) -> bool:
    # The first two of the writer's five forms.
    inner = value[1:-1]
    if len(value) < 2 or not inner.isprintable():  # noqa: PLR2004 - the quotes
        return False
    if value[0] == value[-1] == '"':
        return '"' not in inner and "\\" not in inner
    return value[0] == value[-1] == "'" and "'" not in inner and ('"' in inner or "\\" in inner)


def text_of(value: str) -> str:
    """Return the text of a plain string."""
    return value[1:-1]


def _is_time(value: str) -> bool:
    # 2026-07-01T12:00:00.123Z in quotes, at a day that every month has or that is written so.
    text = value[1:-2]
    marks = text[4:5] + text[7:8] + text[10:11] + text[13:14] + text[16:17]
    parts = (text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])
    if value != f'"{text}Z"' or marks != "--T::" or not all(map(_is_digits, parts)):
        return False
    year, month, day, hour, minute, second = map(int, parts)
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):  # noqa: PLR2004
        return False
    if day > 28 and day > (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]:  # noqa: PLR2004
        return False
    is_time = hour <= 23 and minute <= 59 and second <= 59  # noqa: PLR2004
    return is_time and (len(text) == 19 or (text[19:20] == "." and _is_digits(text[20:])))  # noqa: PLR2004


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
