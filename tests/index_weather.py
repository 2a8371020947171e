"""The other tests again, under bad weather for the index.

    pytest -p tests.index_weather --index off        every question scans
    pytest -p tests.index_weather --index deleted    its files vanish at random moments
    pytest -p tests.index_weather --index old        it is replaced by an older copy of itself
    pytest -p tests.index_weather --index foreign    folder and index become another user's, and
                                                     ours again (start it as root)

`deleted`, `old` and `foreign` are the work of one more process, the saboteur. It goes about in the
folder of whichever test is running, with a seed (`--index-seed`) of its own; it starts anew with
each test, in the same way, so that a failing test alone fails again, as far as a race can.

Not run are the tests of `ABOUT_THE_INDEX`: they promise what only an undisturbed one can keep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

WEATHERS = ("on", "off", "deleted", "old", "foreign")
ABOUT_THE_INDEX = (
    "tests/reliability/test_index_truth.py",  # brings its own weather, and counts scans
    "tests/reliability/test_index_rebuild.py",
    "tests/adapters/test_index",
    "tests/adapters/test_reading.py",
    "tests/adapters/test_found_records.py",
    "tests/adapters/test_writing.py::test_a_renewal_syncs_no_folder",
    "tests/adapters/test_writing.py::test_what_was_not_written_is_not_in_the_index",
    "tests/adapters/test_writing.py::test_what_is_no_toml_is_put_aside",
    "tests/adapters/test_writing.py::test_what_was_removed_is_kept_in_nobodys_memory",
    "tests/adapters/test_directory.py::test_who_peeks_without_the_lock",
    "tests/adapters/test_directory.py::test_an_index_that_is_not_kept_is_closed",
    "tests/adapters/test_directory.py::test_a_forked_child_leaves_the_open_index",
    "tests/adapters/test_directory.py::test_what_nobody_needs_is_named_and_removed",
    "tests/adapters/test_directory.py::test_the_claims_of_a_few_entries",
    "tests/reliability/test_planted_bugs.py::test_a_planted_bug_is_caught[index",
    "test_a_promise_is_kept[a_strangers_entry_is_seen_after_we_wrote]",
    "tests/cli/test_progress.py::test_the_rebuild_of_a_lost_index",
    "tests/cli/test_progress.py::test_scripts_see_nothing_of_it",
    "test_21_a_second_look_up_does_not_read_every_file[ours]",
    # `doctor` says that the index is off, or whose the folder is.
    "tests/adapters/test_examination.py",
    "test_a_claim_is_not_called_lost_while_its_holders_entry_cannot_be_read",
)
ABOUT_OWNERS = (
    # Folders that another user shares are not as private as these tests expect.
    "test_11_the_token_is_in_no_file[ours]",
    "test_11_nobody_else_may_read_an_entry[ours]",
    "test_13_without_permission_nothing_is_called_absent_or_empty",
    "test_two_users_share_a_folder_that_both_may_write_to",
    "test_a_registry_can_be_made_where_one_may_write_and_not_look",
    "test_nothing_of_a_payload_is_kept_anywhere",
    "test_a_file_gets_its_folders_policy_whatever_the_umask",
    "test_a_shared_folders_group_is_kept_although_the_temporary_folder_has_another",
    "tests/cli/test_permissions.py",
)
"""Left out where it is about who owns what, besides."""
LINE = "HEDDLE_TEST_WEATHER"
"""The FIFO by which a test process tells the saboteur where it works."""
SOMEBODY = 65_533


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--index", choices=WEATHERS, default="on", help="what befalls the index")
    parser.addoption("--index-seed", type=int, default=0)


def pytest_configure(config: pytest.Config) -> None:
    weather = config.getoption("--index")
    if weather == "off":
        os.environ["HEDDLE_REGISTRY_INDEX"] = "off"
    if weather in ("on", "off") or hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="heddle-weather-")
    line = os.path.join(folder, "line")
    os.mkfifo(line)
    code = f"from tests import index_weather as w; w.sabotage({weather!r}, {line!r}, {folder!r},"
    config.stash[_SABOTEUR] = subprocess.Popen(
        [sys.executable, "-c", f"{code} {config.getoption('--index-seed')})"],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    os.environ[LINE] = line
    if weather == "foreign":
        give_up_powers()


_SABOTEUR = pytest.StashKey["subprocess.Popen[bytes]"]()


CAPABILITIES = {"DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3}


def give_up_powers() -> None:
    """Be an ordinary user to the files of others: no times, no modes, no reading of the closed.

    Root by name all the same, since the interpreter's own files may be closed to everybody else.
    """
    import ctypes

    if os.geteuid() != 0:
        raise pytest.UsageError("--index foreign: only root can give a folder away")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for number in CAPABILITIES.values():
        assert libc.prctl(24, number, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
        for at in range(3):
            sets[at] &= ~(1 << number)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def pytest_unconfigure(config: pytest.Config) -> None:
    saboteur = config.stash.get(_SABOTEUR, None)
    if saboteur is not None:
        assert saboteur.stdin is not None
        saboteur.stdin.close()
        saboteur.wait(60)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    weather = config.getoption("--index")
    if weather == "on":
        return
    names = ABOUT_THE_INDEX + (ABOUT_OWNERS if weather == "foreign" else ())
    left_out = [item for item in items if any(name in item.nodeid for name in names)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    line = os.environ.get(LINE)
    if line is None or folder is None:
        yield
        return
    _tell(line, str(folder))
    try:
        yield
    finally:
        _tell(line, "")


def _tell(line: str, folder: str) -> None:
    with open(line, "w") as fifo:
        fifo.write(f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}\t{folder}\n")


# -- the saboteur, in a process of its own


def sabotage(weather: str, line: str, scratch: str, seed: int) -> None:
    """Do harm where the line says, until stdin ends."""
    import random
    import select
    import shutil

    at_work: dict[str, tuple[str, Any]] = {}
    fifo = os.open(line, os.O_RDWR | os.O_NONBLOCK)  # for writing too: it never ends
    waits = select.poll()
    for fd in (fifo, 0):
        waits.register(fd, select.POLLIN)
    unread, pause = b"", random.Random(seed)
    harm = {"deleted": Deleted, "old": Old, "foreign": Foreign}[weather](scratch)
    try:
        while True:
            pause_ms = 1 + min(50, int(pause.expovariate(1 / 5)))
            ready = [fd for fd, _ in waits.poll(pause_ms)]
            if 0 in ready:
                return
            if fifo in ready:
                *lines, unread = (unread + os.read(fifo, 65_536)).split(b"\n")
                for text in lines:
                    worker, _, folder = text.decode().partition("\t")
                    at_work[worker] = (folder, random.Random(seed))
                    harm.begin()
            for folder, chance in at_work.values():
                for registry in registries(folder) if folder else ():
                    try:
                        harm.do(registry, chance)
                    except OSError:
                        continue  # the test was quicker
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


PASSED_OVER = {"agents", "claims", "live", "wait", "tmp", "queries", ".git", "__pycache__"}


def registries(folder: str) -> Iterator[str]:
    for path, folders, _ in os.walk(folder):
        if "agents" in folders:
            yield path
        folders[:] = [name for name in folders if name not in PASSED_OVER]


class Deleted:
    """Whatever of the index is there may go, by itself or all at once."""

    def __init__(self, scratch: str) -> None:
        pass

    def begin(self) -> None:
        """Know nothing of the tests before."""

    def do(self, registry: str, chance: Any) -> None:
        for suffix in ("", "-journal", ".building", ".lock"):
            if chance.random() < 0.4:
                path = os.path.join(registry, "index.sqlite" + suffix)
                if os.path.lexists(path):
                    os.unlink(path)


class Old:
    """A copy of some moment comes back: as another file, or into the same one."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._copies: dict[str, list[str]] = {}
        self._made = 0

    def begin(self) -> None:
        for copies in self._copies.values():
            for copy in copies:
                os.unlink(copy)
        self._copies = {}

    def do(self, registry: str, chance: Any) -> None:
        import sqlite3

        index = os.path.join(registry, "index.sqlite")
        copies = self._copies.setdefault(index, [])
        what = chance.random()
        if not os.path.exists(index):
            return
        try:
            if what < 0.4 or not copies:
                self._made += 1
                copy = os.path.join(self._scratch, str(self._made))
                _copy(f"file:{index}?mode=ro", f"file:{copy}?mode=rwc")
                copies.append(copy)
            elif what < 0.7:
                comes = os.path.join(self._scratch, "comes")
                _copy(f"file:{chance.choice(copies)}?mode=ro", f"file:{comes}?mode=rwc")
                os.replace(comes, index)
            else:
                _copy(f"file:{chance.choice(copies)}?mode=ro", f"file:{index}?mode=rw")
        except sqlite3.Error:
            return


def _copy(source: str, target: str) -> None:
    # By SQLite, which takes its own locks: bytes copied from under a writer are no old index.
    import contextlib
    import sqlite3

    with (
        contextlib.closing(sqlite3.connect(source, uri=True, timeout=0.01)) as old,
        contextlib.closing(sqlite3.connect(target, uri=True, timeout=0.01)) as new,
    ):
        old.backup(new)


class Foreign:
    """The folders, the index or both are given to another user of the group, and come back."""

    def __init__(self, scratch: str) -> None:
        pass

    def begin(self) -> None:
        """Know nothing of the tests before."""

    def do(self, registry: str, chance: Any) -> None:
        for name in ("agents", "claims"):
            path = os.path.join(registry, name)
            # Not one that is just being made: that its maker may set its mode is not at stake.
            if os.path.isdir(path) and os.listdir(path):
                owner = chance.choice((0, SOMEBODY))
                if owner:
                    os.chmod(path, os.stat(path).st_mode | 0o070)
                os.chown(path, owner, -1)
        index = os.path.join(registry, "index.sqlite")
        if os.path.exists(index):
            os.chown(index, chance.choice((0, SOMEBODY)), -1)
            os.chmod(index, chance.choice((0o600, 0o640, 0o660)))
