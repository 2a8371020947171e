"""What a probe is asked and what it answers: one place in the chain, and whose process it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.harness import DEFINITE, json_object, names
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from heddle_registry.core.harness import Process
else:
    Protocol = object  # building one takes longer than all the records here


class Files(Protocol):
    """What a probe may read: regular files below the home and the working directory."""

    def resolve(self, path: str) -> str | None:
        """Return where the path really lies, or None outside of what may be read."""

    def read(self, path: str, *, limit: int, tail: bool = False) -> bytes | None:
        """Return up to ``limit`` bytes from the start, or the end; None where there is no file."""

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder, empty where there is none."""

    def modified_at(self, path: str) -> float | None:
        """Return the time of the last change in seconds of the epoch."""

    def database(self, path: str) -> Any:
        """Return a read-only ``sqlite3.Connection``, or None. The caller closes it."""


class NoFiles:
    """A `Files` that has none."""

    def resolve(self, path: str) -> str | None:  # noqa: D102, ARG002
        return None

    def read(self, path: str, *, limit: int, tail: bool = False) -> bytes | None:  # noqa: D102, ARG002
        return None

    def names(self, path: str) -> list[str]:  # noqa: D102, ARG002
        return []

    def modified_at(self, path: str) -> float | None:  # noqa: D102, ARG002
        return None

    def database(self, path: str) -> Any:  # noqa: D102, ARG002
        return None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Probe(Record):
    """The argument of ``heddle_probe``: one place in the chain, as far as it is known.

    ``env`` holds only variables that may be trusted for this place: where the harness's own marks
    belong to another instance, or were leaked by a terminal multiplexer, they are already out.
    ``payload`` is what the harness gave its hook (empty in a tool command), ``processes`` the
    harness's own processes outermost first, ``below`` everything nearer to us, nearest last.
    """

    harness: str
    env: Mapping[str, str] = attrs.field(factory=dict)
    payload: Mapping[str, Any] = attrs.field(factory=dict)
    event: str = ""
    processes: tuple[Process, ...] = ()
    below: tuple[Process, ...] = ()
    innermost: bool = True
    home: str = ""
    cwd: str = ""
    files: Files = attrs.field(factory=NoFiles)

    @property
    def ancestors(self) -> tuple[Process, ...]:
        """The harness's processes and everything below them, nearest first."""
        return (*self.processes, *self.below)[::-1]

    def at_home(self, *parts: str) -> str:
        """Return a path below the home directory."""
        return "/".join((self.home.rstrip("/"), *parts))

    def read_text(self, path: str, limit: int = 65_536, *, tail: bool = False) -> str | None:
        """Return the start (or end) of a file below home or the working directory, or None."""
        data = self.files.read(path, limit=limit, tail=tail)
        return None if data is None else data.decode("utf-8", "replace")

    def read_json(self, path: str, limit: int = 262_144) -> dict[str, Any]:
        """Return a small JSON file's object; empty where there is none or it is no object."""
        return json_object(self.read_text(path, limit))

    def first_line(self, path: str, limit: int = 1_048_576) -> dict[str, Any]:
        """Return the first line of a JSON-lines file as an object, empty where it is none."""
        return json_object((self.read_text(path, limit) or "").split("\n", 1)[0])

    def last_lines(
        self, path: str, limit: int = 1_048_576, *, holding: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the objects on the complete lines in a JSON-lines file's last ``limit`` bytes.

        :param holding: only lines with one of these texts in them are parsed
        """
        text = self.read_text(path, limit, tail=True) or ""
        lines = (x for x in text.split("\n") if not holding or any(h in x for h in holding))
        return [record for record in map(json_object, lines) if record]

    def transcript(self, path: object) -> str | None:
        """Return where a path that the harness named lies here; None for anything else."""
        return (self.files.resolve(path) or path) if isinstance(path, str) and path else None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Identity(Record):
    """A probe's answer: whose process this is.

    Ids are the harness's own; the core makes the keys of them (``acme:session:<id>``). ``parent``
    is the actor that started this one *inside the same harness*; the outer harness is the core's
    affair. ``lineage`` holds the ancestors of a sub-agent, outermost first, and stands for
    ``parent`` where that is None. ``orphan`` says: a sub-agent whose parent could not be known.
    ``actor=None`` with ``candidates`` says: one of these, and nothing to tell which.
    ``continues`` is the session that this one was forked from or goes on with under a new id.
    """

    actor: str | None = None
    actor_kind: str | None = None
    parent: str | None = None
    parent_kind: str | None = None
    lineage: Sequence[Identity] = ()
    orphan: bool = False
    candidates: Sequence[Identity] = ()
    instance: str | None = None
    model: str | None = None
    provider: str | None = None
    thinking_level: str | None = None
    transcript: str | None = None
    continues: str | None = None
    source: str | None = None
    confidence: float = DEFINITE
    evidence: Sequence[str] = ()

    def __attrs_post_init__(self) -> None:
        # As `Harness`, without converters.
        object.__setattr__(self, "lineage", tuple(self.lineage))
        object.__setattr__(self, "candidates", tuple(self.candidates))
        object.__setattr__(self, "evidence", names(self.evidence))
