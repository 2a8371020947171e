"""Which coding agents are in flight, who may write to which branch, and why.

Everything public is importable from here and loaded when it is first used.
"""

from __future__ import annotations

# A literal, because importing `typing` costs more than a whole heartbeat.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from heddle_registry.core.attach import AttachDecision, AttachFacts, AttachRule
    from heddle_registry.core.claim import Claim, ClaimState
    from heddle_registry.core.entry import (
        ActorChainNode,
        AgentEntry,
        AgentUsageSummary,
        ContextQueryEntry,
        EntryExtension,
    )
    from heddle_registry.core.evidence import Evidence, Owner, Verdict, VerdictKind
    from heddle_registry.core.harness import Harness, Process, Signal, env, file, program
    from heddle_registry.core.identity import Identity, Probe
    from heddle_registry.core.lifecycle import AgentStatus
    from heddle_registry.core.renew import FenceAnswer, Renewed
    from heddle_registry.core.reserve import LiveOwner, Reserved
    from heddle_registry.core.sweep import Swept
    from heddle_registry.core.timestamp import Instant, Timestamp
    from heddle_registry.core.usage import UsageCounter, UsageRecord
    from heddle_registry.detection import scrub_env
    from heddle_registry.errors import (
        ClaimLost,
        Held,
        IllegalTransition,
        LockTimeout,
        LockUnsupported,
        OutcomeUnknown,
        PluginFault,
        RecordCorrupt,
        RegistryError,
        StoreUnavailable,
        UnknownEntry,
        UsageError,
    )
    from heddle_registry.explain import BranchStory
    from heddle_registry.hookspecs import hookimpl
    from heddle_registry.overview import EntryStory, Overview, SeenEntry
    from heddle_registry.ports.findings import Problem
    from heddle_registry.ports.query import Look, Query
    from heddle_registry.registry import AgentRegistry, generate_agent_id
    from heddle_registry.registry.reservation import HeldClaim

_HOMES = {
    "heddle_registry.core.attach": ("AttachDecision", "AttachFacts", "AttachRule"),
    "heddle_registry.core.claim": ("Claim", "ClaimState"),
    "heddle_registry.core.entry": (
        "ActorChainNode",
        "AgentEntry",
        "AgentUsageSummary",
        "ContextQueryEntry",
        "EntryExtension",
    ),
    "heddle_registry.core.evidence": ("Evidence", "Owner", "Verdict", "VerdictKind"),
    "heddle_registry.core.harness": ("Harness", "Process", "Signal", "env", "file", "program"),
    "heddle_registry.core.identity": ("Identity", "Probe"),
    "heddle_registry.core.lifecycle": ("AgentStatus",),
    "heddle_registry.core.renew": ("FenceAnswer", "Renewed"),
    "heddle_registry.core.reserve": ("LiveOwner", "Reserved"),
    "heddle_registry.core.sweep": ("Swept",),
    "heddle_registry.core.timestamp": ("Instant", "Timestamp"),
    "heddle_registry.core.usage": ("UsageCounter", "UsageRecord"),
    "heddle_registry.detection": ("scrub_env",),
    "heddle_registry.errors": (
        "ClaimLost",
        "Held",
        "IllegalTransition",
        "LockTimeout",
        "LockUnsupported",
        "OutcomeUnknown",
        "PluginFault",
        "RecordCorrupt",
        "RegistryError",
        "StoreUnavailable",
        "UnknownEntry",
        "UsageError",
    ),
    "heddle_registry.explain": ("BranchStory",),
    "heddle_registry.ports.findings": ("Problem",),
    "heddle_registry.hookspecs": ("hookimpl",),
    "heddle_registry.overview": ("EntryStory", "Overview", "SeenEntry"),
    "heddle_registry.ports.query": ("Look", "Query"),
    "heddle_registry.registry": ("AgentRegistry", "generate_agent_id"),
    "heddle_registry.registry.reservation": ("HeldClaim",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ActorChainNode",
    "AgentEntry",
    "AgentRegistry",
    "AgentStatus",
    "AgentUsageSummary",
    "AttachDecision",
    "AttachFacts",
    "AttachRule",
    "BranchStory",
    "Claim",
    "ClaimLost",
    "ClaimState",
    "ContextQueryEntry",
    "EntryExtension",
    "EntryStory",
    "Evidence",
    "FenceAnswer",
    "Harness",
    "Held",
    "HeldClaim",
    "Identity",
    "IllegalTransition",
    "Instant",
    "LiveOwner",
    "LockTimeout",
    "LockUnsupported",
    "Look",
    "OutcomeUnknown",
    "Overview",
    "Owner",
    "PluginFault",
    "Probe",
    "Problem",
    "Process",
    "Query",
    "RecordCorrupt",
    "RegistryError",
    "Renewed",
    "Reserved",
    "SeenEntry",
    "Signal",
    "StoreUnavailable",
    "Swept",
    "Timestamp",
    "UnknownEntry",
    "UsageCounter",
    "UsageError",
    "UsageRecord",
    "Verdict",
    "VerdictKind",
    "env",
    "file",
    "generate_agent_id",
    "hookimpl",
    "program",
    "scrub_env",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'heddle_registry' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
