"""Reading usage from real transcripts, repeated under other ids, beside a bare loop over them.

All real files are read together, as often as each other: in the proportions in which they lie on
a disk. That is what the budgets are for. Each harness by itself tells where the time goes.

The loop only finds the usage lines and parses them with orjson: ``for line in file``, a look for
the marker, ``orjson.loads``. It joins nothing, keeps nothing and is wrong about the totals. Both
are timed by their processor time, each in a process of its own, taking turns.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.folders import ROOT

SHARED = ROOT.parent / "shared" / "transcripts"
MARKERS = {
    "claude-code": b'"usage"',
    "codex": b'"token_count"',
    "copilot-cli": b'"outputTokens"',
    "gemini-cli": b'"tokens"',
    "pi": b'"usage"',
    "qwen-code": b'"usageMetadata"',
}
"""What the loop looks for. OpenCode's exports and Gemini's older chats have no lines."""
FOLDERS = {"claude": "claude-code", "copilot": "copilot-cli", "gemini": "gemini-cli",
           "qwen": "qwen-code"}  # fmt: skip
SNAPSHOTS = {"codex/19", "gemini/03", "gemini/04"}
"""Earlier states of a session that is there in a longer one: their ids are not their own."""
BUCKETS = {
    "input_uncached": "input_tokens",
    "cache_write": "cache_creation_tokens",
    "cache_read": "cache_read_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "tool_calls": "tool_calls",
}
FIRST, AGAIN, APPENDED, PEAK_MB = 0.7, 0.05, 0.01, 150.0
LARGE = {"claude-code", "codex"}
"""Of the others there are only a few small files: a tenth as much is enough."""
ONE_FILE_MB, LONG = 100, "claude/35"
TOGETHER = "all, as they lie"
APPENDS = 10
_SESSION = re.compile(rb'"sessionId":"[^"]+"')
_IDS = re.compile(
    rb"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    rb"|\b(?:msg|req)_[0-9A-Za-z]{16,}"
    rb"|\ba(?:compact-)?[0-9a-f]{6,16}\b"
    rb'|(?<=")[0-9a-f]{8}(?=")'
)
_HEX = b"0123456789abcdef"
_LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


# -- copies


def sessions() -> dict[str, dict[str, dict]]:
    """The real sessions by harness; none where the files are not beside the checkout."""
    file = SHARED / "expected.json"
    found: dict[str, dict[str, dict]] = {}
    for name, session in (json.loads(file.read_text()) if file.exists() else {}).items():
        family = name.partition("/")[0]
        harness = FOLDERS.get(family, family)
        if harness in MARKERS and name not in SNAPSHOTS:
            found.setdefault(harness, {})[name] = session
    return found


def pieces(content: bytes) -> list[bytes]:
    """What is between ids, and ids, in turns."""
    found, end = [], 0
    for name in _IDS.finditer(content):
        found += [content[end : name.start()], name[0]]
        end = name.end()
    return [*found, content[end:]]


def renamed(parts: list[bytes], number: int) -> bytes:
    """The same with every id replaced by another of its length; alike ids stay alike."""
    others = {name: _other(name, number) for name in set(parts[1::2])}
    parts = [*parts]
    parts[1::2] = [others[name] for name in parts[1::2]]
    return b"".join(parts)


def _other(name: bytes, number: int) -> bytes:
    changed, rest = bytearray(name), number * 2_654_435_761 % (1 << 32)
    digits = _LETTERS if name.startswith((b"msg_", b"req_")) else _HEX
    for at in range(len(name) - 6, len(name)):
        rest, by = divmod(rest, len(digits))
        changed[at] = digits[(digits.index(changed[at]) + by) % len(digits)]
    return bytes(changed)


def size_of(chosen: dict[str, dict]) -> int:
    """Bytes of the sessions' files."""
    return sum(
        os.stat(SHARED / file).st_size for session in chosen.values() for file in session["files"]
    )


def repeat(folder: Path, chosen: dict[str, dict], copies: int) -> tuple[list[str], dict[str, int]]:
    """Write so many copies of the sessions' files.

    Return their paths, and the totals that they must have together.
    """
    files = [file for session in chosen.values() for file in session["files"]]
    contents = [(pieces(file.encode()), pieces((SHARED / file).read_bytes())) for file in files]
    paths = []
    for copy in range(copies):
        for name, content in contents:
            path = folder / str(copy) / renamed(name, copy).decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(renamed(content, copy))
            paths.append(str(path))
    expected = {}
    for bucket, ours in BUCKETS.items():
        values = [session["usage"][bucket] for session in chosen.values()]
        if None not in values:
            expected[ours] = copies * sum(values)
    return paths, expected


