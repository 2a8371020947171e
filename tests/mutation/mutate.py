"""Change one place at a time and see whether a test notices.

``python -m tests.mutation.mutate [MODULE...]`` works on a copy of the checkout, so the checkout
may be edited meanwhile. Prints each survivor and the score of each module; what may survive, and
why, is in survivors.md. Half a second to two a mutation on one core. ``--sample N`` takes at most N
mutations of a module, always the same ones, and says of how many. ``--quick`` leaves out the deep
tests, and ``--again FILE`` tries only what had survived in the output of an earlier run.
"""

from __future__ import annotations

import argparse
import ast
import collections
import compileall
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.mutation.mutations import Mutation, mutations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KNOWN = HERE / "survivors.md"
LIMIT_S = 300


@attrs.frozen(kw_only=True)
class Package:
    """Modules with the tests of each, and those that must notice what a module's own did not."""

    wide: Sequence[str]
    deep: Sequence[str]
    near: dict[str, Sequence[str]]
    wide_ignore: Sequence[str] = ()

    def notices(
        self, folder: Path, module: str, limit_s: int = LIMIT_S, *, near_only: bool = False
    ) -> bool:
        """Return whether any of the tests fails on the module as it is now in ``folder``.

        ``near_only`` is for what is known to survive: that the others let it pass costs most.
        """
        if not passes(folder, self.near[module], limit_s=limit_s):
            return True
        if near_only:
            return False
        wide = passes(folder, self.wide, self.wide_ignore)
        return not (wide and passes(folder, self.deep))


def passes(
    folder: Path, tests: Iterable[str], ignored: Iterable[str] = (), limit_s: int = LIMIT_S
) -> bool:
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
            signal.alarm(limit_s)  # a mutation may have no end
            # A shell starts what runs behind it without; tests that interrupt would wait in vain.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-o", "addopts=",
                       "-o", "timeout=0", "-m", "not nightly and not lab",
                       "--import-mode=importlib"]  # fmt: skip
            status = int(pytest.main([*options, *(f"--ignore={i}" for i in ignored), *chosen]))
        finally:
            os._exit(min(status, 100))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):  # children that a mutated test left behind
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need, compiled, into an empty folder."""
    folder.chmod(0o755)  # tests that go on as another user import from it
    for name in ("heddle_registry", "plugins", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    compileall.compile_dir(folder / "heddle_registry", quiet=2)


def key_of(module: str, mutation: Mutation) -> str:
    """Return how survivors.md names a mutation: it survives a moved line."""
    return f"`{Path(module).stem}: {mutation.what}`"


def survivors_in(output: str) -> set[tuple[str, str]]:
    """Return module and words of what survived in an output; lines may have moved since."""
    found = re.findall(r"^(?:SURVIVED|explained) (.+?):[0-9]+: (.+)$", output, re.MULTILINE)
    return {(module, what) for module, what in found}


def chosen_of(module: str, source: str, sample: int | None) -> list[Mutation]:
    """Return the mutations to try: all of them, or a sample that is always the same."""
    every = mutations_of(source)
    if sample is None or len(every) <= sample:
        return every
    print(f"{module}: a sample of {sample} from {len(every)}", flush=True)
    numbers = random.Random(module).sample(range(len(every)), sample)
    return [every[number] for number in sorted(numbers)]


def strip_comments(folder: Path, modules: Iterable[str]) -> dict[str, str]:
    """Write modules as their mutations are written, without comments; return them as they were."""
    sources = {}
    for module in modules:
        path = folder / module
        sources[module] = path.read_text()
        path.write_text(ast.unparse(ast.parse(sources[module])))
        for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
            cached.unlink()
    return sources


def try_module(
    folder: Path, package: Package, module: str, mutations: Sequence[Mutation], explained: str
) -> collections.Counter[str]:
    """Try a module's mutations, print what survives, and count."""
    counts: collections.Counter[str] = collections.Counter()
    path = folder / module
    plain = path.read_text()
    started = time.monotonic()
    assert any(passes(folder, package.near[module]) for _ in range(3)), (
        f"{module}: the tests fail as it is"
    )
    started, limit_s = time.monotonic(), 10 + 5 * int(time.monotonic() - started)
    for mutation in mutations:
        path.write_text(mutation.source)
        counts["all"] += 1
        known = key_of(module, mutation) in explained
        if package.notices(folder, module, min(limit_s, LIMIT_S), near_only=known):
            counts["killed"] += 1
            continue
        counts["unexplained"] += not known
        mark = "explained" if known else "SURVIVED"
        print(f"{mark} {module}:{mutation.line}: {mutation.what}", flush=True)
    path.write_text(plain)
    assert any(passes(folder, package.near[module]) for _ in range(3)), (
        f"{module}: a mutation damaged the copy"
    )
    took = time.monotonic() - started
    print(f"{module}: {counts['killed']} of {counts['all']} killed, {took:.0f} s", flush=True)
    return counts


def main(words: list[str]) -> int:
    """Print survivors and scores; 1 where the score is below 95 % or one is unexplained."""
    import cattrs  # noqa: F401 - loaded once, for every forked child
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import tomli  # noqa: F401
    import tomli_w  # noqa: F401

    parser = argparse.ArgumentParser(prog="python -m tests.mutation.mutate")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", type=Path, metavar="FILE")
    options = parser.parse_args(words)
    config = tomllib.loads((HERE / "targets.toml").read_text())
    explained = KNOWN.read_text() if KNOWN.exists() else ""
    packages = [Package(**table) for table in config["packages"]]
    if options.quick:
        packages = [attrs.evolve(package, deep=()) for package in packages]
    again = survivors_in(options.again.read_text()) if options.again is not None else None
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="heddle-mutants-") as name:
        folder = Path(name)
        copy_checkout(folder)
        for package in packages:
            wanted = options.modules or [""]
            modules = [m for m in package.near if any(word in m for word in wanted)]
            if again is not None:
                modules = [m for m in modules if m in {module for module, _ in again}]
            sources = strip_comments(folder, modules)
            if modules:
                # A busy machine may fail one of hundreds of tests once; not thrice.
                assert not all(package.notices(folder, modules[0]) for _ in range(3)), (
                    "the tests fail as it is"
                )
            for module, source in sources.items():
                mutations = chosen_of(module, source, options.sample)
                if again is not None:
                    mutations = [m for m in mutations if (module, m.what) in again]
                counts += try_module(folder, package, module, mutations, explained)
    if not counts["all"]:
        print("nothing to mutate")
        return 2
    score = 100 * counts["killed"] / counts["all"]
    unexplained = counts["unexplained"]
    print(f"{counts['killed']} of {counts['all']} killed: {score:.1f} %, {unexplained} unexplained")
    return int(score < 95 or unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
