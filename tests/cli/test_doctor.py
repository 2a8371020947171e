from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from heddle_registry import Timestamp
from heddle_registry.faults import note_fault
from tests.cli.test_list import put

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Heddle

CHECKS = {
    "folder", "file system", "lock", "left over", "quarantine", "entries", "claims", "settings",
    "clock", "index", "processes", "plugins",
}  # fmt: skip


def aged(path: Path) -> None:
    os.utime(path, (1, 1))


def test_a_sound_registry_has_nothing_bad(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    answer = heddle.json("doctor")
    assert set(answer) == {"schema", "checks", "plugins", "plugin_faults"}
    assert {check["name"] for check in answer["checks"]} == CHECKS
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in answer["checks"])
    assert "bad" not in {check["status"] for check in answer["checks"]}
    assert answer["plugins"] == answer["plugin_faults"] == []


def test_damage_is_named_each_change_shown_first_and_then_mended(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    damaged = heddle.agents / "bad.toml"
    damaged.write_text("= no toml")
    aged(damaged)
    heddle.agents.chmod(0o777)
    answer = heddle.json("doctor", status=7)
    bad = {check["name"]: check for check in answer["checks"] if check["status"] == "bad"}
    assert "bad.toml" in bad["entries"]["detail"]
    assert "quarantine" in bad["entries"]["fix"]
    assert "everybody" in bad["permissions"]["detail"]
    assert damaged.exists()

    said = heddle("doctor", "--fix").out
    assert said.index("will: move it to agents/.quarantine") < said.index("done: it is")
    assert not damaged.exists()
    assert heddle.agents.stat().st_mode & 0o002 == 0
    kept = list((heddle.agents / ".quarantine").iterdir())
    assert [path.read_text() for path in kept] == ["= no toml"]
    assert heddle.json("doctor", "--fix")["mended"] == []


def test_a_damaged_claim_comes_back_above_every_fence_and_its_living_holder_keeps_it(
    heddle: Heddle,
) -> None:
    heddle("reserve", "main", "--ttl", "60")
    won = heddle.json("reserve", "main", "--ttl", "60", "--force", "--reason", "again")
    claim = next((heddle.folder / "claims").glob("*.toml"))
    claim.write_text(claim.read_text().replace("schema = 1", "schema = "))
    heddle("reserve", "main", "--ttl", "60", status=6)
    heddle("check", "main", "--fence", "2", status=6)
    mended = heddle.json("doctor", "--fix")["mended"]
    assert [(m["name"], m["done"]) for m in mended] == [("claims", True)]
    assert "fence 3" in mended[0]["result"]
    heddle("check", "main", "--fence", "2", status=11)
    heddle("reserve", "main", "--ttl", "60", status=5)
    session_id = won["entry"]["session_id"]
    assert heddle.json("heartbeat", session_id, "--token", won["token"])["fence"] == 3
    heddle("release", session_id, "--token", won["token"])
    assert heddle.json("reserve", "main", "--ttl", "60")["fence"] == 4


def test_a_misnamed_entry_gets_its_own_name_back(heddle: Heddle) -> None:
    entry = put(heddle)
    path = heddle.agents / f"{entry.session_id}.toml"
    path.rename(heddle.agents / "else.toml")
    heddle("doctor", status=6)
    assert f"agents/{path.name}" in heddle("doctor", "--fix").out
    assert path.exists()
    assert heddle.json("why", entry.session_id)["state"] == "occupied"


def test_a_wrong_config_file_is_a_finding_here_and_an_error_elsewhere(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    (heddle.folder / "config.toml").write_text("\nlock_timeout_s = 'x'\n")
    checks = {check["name"]: check for check in heddle.json("doctor", status=7)["checks"]}
    assert "line 2" in checks["settings"]["detail"]
    told = heddle("list", status=2).err
    assert "config.toml" in told
    assert "line 2" in told


def test_a_plugin_at_fault_is_named_and_costs_nothing_else(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_REGISTRY_PLUGINS", "nowhere\x1b")
    answer = heddle.json("doctor")
    assert answer["plugin_faults"][0]["hook"] == "import"
    assert set(answer["plugin_faults"][0]) == {"plugin", "hook", "why"}
    assert "nowhere\\x1b" in heddle("doctor").out


def unsafe(heddle: Heddle, status: int = 0) -> dict[str, dict[str, str]]:
    checks = heddle.json("doctor", status=status)["checks"]
    return {check["name"]: check for check in checks if check["status"] != "ok"}


def test_a_network_file_system_is_doubted(heddle: Heddle, monkeypatch: pytest.MonkeyPatch) -> None:
    heddle("reserve", "main", "--ttl", "60")
    monkeypatch.setattr("heddle_registry.adapters.examination.filesystem_of", lambda _: "nfs4")
    found = unsafe(heddle)["file system"]
    assert "nfs4: a lock taken there may not exclude another machine" in found["detail"]
    assert "--heddle-dir" in found["fix"]


def test_a_file_system_without_locks_is_bad(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    heddle("reserve", "main", "--ttl", "60")

    def flock(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("fcntl.flock", flock)
    found = unsafe(heddle, status=7)["lock"]
    assert (found["status"], found["detail"]) == (
        "bad",
        "the file system does not lock (Operation not supported)",
    )


def test_what_killed_programs_left_and_what_was_put_aside_is_told_and_the_first_removed(
    heddle: Heddle,
) -> None:
    heddle("reserve", "main", "--ttl", "60")
    temp = heddle.folder / "tmp" / ".x.toml.0123.tmp"
    temp.touch()
    aside = heddle.agents / ".quarantine" / "bad.toml.01"
    aside.parent.mkdir()
    aside.write_text("= no toml")
    found = unsafe(heddle)
    assert found["left over"]["detail"] == "1 from killed programs: tmp/.x.toml.0123.tmp"
    assert "1 damaged file in" in found["quarantine"]["detail"]
    assert "bad.toml.01" in found["quarantine"]["detail"]
    assert "done: removed 1" in heddle("doctor", "--fix").out
    assert not temp.exists()
    assert aside.exists()
    assert set(unsafe(heddle)) == {"quarantine"}


def test_a_folder_in_the_indexs_place_is_told(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "600")
    for index in heddle.folder.glob("index.sqlite*"):
        index.unlink()
    (heddle.folder / "index.sqlite").mkdir()
    found = unsafe(heddle)["index"]
    assert "something that is no file" in found["detail"]
    assert "Remove it" in found["fix"]


def test_an_index_that_is_switched_off_is_told(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    heddle("reserve", "main", "--ttl", "60")
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
    monkeypatch.setattr("heddle_registry.adapters.directory._shared", {})
    found = unsafe(heddle)["index"]
    assert "switched off by HEDDLE_REGISTRY_INDEX" in found["detail"]
    assert "Unset" in found["fix"]


def test_a_lost_claim_is_told_with_what_would_free_it(heddle: Heddle) -> None:
    taken = heddle.json("reserve", "main", "--owner-pid", os.getpid())
    entry = heddle.agents / f"{taken['entry']['session_id']}.toml"
    entry.unlink()  # as a program does that knows no claims
    found = unsafe(heddle)["claims"]
    assert "branch 'main' is lost: another program ended the entry" in found["detail"]
    assert f"process {os.getpid()}" in found["fix"]


def test_sessions_of_another_namespace_are_told(heddle: Heddle) -> None:
    taken = heddle.json("reserve", "main", "--owner-pid", os.getpid())
    session_id = taken["entry"]["session_id"]
    entry = heddle.agents / f"{session_id}.toml"
    text = entry.read_text()
    assert 'pid_ns = "' in text
    entry.write_text(text.replace('pid_ns = "', 'pid_ns = "1'))
    found = unsafe(heddle)["entries"]
    assert f"1 run in another pid or time namespace ({session_id})" in found["detail"]
    assert "TTL" in found["fix"]


def test_what_hooks_met_is_told_apart_from_plugins_with_how_to_forget_it(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    at = Timestamp("2026-07-01T12:00:00Z")
    note_fault(str(heddle.folder), "codex", "relay start", "no JSON", at)
    found = unsafe(heddle)
    assert set(found) == {"hooks"}
    assert "codex" in found["hooks"]["detail"]
    assert str(heddle.folder / "faults.jsonl") in found["hooks"]["fix"]
    assert heddle.json("doctor")["plugin_faults"][0]["hook"] == "relay start"
