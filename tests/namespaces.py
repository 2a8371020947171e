"""Private namespaces for tests: a piece of Python run in one, its answer brought back.

`needs_private` is the marker of a test that asks for some; it skips where a probe shows that the
machine does not allow them (no ``unshare``, no user namespaces, a locked-down container).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.process_helpers import ROOT

PID = ("--pid", "--fork", "--kill-child", "--mount-proc")
"""A pid namespace with a ``/proc`` of its own; the code is its process 1."""
PID_WITHOUT_PROC = ("--pid", "--fork", "--kill-child")
"""The same without: ``/proc`` goes on showing the outer processes."""
TIME = ("--time", "--monotonic", "100000", "--boottime", "200000")
"""A time namespace that is days ahead."""


@functools.cache
def _unshare(*flags: str) -> tuple[str, ...] | None:
    # As root, else as the root of a user namespace of our own.
    if shutil.which("unshare") is None:
        return None
    for extra in ((), ("--user", "--map-root-user")):
        prefix = ("unshare", *extra, *flags)
        tried = subprocess.run(
            [*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if tried.returncode == 0:
            return prefix
    return None


def needs_private(*flags: str) -> pytest.MarkDecorator:
    """Return a marker that skips where no namespaces with these flags can be had."""
    return pytest.mark.skipif(
        _unshare(*flags) is None, reason=f"this machine allows no unshare {' '.join(flags)}"
    )


def run_private(flags: tuple[str, ...], code: str, *arguments: object) -> Any:
    """Run ``code`` in namespaces of its own and return what it gave to ``answer(value)``.

    The code reads its ``arguments``, turned into JSON and back, from the list ``given``. It is
    ended, with all it started, after 60 s.
    """
    prefix = _unshare(*flags)
    assert prefix is not None, "mark the test with needs_private"
    prelude = (
        "import json, sys\n"
        "given = json.loads(sys.argv[1])\n"
        "def answer(value): print('\\n' + json.dumps(value), flush=True)\n"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", prelude + code, json.dumps(arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return json.loads(done.stdout.splitlines()[-1])
