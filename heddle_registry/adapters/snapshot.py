"""What lies in a registry's folders at one moment, as records and problems: a full scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from heddle_registry.adapters.folders import (
    claim_file_error,
    claim_in,
    damage_of,
    entry_file_error,
    hides_a_claim,
    problem_of,
)
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.core.selection_maps import RecordMaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from heddle_registry.adapters.folders import Folders
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.transaction import Damage
    from heddle_registry.errors import RegistryError
    from heddle_registry.ports.findings import Problem

_LOOKS = 3


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DirectoryRecords(RecordMaps):
    """`RecordMaps` that also know the claims of which not even the thread can be read."""

    unread_claims: Mapping[str, RegistryError] = attrs.field(factory=dict)
    """By the hash of the thread, which is the file's name."""
    hidden_claim: RegistryError | None = None
    """Why one of those cannot be read that may be anybody's claim."""

    def claim(self, thread: str) -> Claim | None:
        """See `Records`."""
        error = self.unread_claims.get(thread_hash(thread)) if self.unread_claims else None
        if error is not None:
            raise error
        return super().claim(thread)

    def claims_naming(self, path: str) -> Iterable[Claim]:
        """See `Records`."""
        if self.hidden_claim is not None:
            raise self.hidden_claim
        return super().claims_naming(path)


class Snapshot(NamedTuple):
    """The records of one consistent moment, and what could not be read."""

    records: DirectoryRecords
    problems: tuple[Problem, ...]


def take_snapshot(folders: Folders) -> Snapshot:
    """Read both, the claims again until they agree with themselves, three times at most.

    :raises StoreUnavailable: a folder cannot be read.
    """
    claim_files = folders.claims.scan()
    agent_files: list[RecordFile[AgentEntry]] = []
    for _ in range(_LOOKS):
        agent_files = folders.agents.scan()
        before = {file.name: file.stamp for file in claim_files}
        claim_files = folders.claims.scan()
        if before == {file.name: file.stamp for file in claim_files}:
            break
    entries, damage, problems = _sort_entries(agent_files)
    claims, damaged_claims, unread, claim_problems = _sort_claims(claim_files)
    hidden = (file.error for file in claim_files if hides_a_claim(file))
    return Snapshot(
        records=DirectoryRecords(
            entries=entries,
            claims=claims,
            damaged_claims=damaged_claims,
            damaged=tuple(damage),
            damaged_entries={d.session_id: d.error for d in damage if d.session_id is not None},
            unread_claims=unread,
            hidden_claim=next(hidden, None),
        ),
        problems=(*problems, *claim_problems),
    )


def _sort_entries(
    files: list[RecordFile[AgentEntry]],
) -> tuple[dict[str, AgentEntry], list[Damage], list[Problem]]:
    entries: dict[str, AgentEntry] = {}
    damage: list[Damage] = []
    problems: list[Problem] = []
    for file in sorted(files, key=lambda file: file.name):
        error = entry_file_error(file)
        if error is None:
            if file.record is not None:
                entries[file.stem] = file.record
            continue
        found = damage_of(file, error)
        damage.append(found)
        problems.append(problem_of(file.path, error, found.thread))
    return entries, damage, problems


def _sort_claims(
    files: list[RecordFile[Claim]],
) -> tuple[dict[str, Claim], dict[str, RegistryError], dict[str, RegistryError], list[Problem]]:
    claims: dict[str, Claim] = {}
    damaged: dict[str, RegistryError] = {}
    unread: dict[str, RegistryError] = {}
    problems: list[Problem] = []
    for file in sorted(files, key=lambda file: file.name):
        error = claim_file_error(file)
        # A file under another thread's name hides what its own thread's claim was.
        claim = claim_in(file)
        if claim is not None:
            claims[claim.thread] = claim
        if error is None:
            continue
        if claim is not None:
            damaged[claim.thread] = error
        else:
            unread[file.stem] = error
        thread = claim.thread if claim is not None else None
        problems.append(problem_of(file.path, error, thread, is_claim=True))
    return claims, damaged, unread, problems
