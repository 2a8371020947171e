"""``list``: who is here, on which branch, since when, doing what."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.overview import Overview, SeenEntry
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.running_harnesses import Unregistered

_HEADER = ("BRANCH", "WHO", "STATE", "SINCE", "SESSION", "TASK")
_MOST = 60
_STYLES = {"alive": "", "dead": "red", "unknown": "yellow", "ended": "dim"}
_PERSON = "human"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import folder

    parser.add_argument(
        "--tree", action="store_true", help="who is whose child, from the human down"
    )
    parser.add_argument("--all", action="store_true", help="ended sessions too, however old")
    parser.add_argument(
        "--alive-only", action="store_true", help="only whose process is seen alive"
    )
    parser.add_argument("--thread", metavar="BRANCH", help="only on that branch")
    parser.add_argument(
        "--status",
        choices=("active", "complete", "merged", "abandoned"),
        help="only in that status",
    )
    parser.add_argument("--harness", metavar="H", help="only of that harness")
    parser.add_argument(
        "--key", metavar="KEY", help="only with that native key, client instance or heddle session"
    )
    parser.add_argument("--path", metavar="DIR", type=folder, help="only in that folder")


def run(args: argparse.Namespace) -> int:
    """List and return 0: files that are no records are reported, and are no failure."""
    import os

    from heddle_registry.cli.context import open_registry
    from heddle_registry.core.limits import check_thread
    from heddle_registry.overview import overview
    from heddle_registry.ports.query import Query

    registry = open_registry(args)
    query = Query(
        thread=check_thread(args.thread) if args.thread is not None else None,
        active_only=not args.all and args.status in (None, "active"),
        any_key=args.key,
        path=os.path.realpath(args.path) if args.path is not None else None,
        include_stale=args.all,
        thorough=True,
    )

    def is_wanted(entry: AgentEntry) -> bool:
        return (args.status is None or entry.status.value == args.status) and (
            args.harness is None or entry.harness == args.harness
        )

    found = overview(registry, query, is_wanted)
    seen = [row for row in found.entries if not args.alive_only or row.verdict.is_alive]
    others = _unregistered(args, registry)
    if args.json:
        _print_json(found, seen, others, tree=args.tree)
    else:
        _print_text(found, seen, others, tree=args.tree)
    return 0


def _unregistered(args: argparse.Namespace, registry: AgentRegistry) -> Sequence[Unregistered]:
    # They have no branch, key or status yet: who asks for one of these does not ask for them.
    if any((args.thread, args.key, args.path, args.status not in (None, "active"))):
        return ()
    from heddle_registry.settings import load_settings
    from heddle_registry.unregistered import unregistered_harnesses

    heddle_dir: str = getattr(registry.store, "heddle_dir", "")
    settings = load_settings(heddle_dir)
    if settings is not None and settings.detection is False:
        return ()
    return [
        found
        for found in unregistered_harnesses(registry, heddle_dir)
        if args.harness in (None, found.harness)
    ]


def _print_json(
    found: Overview, seen: list[SeenEntry], others: Sequence[Unregistered], *, tree: bool
) -> None:
    from heddle_registry.cli.answers import claim_json, judged_entry_json
    from heddle_registry.cli.output import print_json

    entries: list[dict[str, Any]] = []
    for row, depth, parent, is_orphan in _in_tree(seen) if tree else _flat(seen):
        answer = {
            **judged_entry_json(row.entry, row.verdict),
            "claim": claim_json(row.standing),
        }
        if tree:
            answer |= {"depth": depth, "parent": parent, "is_orphan": is_orphan}
        entries.append(answer)
    print_json(
        {
            "entries": entries,
            "unregistered": [
                {
                    "harness": other.harness,
                    "pid": other.pid,
                    "cwd": other.cwd,
                    "native_actor_key": other.native_actor_key,
                    "since": other.since.text if other.since is not None else None,
                    "evidence": list(other.evidence),
                    "confidence": other.confidence,
                }
                for other in others
            ],
            "problems": [
                {"path": p.path, "code": p.code, "message": p.message} for p in found.problems
            ],
        }
    )


def _flat(seen: list[SeenEntry]) -> Sequence[tuple[SeenEntry, int, str | None, bool]]:
    return [(row, 0, None, False) for row in seen]


def _in_tree(seen: list[SeenEntry]) -> Sequence[tuple[SeenEntry, int, str | None, bool]]:
    # Each row with its depth below the human, its parent's session id, and whether it names a
    # parent that is not there.
    from heddle_registry.core.tree import actor_tree

    rows = {row.entry.session_id: row for row in seen}
    forest = actor_tree(
        [row.entry for row in seen], lambda entry: rows[entry.session_id].verdict.is_alive
    )
    ordered = []
    stack = [(node, 0, None) for node in reversed(forest)]
    while stack:
        node, depth, parent = stack.pop()
        ordered.append((rows[node.entry.session_id], depth, parent, node.is_orphan))
        stack += [
            (child, depth + 1, node.entry.session_id)  # type: ignore[misc]
            for child in reversed(node.children)
        ]
    return ordered


def who(entry: AgentEntry) -> str:
    """Return harness and model as far as they are known, for people."""
    named = "/".join(part for part in (entry.harness, entry.model) if part)
    if not named and entry.owner is not None and entry.owner.command:
        named = f"({entry.owner.command})"
    return named or "-"


def state(row: SeenEntry) -> str:
    """Return what is known of an entry in two words: alive, and holding or only present."""
    if not row.entry.is_active:
        return f"ended ({row.entry.status.value})"
    claim = row.standing.state.value if row.standing is not None else "none"
    return f"{row.verdict.kind.value}, {'present' if claim == 'none' else claim}"


def _task(entry: AgentEntry) -> str:
    # A reservation's reason is what it was made for; attaching writes why it attached.
    is_task = entry.fence is not None or not entry.attach_precedence
    return (entry.attach_reason if is_task else None) or entry.task_assignment_id or ""


def _print_text(
    found: Overview, seen: list[SeenEntry], others: Sequence[Unregistered], *, tree: bool
) -> None:
    from heddle_registry.cli.text import ago, clean, clip, print_table

    ordered = _in_tree(seen) if tree else _flat(seen)
    now_ns = found.now.at.unix_ns
    rows, styles = [], []
    for row, depth, _, is_orphan in ordered:
        entry = row.entry
        indent = f"{'  ' * min(depth, 20)}- " if tree else ""
        orphan = " (its parent is gone)" if is_orphan else ""
        rows.append(
            (
                indent + clip(entry.thread, _MOST),
                clip(who(entry), _MOST),
                clip(state(row) + orphan, _MOST),
                ago(entry.started_at.unix_ns, now_ns),
                clip(entry.session_id, _MOST),
                clip(_task(entry), _MOST),
            )
        )
        styles.append(_STYLES[row.verdict.kind.value if entry.is_active else "ended"])
    if not rows and not others:
        print("nobody is here")
    elif rows:
        if tree:
            print(_PERSON)
        print_table(_HEADER, rows, styles)
    if others:
        gap = "\n" if rows else ""
        print(f"{gap}unregistered, running here (`install` wires a harness):")
        for other in others:
            since = ago(other.since.unix_ns, now_ns) if other.since is not None else "?"
            told = f"{other.harness}  process {other.pid}  {since}  {other.cwd}"
            print(f"  {clean(told)}  {clean(other.native_actor_key or '')}".rstrip())
    if found.problems:
        print("\nproblems (`doctor` says what would mend them):")
        for problem in found.problems:
            print(f"  {clean(problem.message)}")
