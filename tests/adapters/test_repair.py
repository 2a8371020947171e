from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentEntry,
    AgentRegistry,
    AgentStatus,
    ClaimLost,
    Held,
    Reserved,
    Timestamp,
)
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim
from heddle_registry.diagnosis import diagnose, mend
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    found = AgentRegistry(tmp_path / ".heddle")
    found.create_generated_entry(
        lambda session_id: AgentEntry(
            session_id=session_id,
            thread="other",
            base_state="0",
            started_at=Timestamp("2026-07-01T12:00:00Z"),
            status=AgentStatus.ACTIVE,
        )
    )
    return found


def found_in(registry: AgentRegistry, name: str) -> list[Check]:
    return [check for check in diagnose(registry).checks if check.name == name]


def claim_file(registry: AgentRegistry, thread: str) -> Path:
    from pathlib import Path

    return Path(registry.store.heddle_dir) / "claims" / f"{thread_hash(thread)}.toml"  # type: ignore[attr-defined]


def test_what_was_mended_or_removed_meanwhile_is_left_alone(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    bad = tmp_path / ".heddle" / "agents" / "bad.toml"
    bad.mkdir()
    (check,) = found_in(registry, "entries")
    bad.rmdir()
    mending = mend(check)
    assert mending.done
    assert "nothing is wrong" in mending.result
    assert not (tmp_path / ".heddle" / "agents" / ".quarantine").exists()


@pytest.mark.parametrize("kind", ["entries", "claims"])
def test_a_misnamed_file_that_says_something_else_meanwhile_is_not_renamed(
    registry: AgentRegistry, tmp_path: Path, kind: str
) -> None:
    def content(name: str) -> bytes:
        if kind == "claims":
            return claim_to_toml(Claim(thread=name))
        return entry_to_toml(attrs.evolve(registry.list()[0], session_id=name))

    def called(name: str) -> Path:
        if kind == "claims":
            return claim_file(registry, name)
        return tmp_path / ".heddle" / "agents" / f"{name}.toml"

    contents = {name: content(name) for name in ("agent-a", "agent-b", "agent-else")}
    path = called("agent-else")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents["agent-a"])
    (check,) = found_in(registry, kind)
    assert check.repair is not None
    path.write_bytes(contents["agent-b"])
    with pytest.raises(StoreUnavailable, match="changed meanwhile"):
        check.repair()
    assert path.read_bytes() == contents["agent-b"]
    path.write_bytes(contents["agent-else"])
    assert "nothing is wrong" in check.repair()
    path.unlink()
    assert "nothing is wrong" in check.repair()
    assert not called("agent-a").exists()


