"""A registry on a disk that is really full, of bytes or of files, at every point on the way."""

from __future__ import annotations

import pytest

from tests.namespaces import needs_private, run_private

MOUNT = ("--mount",)
CODE = """
import os, subprocess, tempfile
from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, RegistryError
from heddle_registry.explain import why_branch
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import try_reserve

kind, steps = given
folder = tempfile.mkdtemp()
said, ends = set(), []

def mount(*options):
    return subprocess.run(["mount", "-t", "tmpfs", *options, "none", folder]).returncode

def tell(call):
    try:
        call()
        said.add("done")
    except RegistryError as error:
        said.add(f"{error.code}: {'the disk is full' in str(error) or 'No space' in str(error)}")

def use(registry):
    def hold():
        with registry.reserve("main", ttl_s=60) as claim:
            claim.renew()
            terms = Terms(ttl_s=5.0)
            tell(lambda: try_reserve(registry, "main", terms=terms, wait_s=0.01))
    tell(hold)
    tell(lambda: registry.save(AgentEntry(session_id="agent-a", thread="x", base_state="b",
        started_at=registry.host.now().at, status=AgentStatus.ACTIVE)))
    tell(registry.sweep)
    registry.list()

for spare in range(steps):
    small = f"nr_inodes={2 + spare}" if kind == "files" else f"size={4 * (1 + spare)}k"
    if mount("-o", small):
        answer("no mounts")
        sys.exit()
    registry = AgentRegistry(folder + "/.heddle", lock_timeout_s=10)
    pid = os.fork()
    if pid == 0:
        try:
            use(registry)
            ends.append(0 if said <= {"done", "unavailable: True"} else 1)
            if ends[-1]:
                print(said, file=sys.stderr)
        finally:
            os._exit(ends[-1] if ends else 2)
    status = os.waitpid(pid, 0)[1]
    mount("-o", "remount,size=4m,nr_inodes=1000")
    after = AgentRegistry(folder + "/.heddle", lock_timeout_s=10)
    problems = [problem.message for problem in after.look().problems]
    with after.reserve("main") as claim:
        claim.check()
    tmp = folder + "/.heddle/tmp"
    ends.append([status, problems, os.listdir(tmp)])
    subprocess.run(["umount", "-l", folder])
os.rmdir(folder)
answer(ends)
"""


@needs_private(*MOUNT)
@pytest.mark.parametrize(("kind", "steps"), [("files", 16), ("bytes", 8)])
def test_a_full_disk_is_a_clear_error_at_every_point_and_harms_nothing(
    kind: str, steps: int
) -> None:
    seen = run_private(MOUNT, CODE, kind, steps)
    if seen == "no mounts":
        pytest.skip("no private mounts to be had")
    assert seen == [[0, [], []]] * steps
