"""``python -m tests.benchmarks``: every operation at 10 to 100,000 entries, as ratios."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import commands, contention, operations, page, usage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--sizes", default="10,100,1000,10000,100000")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--disk", default=None, help="a folder on the disk to measure")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory")
    parser.add_argument("--processes", default="1,2,4,8,16")
    parser.add_argument("--span", type=float, default=3.0, help="seconds of each contention run")
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--only", choices=["usage"], help="measure and write one section alone")
    parser.add_argument("--usage-mb", type=int, default=500, help="transcripts of a large harness")
    args = parser.parse_args()
    words = [word for word in sys.argv[1:] if not word.startswith("/")]
    command = " ".join(["python -m tests.benchmarks", *words])
    if args.only == "usage":
        page.write_section(usage.section(usage.measure(args.disk, args.usage_mb, 5), command))
        return 0
    sizes = [int(word) for word in args.sizes.split(",")]
    media: dict[str, dict[int, dict[str, float]]] = {}
    for medium, folder in (("on disk", args.disk), ("in memory", args.memory)):
        if medium == "in memory" and not Path(folder).is_dir():
            continue
        base = Path(tempfile.mkdtemp(dir=folder))
        try:
            media[medium] = {}
            for size in sizes:
                print(f"{medium}: {size:,} entries", file=sys.stderr)
                media[medium][size] = operations.measure(base, size, args.samples)
        finally:
            shutil.rmtree(base)
    base = Path(tempfile.mkdtemp(dir=args.disk))
    try:
        print("commands", file=sys.stderr)
        whole = commands.measure(base, max(7, args.samples // 3))
        crowd = {}
        for count in map(int, args.processes.split(",")):
            for one_branch in (False, True):
                kind = "one" if one_branch else "distinct"
                print(f"{count} processes, {kind}", file=sys.stderr)
                crowd[(count, kind)] = contention.measure(
                    base, count, one_branch=one_branch, span_s=args.span
                )
    finally:
        shutil.rmtree(base)
    page.write(command, media, whole, crowd, plots=not args.no_plots)
    page.write_section(usage.section(usage.measure(args.disk, args.usage_mb, 5), command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
