from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.diagnosis import Diagnosis, diagnose
from heddle_registry.ports.findings import Check
from heddle_registry.testing.fake_host import FakeHost
from tests.namespaces import PID, needs_private, run_private

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ([], 0),
        (["entries"], 6),
        (["entries", "claims"], 6),
        (["lock"], 7),
        (["entries", "lock"], 7),
    ],
)
def test_the_status_tells_damaged_records_from_an_unusable_store(
    bad: list[str], status: int
) -> None:
    checks = [Check(name="folder", status="warn", detail="")]
    checks += [Check(name=name, status="bad", detail="") for name in bad]
    found = Diagnosis(checks=tuple(checks), plugins=(), plugin_faults=())
    assert found.exit_code == status


def test_a_store_of_an_embedders_own_can_be_diagnosed() -> None:
    from heddle_registry.adapters.memory import MemoryStore

    host = FakeHost()
    found = diagnose(AgentRegistry(store=MemoryStore(host), host=host))
    assert found.exit_code == 0


@needs_private(*PID)
def test_a_pid_namespace_that_hides_owners_is_named(tmp_path: Path) -> None:
    code = (
        "from heddle_registry import AgentRegistry\n"
        "from heddle_registry.diagnosis import diagnose\n"
        "checks = diagnose(AgentRegistry(given[0])).checks\n"
        "answer([c.status for c in checks if c.name == 'processes'])\n"
    )
    assert run_private(PID, code, str(tmp_path / ".heddle")) == ["warn"]
