"""The same faults from outside the process: the kernel itself refuses a system call, or kills.

What the wrappers of test_every_boundary cannot reach is reached here: SQLite's writes, and the
interpreter's own. Needs ``strace`` and the right to trace one's own children.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry import AgentRegistry, Reserved
from heddle_registry.codec import claim_from_toml, entry_from_toml
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
from tests.process_helpers import ROOT
from tests.reliability.boundaries import (
    NO_CLAIM,
    NO_CLAIMS_FENCE,
    fences_of,
    forget,
    records_of,
)
from tests.reliability.io_faults import quick_folder
from tests.reliability.mending import CLAIM, NOT_TOML

if TYPE_CHECKING:
    from pathlib import Path

CALLS = ("fsync", "rename", "unlink", "flock", "utimensat", "mkdir", "pwrite64", "fchmod")
KILL = "SIGKILL"
ERRORS = ("EIO", "ENOSPC", "EROFS", "EINTR", "EACCES", "EDQUOT")
MOST = 200

PROGRAM = """
import json, sys
from heddle_registry import AgentRegistry
from heddle_registry.errors import RegistryError
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
folder, what, session, token = sys.argv[1:]
registry = AgentRegistry(folder, lock_timeout_s=5)
def reserve(**terms):
    build = build_entry(registry, "other", base_state="b")
    return registry.reserve_on_terms("other", build, Terms(ttl_s=60, **terms))[0]
try:
    if what == "reserve":
        assert reserve().fence == 1
    elif what == "renew":
        registry.heartbeat(session, token)
    elif what == "release":
        registry.release(session, token=token)
    elif what == "mend":
        from heddle_registry.adapters import repair
        repair.quarantine_entry(registry.store, registry.host, "agent-bad.toml", 5)
        repair.rebuild_claim(registry.store, registry.host, session, 5)
    else:
        assert {entry.session_id for entry in registry.list()} == {session, "agent-there"}
    print("done")
except RegistryError as error:
    print(error.code)