# -- what is timed, each in a process of its own


def read(sources: list[list[str]], state: str) -> dict:
    """Read with the checkout's plugins, and tell how long it took and what was found."""
    from heddle_registry.adapters.usage_reader import read_usage
    from heddle_registry.plugins import Plugins

    plugins = Plugins()
    harnesses = {harness for harness, _ in sources}
    for harness in harnesses:
        sys.path.insert(0, str(ROOT / "plugins" / harness))  # before one that is installed
        module = f"heddle_registry_{harness.replace('-', '_')}"
        plugins.add(harness, importlib.import_module(module))
    readers = plugins.usage_readers()
    asked = [(harness, path, None) for harness, path in sources]
    empty = Path(state) / "empty.jsonl"
    empty.write_bytes(b"\n" * 100_000)
    # So that no import is timed, nor that of what searches a large block.
    read_usage([(harness, str(empty), None) for harness in harnesses], readers)
    started = time.process_time()
    report = read_usage(asked, readers, state)
    seconds = time.process_time() - started
    assert report.faults == (), report.faults[:3]
    totals = {name: getattr(report.totals, name) for name in BUCKETS.values()}
    return {"seconds": seconds, "peak_mb": _peak_mb(), "totals": totals}


def loop(sources: list[list[str]], state: str) -> dict:
    """Find the usage lines, parse them, and do nothing with them."""
    from orjson import loads

    found = 0
    started = time.process_time()
    for harness, path in sources:
        marker = MARKERS[harness]
        with open(path, "rb") as file:
            for line in file:
                if marker in line:
                    try:
                        loads(line)
                    except ValueError:
                        continue  # a line of a document that is printed over several
                    found += 1
    return {"seconds": time.process_time() - started, "lines": found, "totals": {}}


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024


# -- measuring


