"""What doctor's tests ask of a store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry import AgentRegistry
    from heddle_registry.ports.findings import Check


def findings(registry: AgentRegistry) -> dict[str, Check]:
    """What is not as it should be, by its name."""
    checks = registry.store.examine(registry.host)
    return {check.name: check for check in checks if check.status != "ok"}


def told(registry: AgentRegistry, name: str) -> list[str]:
    """What all findings of a name say, the good ones too."""
    return [check.detail for check in registry.store.examine(registry.host) if check.name == name]


def shared_copy(heddle: Path, public: Path) -> Path:
    """A copy of a registry's folder that other users may read."""
    shared = public / "registry"
    shutil.copytree(heddle, shared)
    for path in (shared, shared / "agents", shared / "claims"):
        path.chmod(0o755)
    return shared