def test_a_damaged_entry_that_is_sound_again_is_not_put_aside(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    path = tmp_path / ".heddle" / "agents" / f"{registry.list()[0].session_id}.toml"
    sound = path.read_bytes()
    path.write_text("torn")
    os.utime(path, (1, 1))
    (check,) = found_in(registry, "entries")
    path.write_bytes(sound)
    assert "nothing is wrong" in mend(check).result
    assert path.read_bytes() == sound


def test_a_damaged_file_under_any_claims_name_is_not_spare(registry: AgentRegistry) -> None:
    path = claim_file(registry, "main").with_name("0123456789abcdef" * 2 + ".toml")
    path.parent.mkdir(exist_ok=True)
    path.write_text("torn")
    (check,) = found_in(registry, "claims")
    assert check.repair is None


def test_two_damaged_files_of_one_name_are_both_kept(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    agents = tmp_path / ".heddle" / "agents"
    for text in ("= one", "= two"):
        (agents / "bad.toml").write_text(text)
        os.utime(agents / "bad.toml", (1, 1))
        (check,) = found_in(registry, "entries")
        assert mend(check).done
    kept = {path.read_text() for path in (agents / ".quarantine").iterdir()}
    assert kept == {"= one", "= two"}


def test_a_damaged_entry_of_a_living_owner_stays_where_it_keeps_others_out(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    agents = tmp_path / ".heddle" / "agents"
    path = agents / "agent-torn.toml"
    path.write_text(f'thread = "main"\nstatus = "active"\npid = {os.getpid()}\nbase_state = ')
    os.utime(path, (1, 1))
    (check,) = found_in(registry, "entries")
    assert check.repair is None
    assert str(os.getpid()) in check.fix


def test_an_entry_whose_name_is_taken_goes_to_quarantine_instead(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    agents = tmp_path / ".heddle" / "agents"
    entry = registry.list()[0]
    (agents / "copy.toml").write_bytes((agents / f"{entry.session_id}.toml").read_bytes())
    os.utime(agents / "copy.toml", (1, 1))
    (check,) = found_in(registry, "entries")
    assert "quarantine" in check.fix
    assert mend(check).done
    assert registry.list() == [entry]


def test_a_claim_without_a_known_holder_comes_back_free_and_its_fence_only_grows(
    registry: AgentRegistry,
) -> None:
    with registry.reserve("main"):
        pass
    with registry.reserve("main") as last:
        pass
    path = claim_file(registry, "main")
    path.write_text(path.read_text().replace("cause = ", "cause ! "))
    with pytest.raises(RecordCorrupt):
        registry.reserve("main").__enter__()
    (check,) = found_in(registry, "claims")
    assert mend(check).done
    assert not registry.check("main", last.fence).valid
    with registry.reserve("main") as claim:
        assert claim.fence > last.fence + 1


def test_a_damaged_claims_holders_are_told_their_story_and_its_file_is_kept(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    def take(name: str, **options: Any) -> tuple[str, str]:
        terms = Terms(ttl_s=600, **options)
        taken, _ = registry.reserve_on_terms("main", build_entry(registry, "main"), terms)
        assert isinstance(taken, Reserved), name
        assert taken.token is not None
        return taken.entry.session_id, taken.token

    released, forced = take("released"), take("forced", force_reason="first")
    holder = take("holder", force_reason="it hung", path=str(tmp_path))
    path = claim_file(registry, "main")
    text = path.read_text()
    # The last table of an earlier holder is torn: only its entry still has its token.
    torn = text[: text.rindex("[[past]]") + 20]
    path.write_text(torn)
    (check,) = found_in(registry, "claims")
    assert mend(check).done
    renewed = registry.heartbeat(*holder)
    assert renewed.fence == 4
    with pytest.raises(Held, match="folder"), registry.reserve("else", path=tmp_path):
        pass
    with pytest.raises(ClaimLost, match="it hung"):
        registry.heartbeat(*forced)
    with pytest.raises(ClaimLost, match="abandoned"):
        registry.heartbeat(*released)
    with pytest.raises(ClaimLost, match="token refused"):
        registry.heartbeat(released[0], "guess")
    (kept,) = (tmp_path / ".heddle" / "agents" / ".quarantine").iterdir()
    assert kept.read_text() == torn
    assert kept.name.startswith("claim-")


def test_a_claim_of_which_nothing_tells_the_branch_is_left_to_people(
    registry: AgentRegistry,
) -> None:
    with registry.reserve("main") as claim:
        pass
    registry.delete(claim.session_id)
    claim_file(registry, "main").write_text("nothing")
    (check,) = found_in(registry, "claims")
    assert check.repair is None
    assert "by hand" in check.fix


@pytest.mark.parametrize("make", ["folder", "link", "fifo"])
def test_what_is_no_file_is_put_aside_and_the_claim_rebuilt_from_the_entries(
    registry: AgentRegistry, make: str
) -> None:
    with registry.reserve("main") as held:
        path = claim_file(registry, "main")
        path.unlink()
        if make == "folder":
            path.mkdir()
        elif make == "link":
            path.symlink_to("elsewhere")
        else:
            os.mkfifo(path)
        (check,) = found_in(registry, "claims")
        mending = mend(check)
        assert mending.done, mending.result
        assert held.session_id in mending.result
        held.renew()
        assert registry.check("main", held.fence + 1).holder == held.session_id


def test_a_repair_that_cannot_be_done_says_why(registry: AgentRegistry) -> None:
    def fail() -> str:
        raise RecordCorrupt("x", ["torn"])

    (check, *_) = found_in(registry, "entries")
    mending = mend(attrs.evolve(check, repair=fail))
    assert not mending.done
    assert "torn" in mending.result


@pytest.mark.parametrize("closed", ["claims", "agents"])
def test_what_cannot_be_read_at_this_moment_is_not_mended_as_damage(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    with registry.reserve("main"):
        pass
    bad = tmp_path / ".heddle" / "agents" / "agent-bad.toml"
    bad.write_bytes(b"\0")
    os.utime(bad, (1, 1))
    path = claim_file(registry, "main")
    sound = path.read_bytes()
    path.write_bytes(b'thread = "main"\nfence = 7\n[holder\n')
    checks = [*found_in(registry, "entries"), *found_in(registry, "claims")]
    assert [check.repair is not None for check in checks] == [True, True]
    # Meanwhile somebody else has mended both, and this process runs out of descriptors.
    path.write_bytes(sound)
    entry = registry.look(Query(include_stale=True)).entries[0]
    bad.write_bytes(entry_to_toml(attrs.evolve(entry, session_id="agent-bad")))
    before = bad.read_bytes()
    opening = os.open

    def refuse(path: Any, *given: Any, **named: Any) -> int:
        if closed in str(path) and str(path).endswith(".toml"):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return opening(path, *given, **named)

    monkeypatch.setattr(os, "open", refuse)
    mendings = [mend(check) for check in checks]
    monkeypatch.setattr(os, "open", opening)
    assert all("it is" not in mending.result for mending in mendings)
    assert (path.read_bytes(), bad.read_bytes()) == (sound, before)


def test_a_damaged_claim_is_kept_where_a_file_has_one_name_only(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.reserve("main"):
        pass
    path = claim_file(registry, "main")
    path.write_bytes(b'thread = "main"\nfence = 7\n[holder\n')
    torn = path.read_bytes()
    (check,) = found_in(registry, "claims")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert mend(check).done
    (kept,) = (tmp_path / ".heddle" / "agents" / ".quarantine").iterdir()
    assert kept.read_bytes() == torn
    with registry.reserve("main") as claim:
        assert claim.fence > 8


def test_a_rename_that_was_cut_short_is_ended_by_the_next(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    agents = tmp_path / ".heddle" / "agents"
    entry = registry.list()[0]
    os.link(agents / f"{entry.session_id}.toml", agents / "else.toml")
    (check,) = found_in(registry, "entries")
    assert mend(check).done
    assert registry.list() == [entry]
    assert sorted(path.name for path in agents.iterdir()) == [".lock", f"{entry.session_id}.toml"]


def test_what_could_not_be_removed_is_named(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temps = [tmp_path / ".heddle" / "tmp" / f".{name}.toml.0123.tmp" for name in "ab"]
    for temp in temps:
        temp.touch()
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path == str(temps[0]):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    (check,) = found_in(registry, "left over")
    assert mend(check).result == "removed 1; left: tmp/.a.toml.0123.tmp"


def test_what_lies_in_a_claims_place_keeps_its_name_in_the_quarantine(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("main"):
        pass
    path = claim_file(registry, "main")
    path.unlink()
    path.mkdir()
    (check,) = found_in(registry, "claims")
    assert mend(check).done
    (kept,) = (tmp_path / ".heddle" / "agents" / ".quarantine").iterdir()
    assert kept.name.startswith("claim-")


def test_a_renamed_claim_gets_its_branch_back_with_its_fence(registry: AgentRegistry) -> None:
    with registry.reserve("main") as first:
        pass
    registry.delete(first.session_id)
    path = claim_file(registry, "main")
    path.rename(path.with_name("moved-by-hand.toml"))
    (check,) = found_in(registry, "claims")
    assert path.name in check.fix
    assert mend(check).done
    with registry.reserve("main") as claim:
        assert claim.fence == first.fence + 1


@pytest.mark.parametrize("text", ["nothing", None])
def test_a_file_that_is_no_branchs_claim_is_put_aside(
    registry: AgentRegistry, tmp_path: Path, text: str | None
) -> None:
    with registry.reserve("main"):
        pass
    path = claim_file(registry, "main")
    other = path.with_name("copy.toml")
    other.write_text(text or path.read_text())
    kept_text = other.read_text()
    (check,) = found_in(registry, "claims")
    assert mend(check).done
    (kept,) = (tmp_path / ".heddle" / "agents" / ".quarantine").iterdir()
    assert kept.read_text() == kept_text
    assert [check.status for check in found_in(registry, "claims")] == ["ok"]


def test_a_copy_of_a_claim_is_not_put_aside_when_it_may_be_the_only_one(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.reserve("main"):
        pass
    path = claim_file(registry, "main")
    copy = path.with_name("copy.toml")
    sound = path.read_bytes()
    copy.write_bytes(sound)
    (check,) = found_in(registry, "claims")
    repair = check.repair
    assert repair is not None
    path.write_text("torn")
    with pytest.raises(StoreUnavailable, match="changed meanwhile"):
        repair()
    assert not any(
        "no branch's claim" in (check.fix or "") for check in found_in(registry, "claims")
    )
    path.unlink()
    with pytest.raises(StoreUnavailable, match="changed meanwhile"):
        repair()
    path.write_bytes(sound)
    opening = os.open

    def refuse(path: Any, *given: Any, **named: Any) -> int:
        if str(path) == str(copy):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return opening(path, *given, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreUnavailable) as caught:
        repair()
    monkeypatch.undo()
    assert caught.value.errno == errno.EMFILE
    assert copy.read_bytes() == sound
    copy.unlink()
    assert "nothing is wrong" in repair()
    assert not (tmp_path / ".heddle" / "agents" / ".quarantine").exists()


def test_a_claim_whose_branch_nothing_names_any_more_is_not_written_anew(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    path = claim_file(registry, "other")
    path.parent.mkdir(exist_ok=True)
    path.write_text("torn")
    (check,) = found_in(registry, "claims")
    assert check.repair is not None
    (tmp_path / ".heddle" / "agents" / f"{registry.list()[0].session_id}.toml").unlink()
    with pytest.raises(StoreUnavailable, match="nothing says whose branch"):
        check.repair()
    assert path.read_text() == "torn"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_branch_is_at_no_moment_of_a_repair_without_a_claims_file(
    registry: AgentRegistry, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.reserve("main"):
        pass
    path = claim_file(registry, "main")
    path.write_text('thread = "main"\nfence = 7\n[holder\n')
    seen: list[bool] = []
    replacing = os.replace

    def replace(source: str, target: str) -> None:
        if target == str(path):
            seen.append(path.exists())
        replacing(source, target)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", replace)
    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    (check,) = found_in(registry, "claims")
    assert mend(check).done
    assert seen == [True], "whoever comes by then would begin at fence 1 again"


def test_an_entry_is_not_moved_once_somebody_may_be_writing_it_again(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    path = tmp_path / ".heddle" / "agents" / "agent-bad.toml"
    path.write_text("= one")
    os.utime(path, (1, 1))
    (check,) = found_in(registry, "entries")
    path.write_text("= two")
    mending = mend(check)
    assert not mending.done
    assert "Wait a minute" in mending.result
    assert path.exists()