def measure(base: str | None, megabytes: int, turns: int) -> dict[str, dict[str, float]]:
    """Figures by harness: of ``turns`` the quickest of each, and every answer is asserted."""
    found: dict[str, dict[str, float]] = {}
    chosen = sessions()
    if not chosen:
        return found
    print("usage", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=base) as folder:
        copies = -(-megabytes * 1_000_000 // sum(map(size_of, chosen.values())))
        found[TOGETHER] = _of_many(Path(folder), chosen, copies, turns)
    for harness, own in chosen.items():
        print(f"usage of {harness}", file=sys.stderr)
        share = megabytes if harness in LARGE else max(1, megabytes // 10)
        with tempfile.TemporaryDirectory(dir=base) as folder:
            copies = -(-share * 1_000_000 // size_of(own))
            found[harness] = _of_many(Path(folder), {harness: own}, copies, turns)
    print("usage of one large file", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=base) as folder:
        size = min(megabytes, ONE_FILE_MB) * 1_000_000
        found["claude-code, one file"] = _of_one(Path(folder), "claude-code", size, turns)
    return found


def _of_many(
    folder: Path, chosen: dict[str, dict[str, dict]], copies: int, turns: int
) -> dict[str, float]:
    """Many files, as they lie: a first read, and one where nothing changed."""
    sources, wanted = [], []
    for harness, own in chosen.items():
        paths, expected = repeat(folder / harness, own, copies)
        sources += [(harness, path) for path in paths]
        wanted.append(expected)
    # What is not known of one is not known of all.
    known = {name for name in BUCKETS.values() if all(name in one for one in wanted)}
    expected = {name: sum(one[name] for one in wanted) for name in known}
    run = _Run(folder, sources)
    for _ in range(turns):
        run.state()
        run.note("loop", {})
        run.note("first", expected)
        run.note("again", expected)
    return run.figures()


def _of_one(folder: Path, harness: str, size: int, turns: int) -> dict[str, float]:
    """One long session, to which a line is appended."""
    long = {LONG: sessions()[harness][LONG]}
    paths, expected = repeat(folder, long, -(-size // size_of(long)))
    whole = folder / "whole.jsonl"
    session = _SESSION.search(Path(paths[0]).read_bytes())[0]
    with whole.open("wb") as file:
        for path in paths:
            file.write(_SESSION.sub(session, Path(path).read_bytes().rstrip(b"\n")) + b"\n")
    length, line = whole.stat().st_size, b""
    for line in Path(paths[0]).read_bytes().splitlines(keepends=True):
        if MARKERS[harness] in line:
            break
    run = _Run(folder, [(harness, str(whole))])
    for _ in range(turns):
        run.state()
        run.note("loop", {})
        run.note("first", expected)
        run.note("again", expected)
        for _ in range(APPENDS):  # a millisecond each: the quickest of a few says little
            with whole.open("ab") as file:
                file.write(line)  # it is there already: the totals stay
            run.note("appended", expected)
        os.truncate(whole, length)
    return run.figures()


class _Run:
    """The least seconds of each step, each time in a process of its own."""

    def __init__(self, folder: Path, sources: list[tuple[str, str]]) -> None:
        self._folder, self._states = folder, 0
        self._least: dict[str, float] = {"peak_mb": 0.0, "files": len(sources)}
        self._least["bytes"] = sum(os.stat(path).st_size for _, path in sources)
        (folder / "sources").write_text(json.dumps(sources))

    def state(self) -> None:
        """Begin with no state."""
        self._states += 1
        (self._folder / f"state-{self._states}").mkdir()

    def note(self, step: str, expected: dict[str, int]) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.benchmarks.usage",
                "loop" if step == "loop" else "read",
                str(self._folder / "sources"),
                str(self._folder / f"state-{self._states}"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            check=True,
        )
        found = json.loads(done.stdout)
        totals = {name: found["totals"][name] for name in expected}
        assert totals == expected, (step, totals, expected)
        self._least[step] = min(self._least.get(step, 1e9), found["seconds"])
        self._least["peak_mb"] = max(self._least["peak_mb"], found.get("peak_mb", 0.0))

    def figures(self) -> dict[str, float]:
        return self._least


# -- the page


def section(found: dict[str, dict[str, float]], command: str) -> list[str]:
    """The lines of the page's section."""
    out = ["## Usage", ""]
    if not found:
        return [*out, "Not measured: the real transcripts are not beside the checkout.", ""]
    out += [
        "Real transcripts repeated under other ids, read with the checkout's plugins and a state",
        "beside them; every total that all of them tell was asserted. *All, as they lie* has each",
        "real file as often as each other, and is what the budgets of a first and second read are",
        "for; the rows below it take each harness by itself. *Loop*: `for line in file`, a look",
        "for the marker of a usage line, `orjson.loads`, nothing else. Processor time without",
        "imports, each in a process of its own, the quickest of several turns.",
        "[What limits it](explanation/usage-speed.md).",
        "",
        "```sh",
        command,
        "```",
        "",
        f"CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end. "
        f"Budgets: first read ≥ {FIRST} × loop; an unchanged second read of 500 MB ≤ {AGAIN} × "
        f"first; a line appended to 100 MB ≤ {APPENDED} × first; peak memory ≤ {PEAK_MB:g} MB.",
        "",
        "| harness | MB | files | loop, MB/s | first read, MB/s | first : loop | second : first "
        "| appended : first | peak, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for harness, row in found.items():
        megabytes, loop, first = row["bytes"] / 1e6, row["loop"], row["first"]
        judged = harness == TOGETHER
        out.append(
            f"| {harness} | {megabytes:.0f} | {row['files']:,} | {megabytes / loop:.0f} "
            f"| {megabytes / first:.0f} "
            f"| {_cell(loop / first, form='.2f', at_least=FIRST if judged else None)} "
            f"| {_cell(row['again'] / first, AGAIN if judged else None)} "
            f"| {_cell(row['appended'] / first, APPENDED) if 'appended' in row else '–'} "
            f"| {_cell(row['peak_mb'], PEAK_MB, '.0f')} |"
        )
    slow = [harness for harness, row in found.items() if row["loop"] / row["first"] < FIRST]
    if alone := [harness for harness in slow if harness != TOGETHER]:
        out += ["", f"By themselves, less than {FIRST} of the loop: {', '.join(alone)}."]
    return [*out, ""]


def _cell(
    value: float, at_most: float | None = None, form: str = "", at_least: float | None = None
) -> str:
    shown = format(value, form or ".3f")
    missed = (at_most is not None and value > at_most) or (
        at_least is not None and value < at_least
    )
    return f"**{shown} missed**" if missed else shown


if __name__ == "__main__":
    step, listed, state = sys.argv[1:]
    sources = json.loads(Path(listed).read_text())
    print(json.dumps({"read": read, "loop": loop}[step](sources, state)))
