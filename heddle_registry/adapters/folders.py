"""The two folders of records: their files, and why one of these is none to be relied on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from heddle_registry.adapters.layout import thread_hash
from heddle_registry.adapters.record_files import RecordFile, RecordFiles
from heddle_registry.core.evidence import Subject
from heddle_registry.core.limits import is_session_id
from heddle_registry.core.transaction import Damage
from heddle_registry.errors import RecordCorrupt, RegistryError, StoreUnavailable

if TYPE_CHECKING:
    from types import ModuleType

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.ports.findings import Problem

_HINTS = ("thread", "pid", "boot_id", "status")
_MOST_HINT_LINES = 100
_HASH_DIGITS = len(thread_hash(""))
_HEX = frozenset("0123456789abcdef")


class Folders:
    """The two folders of records. Keeps what it parsed; safe for several OS threads."""

    def __init__(self, layout: Layout) -> None:
        self.agents: RecordFiles[AgentEntry] = RecordFiles(layout.agents, _entry_in)
        self.claims: RecordFiles[Claim] = RecordFiles(layout.claims, _claim_in)

    def forget_parent(self) -> None:
        """In a forked child: the parent's parsed records are as good here, but are its own."""
        self.agents.forget_all()
        self.claims.forget_all()


@cache
def _codec() -> ModuleType:
    # A fiftieth of a short command, and most find all that they ask for in the index.
    from heddle_registry import codec

    return codec


def _entry_in(data: bytes, path: str) -> AgentEntry:
    entry: AgentEntry = _codec().entry_from_toml(data, path)
    return entry


def _claim_in(data: bytes, path: str) -> Claim:
    claim: Claim = _codec().claim_from_toml(data, path)
    return claim


def problem_of(
    path: str, error: RegistryError, thread: str | None, *, is_claim: bool = False
) -> Problem:
    """Return what a listing says of a file that is no record."""
    from heddle_registry.ports.findings import Problem

    return Problem(
        path=path, code=error.code, message=error.message, thread=thread, is_claim=is_claim
    )


def entry_file_error(file: RecordFile[AgentEntry]) -> RegistryError | None:
    """Return why a file in ``agents`` is no entry to be relied on; None if it is one."""
    if not is_session_id(file.stem):
        return RecordCorrupt(
            file.path, ["its name is no session id"], "Nothing reads it; rename or remove it"
        )
    if file.error is not None:
        return file.error
    if file.record is not None and file.record.session_id != file.stem:
        return RecordCorrupt(
            file.path,
            [f"session_id is {file.record.session_id!r}, which is not the file's name"],
            "`doctor --fix` shows how it can be mended",
        )
    return None


def claim_file_error(file: RecordFile[Claim]) -> RegistryError | None:
    """Return why a file in ``claims`` cannot be relied on; None if it can."""
    if file.error is not None:
        return file.error
    claim = file.record
    if claim is None:
        return None
    if claim_in(file) is None:
        return RecordCorrupt(file.path, [f"thread {claim.thread!r} does not belong in this file"])
    if _codec().is_claim_from_newer_schema(claim):
        return StoreUnavailable(
            file.path,
            f"its schema {claim.schema} is newer than this program",
            "Upgrade heddle-registry",
        )
    return None


def claim_in(file: RecordFile[Claim]) -> Claim | None:
    """Return the claim that a file in ``claims`` holds, be it a newer program's.

    None for damage, and for a file under another branch's name: it says nothing of the branch that
    it names, which has its own file.
    """
    claim = file.record
    return claim if claim is not None and thread_hash(claim.thread) == file.stem else None


def hides_a_claim(file: RecordFile[Claim]) -> bool:
    """Return whether a claim may be in this file that cannot be read here, now or at all.

    Not so of damage. What has another name than claims have is nobody's claim.
    """
    is_named_so = len(file.stem) == _HASH_DIGITS and _HEX.issuperset(file.stem)
    return is_named_so and file.record is None and isinstance(file.error, StoreUnavailable)


def damage_of(file: RecordFile[AgentEntry], error: RegistryError) -> Damage:
    """Return what an unreadable entry still says of its thread and owner."""
    session_id = file.stem if is_session_id(file.stem) else None
    if session_id is None:
        return Damage(path=file.path, error=error)
    if isinstance(error, StoreUnavailable):
        return Damage(path=file.path, error=error, session_id=session_id, may_be_any=True)
    if file.record is not None:
        return Damage(
            path=file.path,
            error=error,
            thread=file.record.thread if file.record.is_active else None,
            session_id=session_id,
            subject=file.record.subject(),
        )
    hints = _readable_lines(file.data or b"")
    thread = hints.get("thread")
    if not isinstance(thread, str) or hints.get("status", "active") != "active":
        return Damage(path=file.path, error=error, session_id=session_id)
    pid, boot_id = hints.get("pid"), hints.get("boot_id")
    subject = Subject(
        session_id=session_id,
        pid=pid if isinstance(pid, int) else None,
        boot_id=boot_id if isinstance(boot_id, str) else "",
    )
    return Damage(
        path=file.path, error=error, thread=thread, session_id=session_id, subject=subject
    )


def _readable_lines(data: bytes) -> dict[str, object]:
    import tomli

    hints: dict[str, object] = {}
    for line in data.splitlines()[:_MOST_HINT_LINES]:
        text = line.decode("utf-8", "replace")
        if text.partition(" =")[0] not in _HINTS:
            continue
        try:
            hints.update(tomli.loads(text))
        except (ValueError, RecursionError):
            continue
    return hints
