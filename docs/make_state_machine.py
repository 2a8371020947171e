# ruff: noqa: INP001
"""Write ``docs/explanation/state-machine.md`` from the two tables and the exploration's numbers.

``--check`` writes nothing and exits 1 when the page's pictures, tables or text are stale. It
takes the numbers from the page: the exploration itself is a test, which compares them.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from heddle_registry.core.claim import (  # noqa: E402
    CLAIM_TRANSITIONS,
    ClaimEvent,
    ClaimState,
    ClaimStep,
    Fence,
)
from heddle_registry.core.lifecycle import TRANSITIONS, AgentStatus, EntryEvent  # noqa: E402

PAGE = ROOT / "docs" / "explanation" / "state-machine.md"
ROW = re.compile(r"^\| (one branch|two branches) \|.*$", re.MULTILINE)

TEXT = """\
# The two state machines

<!-- Written by docs/make_state_machine.py. Change the tables in heddle_registry/core, or the text
in that script, and run it again. -->

An **entry** says who is here. A **claim** says who may write to a branch. Each has one table; every
change of a status or a claim, by whichever door, is a look-up in it, and a pair that is missing is
refused and changes nothing.

## Entries

{entry_diagram}

{entry_table}

Nothing leads back to Active: a resumed agent gets a new entry that names the old one. The first
`completed_at` stays. An entry that ended seven days ago may be pruned. The table holds for what
this program writes; a file of another program is loaded as it is.

## Claims

What is stored is only who was granted the claim, under which fence. The state is derived each time,
from the clock, the holder's entry and the verdict on its process.

{claim_diagram}

{claim_table}

* `reserve` by the bearer of a held claim gives the same entry and the same fence again.
* An expired claim is not renewed while another valid claim names its folder.
* A lost claim is one whose entry a program that knows no claims has ended or removed while the
  holder may still write. It becomes free when its process is proven dead and its TTL, if it has
  one, has passed.

## Explored to the end

`tests/core/exploration.py` walks every reachable state, by breadth first, and runs the real
decisions at each step. The steps are: reserve (by owner or TTL; with or without a folder; as one
that continues an ended entry), force, renew, release as complete, merged or abandoned, hand
over to a process or to a TTL, attach, the doors that ask for no token (`update_status`, `delete`),
`gc` and `gc --expired`, pruning, death of an agent, a TTL that passes, a week that passes, and a
program that knows no claims: it rewrites, ends or removes any entry. Every operation may also end
by a crash between any two of its writes.

In every state and at every step it must hold that:

* at most one living agent may write to a branch, and at most one to a folder. This is not read off
  the records: the walk remembers who was told "granted" or "renewed" and nothing else since.
* a claim's fence never goes back, and none is granted twice;
* an entry is never removed while a claim names it as holder: it is what tells how the claim ended;
* no entry goes backward, none is born ended, and `completed_at` is set exactly when it has ended;
* a living owner is never reaped, and nobody is deprived of a claim without being told, but by force
  and by the doors that ask for no token;
* a fence or token that was released, lost, superseded, or whose owner died, is never accepted
  again by `renew`, `check` or a hand-over, and a good one always is by `renew` and `check`;
* a refused request writes nothing, but to record a loss or a death that it has just told.

| what | how large | states | transitions |
|---|---|---|---|
{one_branch}
{two_branches}

Both run to the end, in every test run, and must reproduce these numbers. States that differ only by
the names of agents, branches or folders count once.

**One branch** has everything: claims by owner and by TTL, presences, the debris of crashes, and
strangers. Beside it stands another branch in any reachable shape that names the same folder. A step
asks of such a neighbour only how it stands (free, held, expired, lost), and every pair of branches,
however its two histories are interleaved, consists of two of these shapes; that no step of either
may lead to two writers in one folder is checked for each pair of shapes. So this walk covers all
states of three agents, two branches and two worktrees, and some that cannot be reached.

**Two branches** is the product itself, so that nothing rests on that argument alone: three agents,
two branches, two folders, claims by owner, no presences, and no orphans of a crash.

