"""`relay` as a program: it ends with 0, soon, and says one line at most, whatever it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugins import recordings
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

START = {"session_id": "t1", "hook_event_name": "SessionStart", "source": "startup"}


@pytest.fixture
def installed(heddle: Heddle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugins of this checkout, as packages that are installed."""
    site = tmp_path / "site"
    site.mkdir()
    for harness in recordings.FOLDERS:
        module = f"heddle_registry_{harness.replace('-', '_')}"
        (site / module).symlink_to(ROOT / "plugins" / harness / module)
        info = site / f"{module}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[heddle_registry]\n{harness} = {module}\n")
    monkeypatch.delenv("HEDDLE_REGISTRY_PLUGINS")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{site}")
    return site


def relay(*words: str, payload: bytes | dict[str, Any] = b"", **options: Any) -> str:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    done = subprocess.run(
        [sys.executable, "-m", "heddle_registry", "relay", *words],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") <= 1
    return done.stdout.decode()


def faults(heddle: Heddle) -> list[tuple[str, str]]:
    found = heddle.json("doctor", status=None)["plugin_faults"]
    return [(fault["plugin"], fault["why"].partition(" (last")[0]) for fault in found]


@pytest.mark.usefixtures("installed")
def test_a_session_is_listed_while_it_works_and_complete_at_its_end(heddle: Heddle) -> None:
    assert relay("codex", "SessionStart", payload=START) == ""
    (entry,) = heddle.json("list")["entries"]
    assert (entry["native_actor_key"], entry["harness"]) == ("codex:thread:t1", "codex")
    kid = START | {"agent_id": "t2"}
    relay("codex", "SubagentStart", payload=kid)
    tree = heddle.json("list", "--tree")["entries"]
    assert [(row["native_actor_key"], row["depth"]) for row in tree] == [
        ("codex:thread:t1", 0),
        ("codex:thread:t2", 1),
    ]
    relay("codex", "SubagentStop", payload=kid)
    relay("codex", "SessionEnd", payload=START)
    listed = heddle.json("list", "--all")["entries"]
    assert [row["status"] for row in listed] == ["complete", "complete"]
    assert faults(heddle) == []


@pytest.mark.usefixtures("installed")
def test_one_line_says_that_another_holds_the_branch(heddle: Heddle) -> None:
    held = heddle.json("reserve", "detached/repository", "--ttl", "60")
    line = relay("claude-code", "SessionStart", payload=START)
    said = json.loads(line)["hookSpecificOutput"]["additionalContext"]
    assert held["entry"]["session_id"] in said


@pytest.mark.parametrize(
    ("words", "payload", "fault"),
    [
        (("codex", "SessionStart"), b"no JSON", "its payload is no JSON"),
        (("codex", "SessionStart"), b"", "its payload is no JSON"),
        (("codex", "SessionStart"), b"[" * 2_000_000, "its payload has more than 1048576 bytes"),
        (("nobody", "SessionStart"), b"{}", "nobody knows a harness of that name"),
        (("x" * 5_000, "y\n\x1b[2J"), b"{}", "nobody knows a harness of that name"),
        ((), b"", None),
        (("codex",), b"", None),
        (("codex", "SessionStart", "too", "--many"), b"{}", None),
        (("codex", "SessionStart", "--json"), b"{", "its payload is no JSON"),
    ],
)
def test_whatever_it_is_given_it_ends_with_0_and_doctor_shows_one_fault(
    heddle: Heddle, words: tuple[str, ...], payload: bytes, fault: str | None
) -> None:
    for _ in range(2):
        relay(*words, payload=payload, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert [why for _, why in faults(heddle)] == ([fault] if fault else [])
    assert not heddle.agents.exists() or list(heddle.agents.glob("*.toml")) == []


def test_a_payload_of_50_megabytes_is_taken_and_let_go(heddle: Heddle) -> None:
    relay("codex", "SessionStart", payload=b"[" * 50_000_000,
          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert [why for _, why in faults(heddle)] == ["its payload has more than 1048576 bytes"]


@pytest.mark.usefixtures("installed")
def test_a_payload_that_never_ends_and_a_plugin_that_hangs_are_cut_short(
    heddle: Heddle, installed: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "heddle_registry", "relay", "codex", "SessionStart"],
        stdin=subprocess.PIPE,
    ) as child:
        assert child.wait(60) == 0
    module = installed / "heddle_registry_codex"
    module.unlink()
    module.mkdir()
    (module / "__init__.py").write_text(
        "import time\n"
        "from heddle_registry import Harness, hookimpl\n"
        "@hookimpl\n"
        "def heddle_harnesses():\n"
        "    return [Harness(name='codex', events={'SessionStart': 'opened'})]\n"
        "@hookimpl\n"
        "def heddle_probe(probe):\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except Exception:\n"
        "            pass\n"
    )
    relay("codex", "SessionStart", payload=START)
    assert faults(heddle) == [("codex", "it took more than 5 s")]


@pytest.mark.usefixtures("installed")
def test_without_stdin_stdout_or_a_repository_it_ends_with_0_too(
    heddle: Heddle, tmp_path: Path
) -> None:
    heddle("reserve", "detached/repository", "--ttl", "60")
    command = f"{sys.executable} -m heddle_registry relay claude-code SessionStart"
    payload = tmp_path / "payload"
    payload.write_text(json.dumps(START))
    for words in (
        f"{command} <&-",
        f"{command} <{payload} >&-",
        f"{command} <{payload} >/dev/full",
    ):
        done = subprocess.run(["sh", "-c", words], check=False, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b""), words
    outside = {**os.environ}
    outside.pop("HEDDLE_DIR")
    empty = tmp_path / "nowhere"
    empty.mkdir()
    assert relay("codex", "SessionStart", payload=START, env=outside, cwd=empty) == ""
    assert list(empty.iterdir()) == []
