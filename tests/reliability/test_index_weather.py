"""All that is promised elsewhere holds with an index that is off, harmed or another user's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.index_weather import WEATHERS
from tests.process_helpers import ROOT

FOLDERS = ("registry", "contract", "adapters", "cli", "faults", "startup")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("weather", WEATHERS[1:])
def test_the_other_tests_are_green_in_any_weather(weather):
    if weather == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "-p", "tests.index_weather", "--index", weather, *(f"tests/{name}" for name in FOLDERS),
         "tests/test_ported.py", "tests/test_relay.py", "tests/test_seed_registry.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
