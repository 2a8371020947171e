"""Every error this package raises on purpose, and the exit status each one means.

A class takes facts and builds its own sentence from them: what happened, to which thread or
file, and what to do next. The facts stay readable as attributes, every instance survives
``pickle`` and ``copy``, and where a caller would already catch a built-in (``TimeoutError``,
``OSError``) the class is one of those too.
"""

from __future__ import annotations

# A literal, because importing `typing` costs more than a whole heartbeat.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, ClassVar, Final, final
else:

    def final(kind: type) -> type:
        """Mark a class that has no children, for type checkers alone."""
        return kind


EXIT_DONE: Final = 0
EXIT_USAGE: Final = 2
EXIT_ILLEGAL_TRANSITION: Final = 4
EXIT_HELD: Final = 5
EXIT_DAMAGED: Final = 6
EXIT_UNAVAILABLE: Final = 7
EXIT_OUTCOME_UNKNOWN: Final = 8
EXIT_LOCK_TIMEOUT: Final = 9
EXIT_UNKNOWN_ENTRY: Final = 10
EXIT_CLAIM_LOST: Final = 11


class RegistryError(Exception):
    """The root. Only its concrete children are raised."""

    code: ClassVar[str] = ""
    """A stable name for programs, e.g. ``held``."""
    exit_code: ClassVar[int] = 1
    hint: str = ""
    """What to do next, one sentence; empty where the message already says it."""

    def __init__(self, message: str, hint: str = "") -> None:
        if not self.code:
            raise TypeError(f"{type(self).__name__} is abstract; raise one of its children")
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Children take facts, not the message, so the default (cls, args) would call them wrongly.
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(
    cls: type[RegistryError], args: tuple[Any, ...], state: dict[str, Any]
) -> RegistryError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


@final
class UsageError(RegistryError):
    """An argument, option or setting is wrong. Nothing was read or changed."""

    code = "usage"
    exit_code = EXIT_USAGE


class CoreError(RegistryError):
    """The registry understood the request and refuses it."""


@final
class IllegalTransition(CoreError):
    """The entry's status does not allow that event (see ``core.lifecycle.TRANSITIONS``)."""

    code = "illegal_transition"
    exit_code = EXIT_ILLEGAL_TRANSITION

    def __init__(self, status: str, event: str, session_id: str = "") -> None:
        self.status = status
        self.event = event
        self.session_id = session_id
        who = f"entry {session_id}" if session_id else "the entry"
        super().__init__(
            f"cannot {event} {who}: it is already {status}",
            "An ended entry stays ended; a resumed agent gets a new entry"
            if status != "active"
            else "",
        )


@final
class Held(CoreError):
    """Somebody else holds the branch, or is present on it. The normal answer to a race.

    ``holder`` is the blocking `AgentEntry` (None when only waiters stand in line), ``verdict``
    what liveness says of it, ``frees_when`` a sentence for people.
    """

    code = "held"
    exit_code = EXIT_HELD

    def __init__(
        self,
        thread: str,
        *,
        holder: Any = None,
        verdict: Any = None,
        why: str = "",
        frees_when: str = "",
        state: str = "held",
    ) -> None:
        self.thread = thread
        self.holder = holder
        self.verdict = verdict
        self.why = why
        self.frees_when = frees_when
        self.state = state
        super().__init__(
            f"branch {thread!r} is {state}: {why}" if why else f"branch {thread!r} is {state}",
            frees_when,
        )

    def explain(self) -> str:
        """Return the whole story as one text for people."""
        return str(self)


@final
class UnknownEntry(CoreError):
    """No entry has that session id."""

    code = "unknown_entry"
    exit_code = EXIT_UNKNOWN_ENTRY

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(
            f"no entry {session_id!r}",
            "It may have been pruned 7 days after it ended; `list --all` shows what is there",
        )


@final
class ClaimLost(CoreError):
    """The token or fence was refused: the caller may no longer write to the branch.

    ``by`` is the session id of the one who took it (empty when unknown or when the token is a
    stranger's), ``why`` the story as far as the caller may know it.
    """

    code = "claim_lost"
    exit_code = EXIT_CLAIM_LOST

    def __init__(self, thread: str, *, by: str = "", why: str = "token refused") -> None:
        self.thread = thread
        self.by = by
        self.why = why
        super().__init__(
            f"the claim on branch {thread!r} is not yours: {why}",
            "Stop writing to the branch; `reserve` it again before you go on",
        )


class StoreError(RegistryError):
    """The files could not be read or written as asked. ``path`` names the one concerned."""

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        self.path = path
        super().__init__(message, hint)


@final
class RecordCorrupt(StoreError):
    """A file is no valid record. ``problems`` lists every one found, each ``key: reason``."""

    code = "damaged"
    exit_code = EXIT_DAMAGED

    def __init__(self, path: str, problems: Sequence[str], hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__(
            path,
            f"{path} is damaged: " + "; ".join(self.problems),
            hint or "`doctor --fix` shows how it can be mended",
        )


@final
class StoreUnavailable(StoreError):
    """Read-only, full, no permission, an I/O error, a newer schema: nothing was changed."""

    code = "unavailable"
    exit_code = EXIT_UNAVAILABLE

    def __init__(self, path: str, why: str, hint: str = "", errno: int | None = None) -> None:
        self.why = why
        self.errno = errno
        super().__init__(path, f"{path}: {why}; nothing was changed", hint)


@final
class OutcomeUnknown(StoreError):
    """The change is visible but may not survive a power loss. Read again before you retry."""

    code = "outcome_unknown"
    exit_code = EXIT_OUTCOME_UNKNOWN

    def __init__(self, path: str, why: str) -> None:
        self.why = why
        super().__init__(
            path,
            f"{path}: {why} after the change became visible",
            "Look with `why` before you try again: the change may stand",
        )


class LockError(RegistryError):
    """The store's lock could not be taken. ``path`` is the lock file."""

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        self.path = path
        super().__init__(message, hint)


@final
class LockTimeout(LockError, TimeoutError):
    """The lock stayed with another for the whole time. Nothing was changed."""

    code = "lock_timeout"
    exit_code = EXIT_LOCK_TIMEOUT

    def __init__(self, path: str, timeout_s: float, holder_pid: int | None = None) -> None:
        self.timeout_s = timeout_s
        self.holder_pid = holder_pid
        who = f"process {holder_pid}" if holder_pid is not None else "another process"
        super().__init__(
            path,
            f"{who} has held the lock {path} for over {timeout_s:g} s; nothing was changed",
            "Try again, or raise --lock-timeout",
        )


@final
class LockUnsupported(LockError, OSError):
    """The file system does not lock, so exclusivity cannot be kept there."""

    code = "lock_unsupported"
    exit_code = EXIT_UNAVAILABLE

    def __init__(self, path: str, why: str) -> None:
        self.why = why
        super().__init__(
            path,
            f"{path} cannot be locked: {why}; nothing was changed",
            "Put the registry on a local file system (--heddle-dir)",
        )


@final
class PluginFault(RegistryError):
    """A plugin raised, answered the wrong type or could not be loaded. Reported, never fatal."""

    code = "plugin_fault"

    def __init__(self, plugin: str, hook: str, why: str) -> None:
        self.plugin = plugin
        self.hook = hook
        self.why = why
        super().__init__(
            f"plugin {plugin!r} failed in {hook}: {why}",
            "It costs its own answer only; `doctor` lists plugin faults",
        )
