"""What is unsafe about single records, and how each can be mended. Changes nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from heddle_registry.adapters import repair
from heddle_registry.adapters.folders import (
    Folders,
    claim_file_error,
    entry_file_error,
)
from heddle_registry.adapters.repair import named
from heddle_registry.core.claim import ClaimState
from heddle_registry.core.evidence import Subject
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.transaction import fact_key
from heddle_registry.errors import RegistryError, StoreUnavailable
from heddle_registry.ports.findings import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.transaction import Facts
    from heddle_registry.ports import Host


def record_findings(
    store: DirectoryStore, host: Host, lock_timeout_s: float | None
) -> Iterator[Check]:
    """Yield every finding about entries and claims, the good ones too."""
    folders = Folders(store.layout)
    try:
        entry_files, claim_files = folders.agents.scan(), folders.claims.scan()
    except RegistryError as refused:
        yield Check(name="records", status="bad", detail=told(refused), fix=refused.hint)
        return
    entries: dict[str, AgentEntry] = {}
    unreadable: set[str] = set()
    for entry_file in sorted(entry_files, key=lambda file: file.name):
        error = entry_file_error(entry_file)
        if error is None and entry_file.record is not None:
            entries[entry_file.stem] = entry_file.record
        elif error is not None:
            unreadable.add(entry_file.stem)
            yield _entry(store, host, entry_file, error, lock_timeout_s)
    elsewhere = _in_other_namespaces(host, entries)
    if elsewhere:
        yield Check(
            name="entries",
            status="warn",
            detail=f"{len(elsewhere)} run in another pid or time namespace ({named(elsewhere)}): "
            "nobody here can tell when they end",
            fix="release them from there, or give them a TTL",
        )
    if not unreadable and not elsewhere:
        yield Check(name="entries", status="ok", detail=f"{len(entries)} readable")
    all_is_well = True
    for claim_file in sorted(claim_files, key=lambda file: file.name):
        error = claim_file_error(claim_file)
        finding = None
        if error is not None:
            finding = _claim(store, host, claim_file, error, entries, lock_timeout_s)
        elif claim_file.record is not None and claim_file.record.holder_id not in unreadable:
            finding = _lost(store, host, claim_file.record, entries)
        if finding is not None:
            all_is_well = False
            yield finding
    if all_is_well:
        yield Check(name="claims", status="ok", detail=f"{len(claim_files)} readable")


def _in_other_namespaces(host: Host, entries: dict[str, AgentEntry]) -> list[str]:
    here = host.observe(Subject(session_id="doctor"))
    found = []
    for session_id, entry in entries.items():
        owner = entry.owner
        if owner is None or not entry.is_active or owner.boot_id != here.boot_id:
            continue
        if (owner.pid_ns and owner.pid_ns != here.pid_ns) or (
            owner.time_ns and owner.time_ns != here.time_ns
        ):
            found.append(session_id)
    return found


def _entry(
    store: DirectoryStore,
    host: Host,
    file: RecordFile[AgentEntry],
    error: RegistryError,
    lock_timeout_s: float | None,
) -> Check:
    def bad(fix: str, mending: partial[str] | None = None) -> Check:
        return Check(name="entries", status="bad", detail=told(error), fix=fix, repair=mending)

    if isinstance(error, StoreUnavailable):
        return bad(error.hint or "make the file readable")
    own_name = repair.name_by_content(store.layout, file)
    if own_name is not None:
        return bad(
            f"rename it to agents/{own_name}",
            partial(repair.rename_entry, store, file.name, own_name, lock_timeout_s),
        )
    wait = repair.why_wait(store, host, file, error)
    if wait is not None:
        return bad(wait)
    return bad(
        "move it to agents/.quarantine",
        partial(repair.quarantine_entry, store, host, file.name, lock_timeout_s),
    )


def _claim(
    store: DirectoryStore,
    host: Host,
    file: RecordFile[Claim],
    error: RegistryError,
    entries: dict[str, AgentEntry],
    lock_timeout_s: float | None,
) -> Check:
    def bad(fix: str, mending: partial[str] | None = None) -> Check:
        return Check(name="claims", status="bad", detail=told(error), fix=fix, repair=mending)

    if isinstance(error, StoreUnavailable):
        return bad(error.hint or "make the file readable")
    own_name = repair.claim_name_by_content(store.layout, file)
    if own_name is not None:
        return bad(
            f"rename it to claims/{own_name}",
            partial(repair.rename_claim, store, file.name, own_name, lock_timeout_s),
        )
    thread = repair.thread_of_claim(file, entries.values())
    if thread is None and repair.is_spare(store.layout, file):
        return bad(
            "move it to agents/.quarantine: it is no branch's claim",
            partial(repair.quarantine_claim, store, file.name, lock_timeout_s),
        )
    if thread is None:
        return bad(
            "nothing says for sure whose branch it is: find the one that `why` calls damaged, and "
            "once nobody works on that, move the file away by hand"
        )
    return bad(
        f"write the claim on {thread!r} anew, with fence "
        f"{repair.next_fence(file, thread, entries.values())}",
        partial(repair.rebuild_claim, store, host, file.name, lock_timeout_s),
    )


def told(error: RegistryError) -> str:
    """Return what is wrong, without the word that looking has changed nothing."""
    return error.message.removesuffix("; nothing was changed")


def _lost(
    store: DirectoryStore, host: Host, claim: Claim, entries: dict[str, AgentEntry]
) -> Check | None:
    facts: Facts = {}
    now = host.now()
    witness = Witness(facts)
    standing = stand(claim, entries, witness, now)
    need = witness.missing()
    if need is not None:
        facts.update({fact_key(s): store.observe(host, s) for s in need.subjects})
        standing = stand(claim, entries, Witness(facts), now)
    if standing.state is not ClaimState.LOST or claim.holder is None:
        return None
    return Check(
        name="claims",
        status="warn",
        detail=f"branch {claim.thread!r} is lost: another program ended the entry of "
        f"{claim.holder.session_id}, which may still write",
        fix=f"{standing.frees_when()}; or take it with `reserve --force --reason`",
    )
