"""Real git repositories for tests, deaf to whatever git settings the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = {
    f"GIT_{role}_{what}": f"{role.lower()}@example.invalid"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


class Repository:
    """A repository with one commit on ``main``, and the registry's command line in it."""

    def __init__(self, path: Path, environ: dict[str, str] | None = None) -> None:
        self.path = path
        home = path.parent / "home"
        home.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "HEDDLE"))}
        self.environ = {
            **kept,
            **IDENTITY,
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONPATH": str(ROOT),
            "HEDDLE_REGISTRY_PLUGINS": "",
            **(environ or {}),
        }
        if not path.exists():
            path.mkdir()
            self.git("init", "-q", "-b", "main")
            self.commit()

    def at(self, path: Path) -> Repository:
        """Return the repository seen from another of its folders."""
        return Repository(path, self.environ)

    def run(
        self, *words: object, status: int | None = 0, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it; ``status`` None accepts any."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.path,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"{words}: {done}"
        return done

    def git(self, *words: object, status: int | None = 0, **environ: str) -> str:
        """Run git and return what it said, errors too."""
        done = self.run("git", *words, status=status, environ=environ)
        return done.stdout + done.stderr

    def commit(self, status: int | None = 0, **environ: str) -> str:
        """Commit nothing new, as a commit that no other is equal to."""
        words = ("commit", "-q", "--allow-empty", "-m", os.urandom(8).hex())
        return self.git(*words, status=status, **environ)

    def heddle(self, *words: object, status: int | None = 0) -> str:
        """Run the registry's command line."""
        done = self.run(sys.executable, "-m", "heddle_registry", *words, status=status)
        return done.stdout + done.stderr

    def reserve(self, branch: str, *words: object) -> dict[str, str]:
        """Reserve a branch for this test's process; returns the claim's variables."""
        said = self.heddle("reserve", branch, "--owner-pid", os.getpid(), "--export", *words)
        lines = [line.removeprefix("export ") for line in said.splitlines()]
        return dict(line.split("=", 1) for line in lines)
