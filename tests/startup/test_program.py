"""How the process of a command ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.process_helpers import ROOT


@pytest.mark.parametrize("place", ["_beat", "_run_in_own_process"])
def test_an_interrupt_outside_of_the_command_itself_is_no_traceback_either(place):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from heddle_registry import __main__ as it
def interrupted(words):
    print("said before")
    raise KeyboardInterrupt
it.{place} = interrupted
it.program()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "said before\n", "")


def test_a_reader_that_has_gone_is_no_traceback(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m heddle_registry --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
        cwd=ROOT, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 141)
