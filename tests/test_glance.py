"""A glance never overlooks what detection would see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.harness import SignalKind
from heddle_registry.detection import known_harnesses
from heddle_registry.glance import may_be_harness
from heddle_registry.ports.process import ProcessInfo
from heddle_registry.probe import process_of

PROGRAMS = [
    signal
    for harness in known_harnesses()
    for signal in harness.signals
    if signal.kind is SignalKind.PROGRAM
]
_PLACES = st.sampled_from(["", "/usr/bin/", "C:\\bin\\", "-", "node_modules/.bin/"])
_ENDINGS = st.sampled_from(["", ".exe", ".js", ".cjs", ".py", ".real", "/"])
_FILLED = st.sampled_from(["1.2.3", "x", "2", "linux-x64"])
_WORDS = st.one_of(
    st.sampled_from([signal.name for signal in PROGRAMS]),
    st.sampled_from([signal.path or "*" for signal in PROGRAMS]).flatmap(
        lambda pattern: _FILLED.map(lambda it: pattern.replace("[0-9]", "1").replace("*", it))
    ),
    st.sampled_from(["bash", "node", "python3", "-c", "-m", "sh", "vim", "--flag"]),
    st.text(max_size=5),
)
_PATHS = st.builds(lambda place, word, end: place + word + end, _PLACES, _WORDS, _ENDINGS)


@given(st.lists(_PATHS, max_size=4), st.none() | _PATHS, _WORDS)
def test_whatever_detection_takes_for_a_harness_passes_the_glance(argv, exe, comm):
    process = ProcessInfo(pid=7, argv=tuple(argv), exe=exe, comm=comm)
    seen = any(harness.program_role(process_of(process)) for harness in known_harnesses())
    if seen:
        assert may_be_harness([process])


@pytest.mark.parametrize(
    "argv", [("bash", "-l"), ("/usr/bin/python3.11", "script.py"), ("sshd: me",), ("node", "x.js")]
)
def test_everyday_processes_do_not_pass(argv):
    assert not may_be_harness([ProcessInfo(pid=7, argv=argv, exe="/bin/" + argv[0].split("/")[-1])])
