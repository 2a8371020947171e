"""What a harness looks like from outside: signals, and the processes they are looked for in.

A *signal* is one observable mark of a harness: a variable, a program among the ancestors, a file.
Signals are data (``detection/harnesses.py``, or the `Harness` values of a plugin); the rules that
order harnesses into a chain live in `heddle_registry.core.chain`. Nothing here reads the machine.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

DEFINITE: Final = 0.95
"""Confidence of an answer that a live ancestor process or a hook's payload bears out."""
PROBABLE: Final = 0.75
"""Highest confidence without a live ancestor, and of every harness known from documents only."""
CANDIDATE: Final = 0.5
"""Highest confidence of a harness that is named but not picked."""

EVENTS: Final = ("opened", "child_opened", "child_closed", "closed", "waiting")
"""What a harness's own lifecycle event may mean; the values of `Harness.events`."""

MAX_ID_LENGTH: Final = 200

_FALSE_LIKE: Final = frozenset({"", "0", "false", "no", "off", "none", "null"})
# Variables that belong to the system or to everybody: taken out only where the value is a mark.
_SHARED: Final = frozenset(
    {
        "AGENT",
        "HOME",
        "USER",
        "SHELL",
        "PS1",
        "PROMPT_COMMAND",
        "EDITOR",
        "PAGER",
        "AWS_EXECUTION_ENV",
        "TERM_PROGRAM",
        "CURSOR_TRACE_ID",
    }
)
_NEVER_SCRUBBED: Final = frozenset({"HOME", "USER", "SHELL", "PS1", "PROMPT_COMMAND", "EDITOR"})
_INTERPRETERS: Final = ("node", "nodejs", "bun", "deno", "python", "pypy", "ruby", "tsx")
_VALUE_OPTIONS: Final = frozenset(
    {"-r", "--require", "--import", "--loader", "--experimental-loader", "-W", "-X", "-C"}
)
_WILDCARDS: Final = frozenset("*?[")
_INLINE_OPTIONS: Final = frozenset({"-c", "-e", "-p", "--eval", "--print"})

_NAME_MARKS: Final = dict.fromkeys(map(ord, "-._"))
_LISTS: Final = ("signals", "aliases", "fork_of", "pid_variables", "marks", "transcripts")

Role: TypeAlias = Literal["launcher", "main", "worker"]