What is bounded: of the entries that lie beside a holder's, one (two in the nightly run) is added by
attaching or a crash before somebody tidies up, and of those one is the orphan of a crash. Time is
not bounded: a TTL is running or over, an ended entry kept or stale. Fences are not bounded either:
a state knows which are below, equal to or above the claim's. The nightly run adds claims that have
an owner and a TTL at once, and the product with claims by TTL and claims that name no folder. All
observers are on one host and see the truth; what they may conclude from less is the subject of the
evidence table.

The walk is itself tested: for each promise a bug is planted, from a reused fence to a claim that is
written in two steps, and must be found, with the path that leads to it.
"""


def entry_diagram() -> str:
    """Return the entries' machine as a Mermaid block."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> active"]
    for status, row in TRANSITIONS.items():
        for event, to in row.items():
            lines.append(f"    {status.value} --> {to.value}: {event.value}")
    ends = [status for status in TRANSITIONS if status is not AgentStatus.ACTIVE]
    lines += [f"    {status.value} --> [*]: pruned" for status in ends]
    return "\n".join([*lines, "```"])


def entry_table() -> str:
    """Return the entries' table, refused pairs spelt out."""
    lines = [
        "| from | " + " | ".join(event.value for event in EntryEvent) + " |",
        "|---|" + "---|" * len(EntryEvent),
    ]
    for status in AgentStatus:
        cells = [TRANSITIONS[status].get(event) for event in EntryEvent]
        shown = [
            "refused" if to is None else "unchanged" if to is status else to.value for to in cells
        ]
        lines.append(f"| {status.value} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def claim_diagram() -> str:
    """Return the claims' machine as a Mermaid block."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> none"]
    for state, row in CLAIM_TRANSITIONS.items():
        for event, step in row.items():
            raised = ", fence + 1" if step.fence is Fence.RAISED else ""
            lines.append(f"    {state.value} --> {step.to.value}: {event.value}{raised}")
    lines.append("    held --> lost: a stranger ends the entry")
    lines.append("    expired --> lost: a stranger ends the entry")
    return "\n".join([*lines, "```"])


def _claim_cell(event: ClaimEvent, step: ClaimStep | None) -> str:
    if step is None:
        # Time and death are no requests that anybody could refuse.
        return "" if event in (ClaimEvent.TTL_PASSES, ClaimEvent.HOLDER_DIES) else "refused"
    parts = [step.to.value]
    if step.fence is Fence.RAISED:
        parts.append("fence + 1")
    if step.ends_as is not None:
        parts.append(f"old entry {step.ends_as.value}")
    return ", ".join(parts)


def claim_table() -> str:
    """Return the claims' table, with fences and ended entries."""
    lines = [
        "| from | " + " | ".join(event.value for event in ClaimEvent) + " |",
        "|---|" + "---|" * len(ClaimEvent),
    ]
    for state in ClaimState:
        cells = [_claim_cell(event, CLAIM_TRANSITIONS[state].get(event)) for event in ClaimEvent]
        lines.append(f"| {state.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def explored() -> dict[str, str]:
    """Run both explorations; takes about a minute."""
    from tests.core.exploration import CI_PAIRS, CI_WALK, Walk
    from tests.core.exploration_pairs import PairWalk
    from tests.core.exploration_steps import Steps

    one = Walk(Steps(**CI_WALK)).run()
    two = PairWalk(Steps(**CI_PAIRS)).run()
    return {
        "one branch": f"| one branch | 3 agents, and a neighbour in any shape "
        f"| {one.states:,} | {one.transitions:,} |",
        "two branches": f"| two branches | 3 agents, 2 branches, 2 folders "
        f"| {two.states:,} | {two.transitions:,} |",
    }


def page(rows: dict[str, str]) -> str:
    """Return the whole page."""
    return TEXT.format(
        entry_diagram=entry_diagram(),
        entry_table=entry_table(),
        claim_diagram=claim_diagram(),
        claim_table=claim_table(),
        one_branch=rows.get("one branch", ""),
        two_branches=rows.get("two branches", ""),
    )


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the page is stale")
    if not parser.parse_args().check:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(explored()), encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = {found[1]: found[0] for found in ROW.finditer(old)}
    if old == page(rows) and len(rows) == 2:  # noqa: PLR2004
        return 0
    print(f"{PAGE.relative_to(ROOT)} is stale: run docs/make_state_machine.py", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