"""


@functools.cache
def can_trace() -> bool:
    """Whether a child may be traced, and calls be tampered with, on this machine."""
    if shutil.which("strace") is None:
        return False
    words = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=uname:error=EIO", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace cannot trace here")


@attrs.frozen
class Template:
    folder: Path
    kept: Path
    session_id: str
    token: str
    before: dict[str, bytes]

    def fresh(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)


def prepared(place: Path) -> Template:
    folder = place / ".heddle"
    registry = AgentRegistry(folder)
    build = build_entry(registry, "main", base_state="b")
    owner = registry.owner_for(os.getpid())
    held = registry.reserve_on_terms("main", build, Terms(owner=owner, ttl_s=600))[0]
    assert isinstance(held, Reserved)
    registry.save(attrs.evolve(build("agent-there"), thread="elsewhere"))
    registry.list()
    forget(folder)
    before = records_of(folder)
    kept = place / "kept"
    folder.rename(kept)
    return Template(folder, kept, held.entry.session_id, held.token or "", before)


def run_with(template: Template, what: str, call: str, fault: str, nth: int) -> str | None:
    """Run one operation with its n-th such call tampered with; None where there was no n-th."""
    template.fresh()
    log = template.folder.parent / "log"
    how = "signal=SIGKILL" if fault == KILL else f"error={fault}"
    words = [
        "strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}",
        "-e", f"inject={call}:{how}:when={nth}",
        sys.executable, "-c", PROGRAM, str(template.folder), what, template.session_id,
        template.token,
    ]  # fmt: skip
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    traced = log.read_text()
    if fault == KILL:
        if "killed by SIGKILL" not in traced:
            return None
        return "killed"
    if "(INJECTED)" not in traced:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def judge(template: Template, what: str, outcome: str) -> None:
    """Assert what each outcome promises, and that the next writer finds a sound registry."""
    records = records_of(template.folder)
    if outcome in ("unavailable", "lock_unsupported"):
        assert records == template.before
    elif outcome == "done" and what == "release":
        assert b'status = "complete"' in records[f"agents/{template.session_id}.toml"]
    elif outcome == "done" and what == "reserve":
        assert len(records) == len(template.before) + 2
    else:
        assert outcome in ("done", "killed", "outcome_unknown")
    for name, data in records.items():
        if name.startswith("claims/"):
            claim_from_toml(data, name)
        elif name.startswith("agents/"):
            entry_from_toml(data, name)
    fences = fences_of(template.folder)
    forget(template.folder)
    registry = AgentRegistry(template.folder, lock_timeout_s=5)
    with registry.reserve("the next one's"):
        assert not list((template.folder / "tmp").iterdir())
    with registry.reserve("main", force_reason="to see", ttl_s=60) as claim:
        assert claim.fence > fences["main"]
    with registry.reserve("other", force_reason="to see", ttl_s=60) as claim:
        assert claim.fence > fences.get("other", 0)
    look = registry.look()
    assert look.problems == ()
    forget(template.folder)


def tamper(what: str, calls: tuple[str, ...], faults: tuple[str, ...]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    with quick_folder() as place:
        template = prepared(place)
        for call in calls:
            for fault in faults:
                for nth in range(1, MOST):
                    outcome = run_with(template, what, call, fault, nth)
                    if outcome is None:
                        break
                    try:
                        judge(template, what, outcome)
                    except BaseException as found:
                        found.add_note(f"{what}: {fault} at {call} number {nth}: {outcome}")
                        raise
                    counts[f"{call} {fault} {outcome}"] += 1
    return counts


@pytest.mark.parametrize("fault", ["EIO", KILL])
@pytest.mark.parametrize("what", ["reserve", "release"])
def test_a_call_that_the_kernel_refuses_or_that_kills_loses_nothing(what: str, fault: str) -> None:
    counts = tamper(what, ("fsync", "rename", "utimensat", "flock"), (fault,))
    print(json.dumps(counts, indent=1))
    assert any(key.startswith("fsync") for key in counts)
    assert any(key.startswith("rename") for key in counts)


def test_a_failing_write_of_the_index_costs_nothing_but_the_index() -> None:
    counts = tamper("list", ("pwrite64",), ("EIO", "ENOSPC"))
    counts += tamper("renew", ("pwrite64", "utimensat"), ("ENOSPC",))
    assert all(key.endswith("done") for key in counts), counts


def mended(place: Path) -> Template:
    """Return a template with a damaged entry and a damaged claim, which the session id names."""
    template = prepared(place)
    bad = template.kept / "agents" / "agent-bad.toml"
    bad.write_bytes(NOT_TOML)
    os.utime(bad, (1, 1))
    (template.kept / "claims" / CLAIM).write_bytes(NO_CLAIM)
    return attrs.evolve(template, session_id=CLAIM)


def mend_and_tamper(calls: tuple[str, ...], faults: tuple[str, ...]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    with quick_folder() as place:
        template = mended(place)
        for call, fault in itertools.product(calls, faults):
            for nth in range(1, MOST):
                outcome = run_with(template, "mend", call, fault, nth)
                if outcome is None:
                    break
                files = [
                    path.read_bytes()
                    for name in ("agents", "claims")
                    for path in (template.folder / name).rglob("*")
                    if path.is_file()
                ]
                where = f"{fault} at {call} number {nth}: {outcome}"
                assert {NOT_TOML, NO_CLAIM} <= set(files), f"a damaged file is lost: {where}"
                forget(template.folder)
                registry = AgentRegistry(template.folder, lock_timeout_s=5)
                for check in registry.store.examine(registry.host):
                    if check.repair is not None:
                        check.repair()
                assert registry.look().problems == (), where
                with registry.reserve("main", force_reason="to see", ttl_s=60) as claim:
                    assert claim.fence > NO_CLAIMS_FENCE, where
                forget(template.folder)
                counts[f"{call} {fault} {outcome}"] += 1
    return counts


def test_a_repair_that_the_kernel_refuses_or_that_is_killed_loses_no_file() -> None:
    counts = mend_and_tamper(("fsync", "linkat", "unlink", "mkdir"), ("EIO", KILL))
    print(json.dumps(counts, indent=1))
    assert {key.split()[0] for key in counts} == {"fsync", "linkat", "unlink", "mkdir"}


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_every_call_and_every_error_of_repairs() -> None:
    counts = mend_and_tamper((*CALLS, "linkat"), (*ERRORS, KILL))
    print(json.dumps(counts, indent=1))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["reserve", "release", "renew", "list"])
def test_every_call_and_every_error(what: str) -> None:
    counts = tamper(what, CALLS, (*ERRORS, KILL))
    print(json.dumps(counts, indent=1))