class SignalKind(StrEnum):
    """How much a signal proves."""

    STRONG = "strong"
    """A variable that is set only for what the agent runs."""
    SESSION = "session"
    """A variable that holds the id of a session, thread or agent."""
    PROGRAM = "program"
    """A program among the ancestors, by exact base name or path pattern."""
    WEAK = "weak"
    """Also seen where a person types: an editor's terminal. Never decides."""
    CONFIGURATION = "configuration"
    """The user's settings or installation. Never decides."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Signal(Record):
    """One mark of one harness. Build it with `env`, `program` or `file`."""

    kind: SignalKind
    source: Literal["env", "program", "file"] = "env"
    name: str
    equals: str | None = None
    starts_with: str | None = None
    contains: str | None = None
    agent_name: str | None = None
    also: tuple[str, ...] = ()
    path: str | None = None
    role: Role = "main"

    def seen_in(self, environ: Mapping[str, str]) -> bool:
        """Whether the variables show this mark. False-like values count as not set."""
        value = environ.get(self.name)
        if self.source != "env" or value is None:
            return False
        if not all(is_set(environ.get(other)) for other in self.also):
            return False
        if self.equals is not None:
            return value == self.equals
        if not is_set(value):
            return False
        if self.agent_name is not None:
            return self.agent_name in {value, agent_name(value)}
        if self.starts_with is not None:
            return value.startswith(self.starts_with)
        return self.contains is None or self.contains in value


def env(
    name: str,
    *,
    kind: str = "strong",
    equals: str | None = None,
    starts_with: str | None = None,
    contains: str | None = None,
    also: Sequence[str] = (),
) -> Signal:
    """Return a signal that is a variable.

    :param kind: ``strong``, ``session``, ``weak`` or ``configuration``
    :param equals: the exact value, case and all; without it every value but 0, false, no, off,
        none, null and blank counts
    :param also: other variables that must be set too
    """
    return Signal(
        kind=SignalKind(kind),
        name=name,
        equals=equals,
        starts_with=starts_with,
        contains=contains,
        also=tuple(also),
    )


def program(
    name: str, *, path: str | None = None, role: Role = "main", kind: str = "program"
) -> Signal:
    """Return a signal that is a program among the ancestors.

    :param name: the exact base name of the executable, of ``argv[0]``, or of the script that an
        interpreter runs
    :param path: a shell pattern over the whole path instead, for binaries named by their version
    :param role: ``launcher`` starts the harness proper, ``worker`` is started by it and never
        begins another instance
    """
    return Signal(kind=SignalKind(kind), source="program", name=name, path=path, role=role)


def file(path: str, *, kind: str = "strong") -> Signal:
    """Return a signal that is a file, by absolute path. It is looked for only where declared."""
    return Signal(kind=SignalKind(kind), source="file", name=path)


def _events(events: Mapping[str, str]) -> dict[str, str]:
    for event, meaning in events.items():
        if meaning not in EVENTS:
            raise ValueError(f"event {event!r} means {meaning!r}; expected one of {EVENTS}")
    return dict(events)


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Return a tuple of texts; refuse one text, which would fall apart into letters."""
    if isinstance(values, str):
        raise TypeError(f"{values!r} is one text, expected a list of them")
    return tuple(values)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Harness(Record):
    """One coding-agent program: how to recognise it and what its lifecycle events mean.

    ``tier`` is ``verified`` where the signals were seen on the real program; ``unverified`` ones
    are never better than `PROBABLE`. ``fork_of`` names the harnesses whose marks this one may also
    show. ``pid_variables`` hold the process id of the harness that set the marks. ``actor_kind`` is
    the middle part of its keys, ``acme:session:<id>``. ``marks`` are further variables that the
    harness leaves to its children and that `scrub` takes out. ``transcripts`` are folders that only
    this harness keeps transcripts in, as ``/.acme/logs/``: a payload that names one is its own.
    What is given as a list is kept as a tuple.
    """

    name: str
    signals: Sequence[Signal] = ()
    events: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    tier: Literal["verified", "unverified"] = "verified"
    aliases: Sequence[str] = ()
    fork_of: Sequence[str] = ()
    pid_variables: Sequence[str] = ()
    actor_kind: str = "session"
    marks: Sequence[str] = ()
    transcripts: Sequence[str] = ()
    _programs: tuple[Signal, ...] = attrs.field(init=False, eq=False, repr=False)
    """Those of its signals that a process is compared with."""

    def __attrs_post_init__(self) -> None:
        # Not by converters: attrs asks ``inspect`` about each, a tenth of a command's time.
        if not self.name.translate(_NAME_MARKS).isalnum():
            raise ValueError(f"harness name {self.name!r}: letters, digits, '-', '.', '_' only")
        keep = partial(object.__setattr__, self)
        keep("events", _events(self.events))
        for field in _LISTS:
            value = getattr(self, field)
            if type(value) is not tuple:
                keep(field, names(value))
        programs = (s for s in self.signals if s.source == "program")
        keep("_programs", tuple(s for s in programs if s.kind is SignalKind.PROGRAM))

    @property
    def ceiling(self) -> float:
        """The highest confidence that any answer about this harness may have."""
        return DEFINITE if self.tier == "verified" else PROBABLE

    def program_role(self, process: Process) -> tuple[Role, str] | None:
        """Return the role that the process plays in this harness and the name it matched by."""
        for signal in self._programs:
            interpreted = process.matches(signal)
            if interpreted is not None:
                # An interpreter that runs the harness's script starts the harness proper.
                role: Role = "launcher" if interpreted and signal.role == "main" else signal.role
                return role, signal.name
        return None

    def seen_marks(
        self, environ: Mapping[str, str], present: Collection[str] = ()
    ) -> dict[SignalKind, tuple[str, ...]]:
        """Return the names of the variables (and files) that show this harness, by kind.

        Never values: one of them may be a session id or a credential.
        """
        found: dict[SignalKind, tuple[str, ...]] = {}
        for signal in self.signals:
            seen = signal.seen_in(environ) or (signal.source == "file" and signal.name in present)
            if seen and signal.name not in found.get(signal.kind, ()):
                found[signal.kind] = (*found.get(signal.kind, ()), signal.name, *signal.also)
        return found

    def variables(self) -> frozenset[str]:
        """Return every variable that this harness leaves to what it starts."""
        own = {
            s.name
            for s in self.signals
            if s.source == "env"
            and s.kind in {SignalKind.STRONG, SignalKind.SESSION}
            and s.name not in _SHARED
        }
        return frozenset(own.union(self.pid_variables, self.marks))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Process(Record):
    """One ancestor process; anything but the pid may be missing.

    ``starttime`` is in clock ticks since boot, ``started_at`` in seconds of the epoch where the
    host knows it.
    """

    pid: int
    argv: tuple[str, ...] = ()
    exe: str = ""
    comm: str = ""
    starttime: int | None = None
    started_at: float | None = None
    cwd: str = ""
    script: str = attrs.field(init=False, eq=False, repr=False)
    """The script or module that an interpreter runs, or an empty string."""
    _named: tuple[str, frozenset[str]] = attrs.field(init=False, eq=False, repr=False)
    """What the script is named, and what the program is."""

    def __attrs_post_init__(self) -> None:
        # Once for each process, for many signals are compared with it.
        first = base_name(self.argv[0]) if self.argv else ""
        exe = base_name(self.exe)
        script = _script(self.argv[1:]) if _is_interpreter(first) or _is_interpreter(exe) else ""
        # `comm` is cut to 15 bytes and often names a thread: the last resort.
        names = frozenset({first, exe} - {""} or {self.comm})
        object.__setattr__(self, "script", script)
        object.__setattr__(self, "_named", (base_name(script), names))

    def matches(self, signal: Signal) -> bool | None:
        """Return None for no match, else whether an interpreter runs the program."""
        if signal.path is not None:
            if self.script and _ends_with(self.script, signal.path):
                return True
            first = self.argv[0] if self.argv else ""
            return False if any(_ends_with(p, signal.path) for p in (first, self.exe)) else None
        script, names = self._named
        if script and script == signal.name:
            return True
        return False if signal.name in names and not _is_interpreter(signal.name) else None


