"""Change one place at a time and see whether a test notices.

``python -m tests.mutation.mutate [MODULE...]`` works on a copy of the checkout, so
the checkout may be edited meanwhile. Prints each survivor and the score of each module; what may
survive, and why, is in survivors.md. About 1.5 s a mutation on one core.
"""

from __future__ import annotations

import collections
import compileall
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation.mutations import Mutation, mutations_of

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KNOWN = HERE / "survivors.md"
LIMIT_S = 120


def passes(folder: Path, tests: Iterable[str], ignored: Iterable[str] = ()) -> bool:
    """Run tests in a forked child of this process, which has the libraries loaded already."""
    chosen = [test for test in tests if (folder / test).exists()]
    if not chosen:
        return True
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()  # what a mutated test kills is its own
            os.chdir(folder)
            sys.path[:] = [str(folder), *(p for p in sys.path if p and Path(p) != ROOT)]
            for loaded in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[loaded]
            sys.dont_write_bytecode = True
            out = os.open(os.devnull, os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            signal.alarm(LIMIT_S)  # a mutation may have no end
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-o", "addopts=",
                       "-o", "timeout=0", "-m", "not nightly and not lab",
                       "--import-mode=importlib"]  # fmt: skip
            status = int(pytest.main([*options, *(f"--ignore={i}" for i in ignored), *chosen]))
        finally:
            os._exit(min(status, 100))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need, compiled, into an empty folder."""
    for name in ("heddle_registry", "plugins", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    compileall.compile_dir(folder / "heddle_registry", quiet=2)


def key_of(module: str, mutation: Mutation) -> str:
    """Return how survivors.md names a mutation: it survives a moved line."""
    return f"{Path(module).stem}: {mutation.what}"


def main(words: list[str]) -> int:
    """Print survivors and scores; 1 where the score is below 95 % or one is unexplained."""
    import attrs  # noqa: F401 - loaded once, for every forked child
    import cattrs  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import tomli  # noqa: F401
    import tomli_w  # noqa: F401

    config = tomllib.loads((HERE / "targets.toml").read_text())
    explained = KNOWN.read_text() if KNOWN.exists() else ""
    modules = [m for m in config["near"] if not words or any(w in m for w in words)]
    counts: collections.Counter[str] = collections.Counter()
    unexplained = 0
    with tempfile.TemporaryDirectory(prefix="heddle-mutants-") as name:
        folder = Path(name)
        copy_checkout(folder)
        for module in modules:
            path = folder / module
            source = path.read_text()
            for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
                cached.unlink()
            assert passes(folder, config["near"][module]), f"{module}: the tests fail as it is"
            started, killed, all_of = time.monotonic(), 0, 0
            for mutation in mutations_of(source):
                path.write_text(mutation.source)
                all_of += 1
                if not (
                    passes(folder, config["near"][module])
                    and passes(folder, config["wide"], config["wide_ignore"])
                    and passes(folder, config["deep"])
                ):
                    killed += 1
                    continue
                known = key_of(module, mutation) in explained
                unexplained += not known
                mark = "explained" if known else "SURVIVED"
                print(f"{mark} {module}:{mutation.line}: {mutation.what}", flush=True)
            path.write_text(source)
            counts.update(killed=killed, all=all_of)
            took = time.monotonic() - started
            print(f"{module}: {killed} of {all_of} killed, {took:.0f} s", flush=True)
    if not counts["all"]:
        print("nothing to mutate")
        return 2
    score = 100 * counts["killed"] / counts["all"]
    print(f"{counts['killed']} of {counts['all']} killed: {score:.1f} %, {unexplained} unexplained")
    return int(score < 95 or unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
