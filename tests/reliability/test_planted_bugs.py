"""Would these tests have caught that bug? Each promise holds, and fails once its bug is planted."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import ROOT
from tests.reliability import planted
from tests.reliability.io_faults import quick_folder
from tests.reliability.planted import BUGS, Bug

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS = list(dict.fromkeys(bug.check for bug in BUGS))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_promise_is_kept(check: Callable[[Path], None]) -> None:
    with quick_folder() as folder:
        check(folder)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.kind}: {bug.name}")
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    with pytest.MonkeyPatch.context() as patch, quick_folder() as folder:
        bug.plant(patch)
        # What catches it is a promise, not the program or the patch going wrong.
        with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
            bug.check(folder)
    # The environment of a fresh clone lies below ROOT as well, and pytest.fail raises in it.
    places = {ROOT / "tests", ROOT / "heddle_registry"}
    ours = [entry.path for entry in caught.traceback if places & set(entry.path.parents)]
    assert ROOT / "tests" in ours[-1].parents, f"the program's own assertion: {ours[-1]}"
    assert ours[-1] != Path(planted.__file__), "the patch's own assertion"


def test_each_class_of_failure_has_two_bugs_at_least() -> None:
    counts = collections.Counter(bug.kind for bug in BUGS)
    assert [kind for kind, count in counts.items() if count < 2] == []
    print(f"{len(BUGS)} planted bugs: {dict(counts)}")