def _is_interpreter(name: str) -> bool:
    return name.rstrip("0123456789.") in _INTERPRETERS


def _script(arguments: Iterable[str]) -> str:
    rest = iter(arguments)
    for argument in rest:
        if argument in _INLINE_OPTIONS:
            return ""
        if argument in _VALUE_OPTIONS:
            next(rest, None)
        elif not argument.startswith("-"):
            return argument
    return ""


def is_set(value: str | None) -> bool:
    """Whether a variable's value says more than no: 0, false, no, off and blank do not."""
    return value is not None and value.strip().lower() not in _FALSE_LIKE


def agent_name(value: str) -> str:
    """Return the name in an ``AI_AGENT`` value such as ``acme@1.2`` or ``acme_1-2_agent``."""
    return value.split("@", 1)[0].split("_", 1)[0].strip()


def base_name(path: str) -> str:
    """Return the last part of a path without the endings that packaging adds to programs."""
    name = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].removeprefix("-")
    for ending in (".exe", ".mjs", ".cjs", ".js", ".py"):
        name = name.removesuffix(ending)
    return name


def _ends_with(path: str, pattern: str) -> bool:
    """Whether the last parts of a path are those of the pattern; ``*`` stays within one part."""
    wanted = pattern.removeprefix("*/").split("/")
    parts = path.replace("\\", "/").split("/")[-len(wanted) :]
    return len(parts) == len(wanted) and all(map(_is_like, parts, wanted))


def _is_like(part: str, pattern: str) -> bool:
    if _WILDCARDS.isdisjoint(pattern):
        return part == pattern
    if pattern[-1] == "*" and _WILDCARDS.isdisjoint(pattern[:-1]):
        return part.startswith(pattern[:-1])
    from fnmatch import fnmatchcase  # late: it makes a regular expression of every pattern

    return fnmatchcase(part, pattern)


def native_id(value: object) -> str | None:
    """Return the value if it can be an id: short, printable, without blanks. Else None."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        return None
    return value if value.isprintable() and not any(c.isspace() for c in value) else None


def actor_key(harness: Harness, actor: str | None, kind: str | None = None) -> str | None:
    """Return the key of a harness's own id, or None where it cannot be one."""
    valid = native_id(actor)
    if valid is None or valid.startswith(f"{harness.name}:"):
        return valid
    return f"{harness.name}:{kind or harness.actor_kind}:{valid}"


def json_object(text: str | bytes | None) -> dict[str, Any]:
    """Return the JSON object that the text holds; empty for anything else."""
    if not text or text[:1] not in {"{", b"{"}:
        return {}
    import json

    try:
        value: dict[str, Any] = json.loads(text)  # it began with a brace
    except (ValueError, RecursionError):
        return {}
    return value


def scrub(environ: Mapping[str, str], harnesses: Iterable[Harness]) -> dict[str, str]:
    """Return the variables without any mark that a harness leaves to what it starts.

    A harness started with its outer one's marks takes itself for a sub-agent: an inherited
    ``CLAUDE_CODE_CHILD_SESSION`` switches a nested Claude Code's transcript off. The user's own
    settings stay, and so do the variables of this registry.
    """
    known = list(harnesses)
    marks = {"AI_AGENT"}.union(*(harness.variables() for harness in known))
    shared = {
        signal.name
        for harness in known
        for signal in harness.signals
        if signal.name in _SHARED and signal.seen_in(environ)
    }
    if environ.get("AGENT") in {"1", "true"}:
        shared.add("AGENT")
    gone = (marks | shared) - _NEVER_SCRUBBED
    return {name: value for name, value in environ.items() if name not in gone}
