"""A first glance at a process, which tells most of them from a harness.

Most processes are none, and to know that needs neither the table's signals nor a parser: no name
of theirs stands in its text. Whatever might be one is looked at properly, by `core.chain`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from typing import Final

    from heddle_registry.ports import Host
    from heddle_registry.ports.process import ProcessInfo

TABLE: Final = os.path.join(os.path.dirname(__file__), "detection", "harnesses.toml")
_PATTERNS: Final = ("paths", "worker_paths")


def innermost_harness_pid(host: Host, ancestors: Sequence[ProcessInfo]) -> int | None:
    """Return the pid of the innermost harness among these ancestors; None if none can be seen.

    Asks the table that comes with the package and no plugin: some 2 ms where there may be one.
    """
    if not may_be_harness(ancestors):
        return None
    from heddle_registry.core.chain import locate
    from heddle_registry.detection import known_harnesses
    from heddle_registry.probe import process_of

    layers = locate(
        environ=host.environment(),
        ancestors=[process_of(process) for process in ancestors],
        harnesses=known_harnesses(),
    ).layers
    if not layers or not layers[-1].processes:
        return None
    return layers[-1].processes[0].pid


def may_be_harness(processes: Iterable[ProcessInfo]) -> bool:
    """Return whether any of the processes might be one of the table's; False is sure."""
    with open(TABLE, encoding="utf-8") as table:
        text = table.read()
    patterns = [list(_fixed_parts(pattern)) for pattern in path_patterns(text)]
    return any(
        any(f'"{name}"' in text for name in _names(path)) or _may_match(path, patterns)
        for process in processes
        for path in {*process.argv, process.exe or "", process.comm}
    )


def path_patterns(text: str) -> Iterator[str]:
    """Return the patterns for whole paths in a table's text."""
    return texts_under(text, _PATTERNS)


def texts_under(text: str, keys: Container[str]) -> Iterator[str]:
    """Return the texts under these keys in a table's text, unparsed.

    Each array stands on its key's line there, and no text in it needs an escape.
    """
    for line in text.splitlines():
        key, _, value = line.partition(" = ")
        if key in keys:
            yield from value.split('"')[1::2]


def _names(path: str) -> Iterator[str]:
    # Whatever `core.harness.base_name` may make of it: packaging's endings begin at a dot.
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2].removeprefix("-")
    yield last
    for at, letter in enumerate(last):
        if letter == ".":
            yield last[:at]


def _fixed_parts(pattern: str) -> Iterator[str]:
    # Of each part of the path, what stands before the first wildcard.
    for part in pattern.removeprefix("*/").split("/"):
        ends = [at for at in map(part.find, "*?[") if at >= 0]
        yield part[: min(ends, default=len(part))]


def _may_match(path: str, patterns: Iterable[list[str]]) -> bool:
    parts = path.replace("\\", "/").split("/")
    return any(
        len(parts) >= len(fixed) and all(map(str.startswith, parts[-len(fixed) :], fixed))
        for fixed in patterns
    )
