from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    found = AgentRegistry(tmp_path / ".heddle")
    with found.reserve("main"):
        pass
    return found


def findings(registry: AgentRegistry) -> dict[str, Check]:
    checks = registry.store.examine(registry.host)
    return {check.name: check for check in checks if check.status != "ok"}


def test_a_lost_claim_is_named_with_what_would_free_it(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("main") as claim:
        path = tmp_path / ".heddle" / "agents" / f"{claim.session_id}.toml"
        kept = path.read_bytes()
        path.unlink()  # as a program does that knows no claims
        found = findings(registry)["claims"]
        assert found.status == "warn"
        assert claim.session_id in found.detail
        assert "--force" in found.fix
        path.write_bytes(kept)


def test_a_young_file_that_is_no_toml_may_still_be_written_by_somebody(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    path = tmp_path / ".heddle" / "agents" / "half.toml"
    path.write_text("session_id = ")
    assert findings(registry)["entries"].repair is None
    os.utime(path, (1, 1))
    assert findings(registry)["entries"].repair is not None
