"""What the pages print is what happens: their commands and programs run as a reader would.

A page's ``console`` blocks run in order in one shell; what they print must be what the page
shows, but for ids, times, pids and tokens. A block that begins with ``# name.py`` or ``# name.sh``
becomes that file first. An ``sh`` block runs where it stands and must succeed; of one that
installs, only what follows the installation runs: the tests run where all is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(console|sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WHOLE_PAGES = (
    "tutorial/first-session.md",
    "how-to/recover-a-stuck-reservation.md",
    "how-to/read-only-checkout.md",
    "how-to/ci.md",
    "how-to/guard-branches-with-git.md",
    "how-to/embed-the-core.md",
)
INSTALLED = "python3 -m venv .venv && .venv/bin/pip install -q ."
PROMPT, END = "$ ", "-- end of a command --"
CHANGING = (
    (r"agent-[a-z2-7]{20}", "agent-ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b[0-9a-f]{40}\b", "TOKEN"),
    (r"^[0-9a-f]{7} ", "COMMIT "),
    (r"\bprocess(es)? \d+(, \d+)*", "process N"),
    (r"\b\d+ (s|min)\b", "N s"),
    (r"\b[0-9a-f]{32}\.toml", "HASH.toml"),
    (r" {2,}", "  "),
    (r" +$", ""),
)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which our command is on the path and nothing else of ours is set."""
    programs = tmp_path / "bin"
    programs.mkdir()
    python = shlex.quote(sys.executable)
    ours = f'export PYTHONPATH={shlex.quote(str(ROOT))}\nexec {python} "$@"\n'
    for name, words in (("python3", ""), ("heddle-registry", 'set -- -m heddle_registry "$@"\n')):
        (programs / name).write_text(f"#!/bin/sh\n{words}{ours}")
        (programs / name).chmod(0o755)
    (tmp_path / "you").mkdir()
    keep = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return {
        **keep,
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "you"),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Where the tests themselves run inside a harness, it is not to be the owner.
        "HEDDLE_REGISTRY_DETECTION": "0",
        "HEDDLE_REGISTRY_PLUGINS": "",
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def settled(text: str, home: str = "/home/you") -> list[str]:
    """Return the lines of ``text`` with what differs from run to run taken out."""
    text = text.replace(home, "/home/you")
    for pattern, stand_in in CHANGING:
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return text.rstrip("\n").split("\n") if text.strip() else []


def steps_of(page: str) -> list[tuple[str, list[str] | None]]:
    """Return the page's commands in order, each with the lines that it shows (None: not shown)."""
    steps: list[tuple[str, list[str] | None]] = []
    for kind, text in BLOCK.findall(page):
        if kind == "console":
            for part in re.split(rf"^{re.escape(PROMPT)}", text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                while command.endswith("\\"):
                    more, _, shown = shown.partition("\n")
                    command += "\n" + more
                steps.append((command, settled(shown)))
        elif name := re.match(r"# (\w+\.(?:py|sh))\n", text):
            steps.append((f"cat > {name[1]} <<'END OF FILE'\n{text}END OF FILE", None))
        elif kind == "sh" and not text.startswith(INSTALLED):
            steps.append((text, None))
    return steps


@pytest.mark.parametrize("name", WHOLE_PAGES)
def test_every_command_of_a_page_prints_what_the_page_shows(
    name: str, tmp_path: Path, shell: dict[str, str]
) -> None:
    steps = steps_of((DOCS / name).read_text())
    assert any(shown for _, shown in steps)
    script = "".join(f"{{ {command}\n}} 2>&1; echo '{END}' $?\n" for command, _ in steps)
    done = subprocess.run(
        ["bash", "-c", script],
        env=shell,
        cwd=tmp_path / "you",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = re.split(rf"^{re.escape(END)} (\d+)\n", done.stdout, flags=re.MULTILINE)
    assert len(printed) // 2 == len(steps), done.stderr
    for (command, shown), said, status in zip(steps, printed[::2], printed[1::2], strict=False):
        if shown is None:
            assert status == "0", f"{command}\n{said}"
        else:
            assert settled(said, str(tmp_path / "you")) == shown, command


def repository(folder: Path, environment: dict[str, str]) -> Path:
    for words in (
        ["git", "init", "-q", "-b", "main", str(folder)],
        ["git", "-C", str(folder), "-c", "user.name=you", "-c", "user.email=you@example.org",
         "commit", "-q", "--allow-empty", "-m", "first"],
    ):  # fmt: skip
        subprocess.run(words, env=environment, check=True, timeout=60)
    return folder


def readme_blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text())


def test_the_readmes_first_command_runs_its_command_under_a_claim(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    first = next(text for kind, text in readme_blocks() if kind == "sh")
    installing, _, running = first.strip().rpartition(" && ")
    assert installing.startswith(INSTALLED)
    folder = repository(tmp_path / "clone", shell)
    command = running.replace(".venv/bin/", "")
    done = subprocess.run(
        ["bash", "-c", f"{command} && heddle-registry list --all"],
        env=shell, cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    log, header, row = done.stdout.splitlines()
    assert log.endswith("first")
    assert header.split()[0] == "BRANCH"
    assert "feature/demo" in row
    assert "ended (complete)" in row
    assert "look at the log" in row


def test_the_readmes_session_prints_what_the_readme_shows(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    console = next(text for kind, text in readme_blocks() if kind == "console")
    folder = repository(tmp_path / "clone", shell)
    # The first command runs until the others have been asked; a FIFO says when it began.
    for program in ("codex", "claude"):
        path = tmp_path / "bin" / program
        path.write_text(f"#!/bin/sh\necho begun > {tmp_path}/begun; read -r _ < {tmp_path}/end\n")
        path.chmod(0o755)
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "end")
    parts = re.split(rf"^{re.escape(PROMPT)}", console, flags=re.MULTILINE)[1:]
    commands = [part.partition("\n")[0] for part in parts]
    shown = [settled(part.partition("\n")[2]) for part in parts]
    options = {"env": shell, "cwd": folder, "text": True, "stderr": subprocess.STDOUT}
    with subprocess.Popen(["bash", "-c", commands[0]], stdout=subprocess.PIPE, **options) as first:
        assert (tmp_path / "begun").read_text() == "begun\n"
        said = [
            settled(
                subprocess.run(
                    ["bash", "-c", command], stdout=subprocess.PIPE, timeout=60, check=False,
                    **options,
                ).stdout
            )
            for command in commands[1:]
        ]  # fmt: skip
        (tmp_path / "end").write_text("now\n")
        first.communicate(timeout=60)
    for command, printed, wanted in zip(commands[1:], said, shown[1:], strict=True):
        if wanted:
            told = "\n".join(wanted).replace("since …", "since TIME").replace("…", "")
            assert "\n".join(printed) == told, command
        else:
            assert printed, command


def test_the_readmes_python_holds_a_branch_and_lets_it_go(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    folder = repository(tmp_path / "clone", shell)
    program = next(text for kind, text in readme_blocks() if kind == "python")
    (folder / "session.py").write_text(program)
    done = subprocess.run(
        ["python3", "session.py"], env=shell, cwd=folder, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert settled(done.stdout) == ["1 agent-ID"]
