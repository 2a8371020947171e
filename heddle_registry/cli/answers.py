"""The JSON of answers. Never a token but the one just made, and no hash of one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Verdict
    from heddle_registry.core.standing import Standing

_UNSAID = frozenset({"unknown", "extension", "reservation_token", "token"})


def entry_json(entry: AgentEntry) -> dict[str, Any]:
    """Return an entry's 34 fields under the original's names, and ``extension``.

    ``reservation_token`` is always null, whatever the file holds.
    """
    fields = _record(entry)
    fields["reservation_token"] = None
    ordered = {name: fields[name] for name in _field_names(type(entry)) if name in fields}
    ordered["extension"] = None if entry.extension is None else _record(entry.extension)
    return ordered


def _field_names(kind: type) -> list[str]:
    from attrs import fields

    return [field.name for field in fields(kind) if field.name != "unknown"]


def _record(record: Any) -> dict[str, Any]:
    return {
        name: _value(getattr(record, name))
        for name in _field_names(type(record))
        if name not in _UNSAID
    }


def _value(value: Any) -> Any:
    from heddle_registry.core.timestamp import Timestamp

    if isinstance(value, Timestamp):
        return value.text
    if isinstance(value, str):  # a status too
        return str(value)
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON has no infinities and no NaN
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    if hasattr(type(value), "__attrs_attrs__"):
        return _record(value)
    return value


def verdict_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """Return a verdict with its evidence."""
    if verdict is None:
        return None
    return {
        "verdict": verdict.kind.value,
        "evidence": [{"code": e.code, "detail": e.detail} for e in verdict.evidence],
    }


def claim_json(standing: Standing | None) -> dict[str, Any] | None:
    """Return a claim as it stands. ``holder`` is a session id, null where nobody holds it."""
    if standing is None:
        return None
    claim = standing.claim
    holder = claim.holder if standing.state.value != "none" else None
    return {
        "state": standing.state.value,
        "fence": claim.fence,
        "path": claim.path,
        "holder": holder.session_id if holder is not None else None,
        "ttl_s": holder.ttl_s if holder is not None else None,
        "ttl_left_s": round(standing.ttl.left_s, 3) if holder and standing.ttl else None,
        "granted_at": holder.granted_at.text if holder is not None else None,
        "renewed_at": holder.renewed_at.at.text if holder is not None else None,
        "past": [
            {
                "session_id": past.session_id,
                "fence": past.fence,
                "ended_at": past.ended_at.text,
                "cause": past.cause.value,
                "by": past.by or None,
                "reason": past.reason or None,
            }
            for past in claim.past
        ],
    }


def judged_entry_json(entry: AgentEntry, verdict: Verdict | None) -> dict[str, Any]:
    """Return an entry with its ``liveness``."""
    return {**entry_json(entry), "liveness": verdict_json(verdict)}
