"""The claim's file, ``claims/<hash of thread>.toml``. Only this program reads and writes it."""

from __future__ import annotations

from typing import Final

from heddle_registry.codec.entries import MAX_FENCE, OWNER, TOKEN
from heddle_registry.codec.records import (
    corrupt_record,
    newer_schema,
    read_document,
    write_record,
)
from heddle_registry.codec.tables import (
    I64_MAX,
    I64_MIN,
    U64_MAX,
    SubTable,
    Table,
    TableArray,
    integer,
    seconds,
    text,
    time,
    word,
)
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause, PastHolder
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.evidence import LivenessFile
from heddle_registry.core.timestamp import Instant
from heddle_registry.errors import StoreUnavailable

_LIVENESS: Final = Table(
    LivenessFile,
    integer("device", 0, U64_MAX, required=True),
    integer("inode", 0, U64_MAX, required=True),
)

_INSTANT: Final = Table(
    Instant,
    time("at", required=True),
    integer("awake_ns", I64_MIN, I64_MAX, required=True),
    text("boot_id", required=True),
    text("time_ns", omit=""),
)

HOLDER: Final = Table(
    ClaimHolder,
    text("session_id", required=True),
    time("granted_at", required=True),
    time("lost_at"),
    seconds("ttl_s"),
    SubTable("owner", OWNER),
    SubTable("liveness", _LIVENESS),
    SubTable("token", TOKEN),
    SubTable("renewed", _INSTANT, attribute="renewed_at", required=True),
)

PAST: Final = Table(
    PastHolder,
    text("session_id", required=True),
    integer("fence", 0, MAX_FENCE, required=True),
    time("ended_at", required=True),
    word("cause", EndCause, required=True),
    text("by", omit=""),
    text("reason", omit=""),
    SubTable("token", TOKEN),
)

CLAIM: Final = Table(
    Claim,
    integer("schema", 0, I64_MAX, required=True),
    text("thread", required=True),
    integer("fence", 0, MAX_FENCE, required=True),
    text("path"),
    SubTable("holder", HOLDER),
    TableArray("past", PAST),
)


def claim_from_toml(data: bytes, path: str) -> Claim:
    """Return the claim in ``data``, the content of the file ``path``. Pure.

    :raises RecordCorrupt: with every problem, each ``key: reason``.
    :raises StoreUnavailable: a newer program wrote it, and it cannot be understood here.
    """
    document = read_document(data, path)
    problems: list[str] = []
    claim = CLAIM.read(document, "", problems)
    if claim is not None:
        return claim
    schema = newer_schema(document)
    if schema is not None:
        raise StoreUnavailable(
            path,
            f"written by a newer heddle-registry (schema {schema}, this one knows {SCHEMA})",
            "Upgrade heddle-registry here",
        )
    raise corrupt_record(path, problems)


def claim_to_toml(claim: Claim) -> bytes:
    """Return ``claim`` as the content of its file. Pure.

    The caller does not write one that `is_claim_from_newer_schema`.

    :raises UsageError: over 1 MiB, or it holds what TOML cannot say.
    """
    return write_record(CLAIM, claim, f"the claim on branch {claim.thread!r}")


def is_claim_from_newer_schema(claim: Claim) -> bool:
    """Return whether a newer program wrote ``claim``: it may be read and never rewritten."""
    return claim.schema > SCHEMA
