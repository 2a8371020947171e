"""A first glance at a process, which tells most of them from a harness.

Most processes are none, and to know that needs none of the table's signals: no name of theirs
stands in it. Whatever might be one is looked at properly, by `core.chain`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from heddle_registry.ports import Host
    from heddle_registry.ports.process import ProcessInfo

_PROGRAMS = ("programs", "launchers", "workers")
_PATTERNS = ("paths", "worker_paths")


def innermost_harness_pid(host: Host, ancestors: Sequence[ProcessInfo]) -> int | None:
    """Return the pid of the innermost harness among these ancestors; None if none can be seen.

    Asks the table that comes with the package and no plugin.
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
    known = program_names()
    patterns = [list(_fixed_parts(pattern)) for pattern in path_patterns()]
    return any(
        not known.isdisjoint(_names(path)) or _may_match(path, patterns)
        for process in processes
        for path in {*process.argv, process.exe or "", process.comm}
    )


def program_names() -> frozenset[str]:
    """Return the base names of all programs in the table."""
    return frozenset(_texts_under(_PROGRAMS))


def path_patterns() -> Iterator[str]:
    """Return the table's patterns for whole paths."""
    return _texts_under(_PATTERNS)


def _texts_under(keys: Sequence[str]) -> Iterator[str]:
    from heddle_registry.detection.harnesses import HARNESSES

    return (text for row in HARNESSES for key in keys for text in row.get(key, ()))


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
