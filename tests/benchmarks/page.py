"""The page docs/performance.md and its plots, from one run's measurements."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from tests.benchmarks.folders import ROOT

PAGE = ROOT / "docs" / "performance.md"

BUDGETS = (
    # what, ratio of, to, budget
    ("reserve at 10 entries", lambda m: m[10]["reserve"] / m[10]["floor"], 3.5, "x floor"),
    ("heartbeat", lambda m: m[10]["heartbeat"] / m[10]["floor"], 1.5, "x floor"),
    ("release", lambda m: m[10]["release"] / m[10]["floor"], 3.0, "x floor"),
    ("reserve, 10,000 : 10", lambda m: m[10_000]["reserve"] / m[10]["reserve"], 1.3, ""),
    ("reserve among as many claims, 10,000 : 10",
     lambda m: m[10_000]["reserve, as many claims"] / m[10]["reserve, as many claims"], 1.3, ""),
    ("heartbeat, 10,000 : 10", lambda m: m[10_000]["heartbeat"] / m[10]["heartbeat"], 1.3, ""),
    ("release, 10,000 : 10", lambda m: m[10_000]["release"] / m[10]["release"], 1.3, ""),
    ("worst look-up, 10,000 : 10", lambda m: _worst_growth(m), 1.5, ""),
    ("worst look-up after a stranger", lambda m: _worst_stranger(m), 0.1, "x scan"),
    ("look-up beside a busy writer, at 10,000",
     lambda m: m[10_000]["look-up beside a writer"] / m[10_000]["look-up, nobody writes"], 3.0,
     "x alone"),
    ("load, fresh object", lambda m: m[1000]["load"] / (m[1000]["scan"] / 1000), 0.35,
     "x scan of that file"),
    ("list of 1,000, fresh process", lambda m: m[1000]["list fresh"] / m[1000]["scan"], 0.3,
     "x scan"),
    ("list of 1,000, again", lambda m: m[1000]["list again"] / m[1000]["scan"], 0.05, "x scan"),
    ("rebuild of a lost index at 10,000", lambda m: m[10_000]["rebuild"] / m[10_000]["scan"], 2.0,
     "x scan"),
    ("reserve, 100,000 : 10", lambda m: m[100_000]["reserve"] / m[10]["reserve"], 1.5, ""),
)  # fmt: skip
GAINS = (("100", 100, 1.5), ("1,000", 1000, 10.0), ("10,000", 10_000, 100.0))
COMMAND_BUDGETS = {
    "heartbeat": 2, "why": 6, "reserve": 6, "relay": 6, "list, plain": 9, "list, for people": 12,
}  # fmt: skip


def _look_ups(row, who):
    return [name for name in row if name.startswith("by ") and name.endswith(who)]


def _worst_growth(m):
    return max(m[10_000][name] / m[10][name] for name in _look_ups(m[10], "ours"))


def _worst_stranger(m):
    return max(m[10_000][name] / m[10_000]["scan"] for name in _look_ups(m[10], "stranger"))


def _verdict(value: float, budget: float) -> str:
    return "met" if value <= budget else "**missed**"


def write(command: str, media, commands, contention, plots: bool) -> None:
    """Write the page. ``media`` is medium -> size -> operation -> seconds."""
    out = [
        "# Performance",
        "",
        "What an operation costs, as ratios within one run on one disk, beside the budgets of the",
        "design. Every answer was asserted as well as timed, and before each sample another",
        "process changed a random entry. Written by the benchmark itself; do not edit.",
        "",
        "```sh",
        command,
        "```",
        "",
        f"Machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}; load {os.getloadavg()[0]:.1f} at the end.",
        "",
        "*Floor*: the least calls that make one file of 1.5 KB durable under a lock.",
        "*Scan*: open, read and parse every file, as the original does for every question.",
        "",
    ]
    for medium, sizes in media.items():
        out += [f"## Budgets, {medium}", "", "| what | seen | budget | |", "|---|---|---|---|"]
        for what, ratio, budget, unit in BUDGETS:
            if unit == "x floor" and medium != "on disk":
                continue  # in memory there is nothing to wait for: the floor is nearly nothing
            try:
                value = ratio(sizes)
            except KeyError:
                continue
            out.append(
                f"| {what} | {value:.2f} {unit} | {budget:g} {unit} | {_verdict(value, budget)} |"
            )
        for label, size, wanted in GAINS:
            if size in sizes:
                row = sizes[size]
                # The original scans for each of the two, and makes one file durable.
                original = 2 * (row["scan"] + row["floor"])
                gain = original / (row["reserve"] + row["release"])
                met = "met" if gain >= wanted else "**missed**"
                out.append(
                    f"| reserve + release at {label}, against the original's way"
                    f" | {gain:.1f} x faster | {wanted:g} x | {met} |"
                )
        out += ["", f"### Milliseconds, {medium}", ""]
        names = list(dict.fromkeys(name for row in sizes.values() for name in row))
        out.append("| operation | " + " | ".join(f"{size:,}" for size in sizes) + " |")
        out.append("|---|" + "---|" * len(sizes))
        for name in names:
            cells = [f"{row[name] * 1000:.3f}" if name in row else "–" for row in sizes.values()]
            out.append(f"| {name} | " + " | ".join(cells) + " |")
        out.append("")
    bare = commands["bare"]
    out += [
        "## Commands at 1,000 entries",
        "",
        f"Processor time of the child, against a bare `python -I -c pass` ({bare * 1000:.1f} ms).",
        "",
        "| command | ms | x bare | budget | |",
        "|---|---|---|---|---|",
    ]
    for name, value in commands.items():
        if name == "import attrs":
            out.append(f"| `import attrs` alone | {value * 1000:.1f} | {value / bare:.1f} | | |")
        elif name != "bare":
            budget = COMMAND_BUDGETS[name]
            out.append(
                f"| {name} | {value * 1000:.1f} | {value / bare:.1f} | {budget} "
                f"| {_verdict(value / bare, budget)} |"
            )
    out += [
        "",
        "## Several processes",
        "",
        "Reserve and release as often as possible; on one branch each waits in line for its turn.",
        "Shares are of a fair share; 1.00 is fair.",
        "",
        "| processes | branches | per second | luckiest | unluckiest | worst wait, ms |",
        "|---|---|---|---|---|---|",
    ]
    for (processes, kind), row in contention.items():
        out.append(
            f"| {processes} | {kind} | {row['rate']:.0f} | {row['luckiest']:.2f} "
            f"| {row['unluckiest']:.2f} | {row['worst wait'] * 1000:.0f} |"
        )
    if (8, "distinct") in contention and (1, "distinct") in contention:
        together = contention[(8, "distinct")]["rate"] / contention[(1, "distinct")]["rate"]
        least = contention[(8, "distinct")]["unluckiest"]
        out += [
            "",
            f"8 processes on distinct branches do {together:.0%} of one process's rate "
            f"(budget 70 %: {'met' if together >= 0.7 else '**missed**'}); the unluckiest gets "
            f"{least:.2f} of its fair share (budget 0.33: "
            f"{'met' if least >= 1 / 3 else '**missed**'}).",
        ]
    if plots:
        out += ["", "![Operations by size](performance.svg)", ""]
        _plot(media, PAGE.with_suffix(".svg"))
    PAGE.write_text("\n".join(out) + "\n", encoding="utf-8")
    print(f"written: {PAGE}", file=sys.stderr)


def write_section(section: list[str]) -> None:
    """Put a section at the page's end, in the place of the one that was there."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Performance\n"
    before, found, after = text.partition(section[0] + "\n")
    following = after.find("\n## ") if found else -1
    rest = after[following + 1 :] if following >= 0 else ""
    text = "\n".join([before.rstrip("\n"), "", *section]) + ("\n" + rest if rest else "")
    PAGE.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(f"written: {PAGE}", file=sys.stderr)


def _plot(media, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(media), figsize=(6 * len(media), 4), squeeze=False)
    for axis, (medium, sizes) in zip(axes[0], media.items(), strict=True):
        for name in ("scan", "reserve", "release", "heartbeat", "by native actor, ours",
                     "by native actor, stranger", "load", "floor"):  # fmt: skip
            points = [(size, row[name] * 1000) for size, row in sizes.items() if name in row]
            style = "k--" if name in ("scan", "floor") else "o-"
            axis.plot(*zip(*points, strict=True), style, label=name)
        axis.set(xscale="log", yscale="log", xlabel="entries", ylabel="ms", title=medium)
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    figure.savefig(path.with_suffix(".png"), dpi=110)
