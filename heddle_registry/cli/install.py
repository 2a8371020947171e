"""``install HARNESS`` and ``install git``: wire what starts agents, and take the wires out."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from heddle_registry.install.plan import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "target",
        metavar="HARNESS",
        help="claude-code, codex, gemini-cli, qwen-code, copilot-cli, opencode; or git: the guard",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would change, as a diff"
    )
    parser.add_argument("--remove", action="store_true", help="take it out again")
    parser.add_argument(
        "--project", action="store_true", help="this repository's settings, not the user's"
    )


def run(args: argparse.Namespace) -> int:
    """Show the change, then make it. Twice is once."""
    from heddle_registry.install.change import apply

    plan = _plan(args)
    diff = plan.diff()
    if not args.json:
        _show(diff)
    if not args.dry_run:
        apply(plan.changes)
    _tell(args, plan, diff)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    from heddle_registry.errors import UsageError

    if args.target == "git":
        if args.project:
            raise UsageError("--project is for harnesses", "The guard is always a repository's own")
        from heddle_registry.install.git_hooks import plan_git

        return plan_git(os.getcwd(), registry=args.heddle_dir, remove=args.remove)
    from heddle_registry.install.plan import plan_harness

    return plan_harness(
        args.target,
        environ=os.environ,
        home=os.path.expanduser("~"),
        project_root=_project_root() if args.project else None,
        registry=args.heddle_dir,
        remove=args.remove,
    )


def _project_root() -> str:
    from heddle_registry.adapters.location import find_worktree
    from heddle_registry.errors import UsageError

    worktree = find_worktree(os.getcwd())
    if worktree is None:
        raise UsageError("--project needs a git repository", "Change into one")
    return worktree.root


def _show(diff: str) -> None:
    from heddle_registry.cli.text import clean

    for line in diff.splitlines():
        print(clean(line.replace("\t", "    ")))


def _tell(args: argparse.Namespace, plan: Plan, diff: str) -> None:
    done = not args.dry_run
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json(
            {
                "target": plan.target,
                "files": [change.path for change in plan.changes],
                "changed": plan.is_change and done,
                "diff": diff,
                "notes": list(plan.notes),
            }
        )
        return
    from heddle_registry.cli.output import print_answer
    from heddle_registry.cli.text import clean

    if not plan.is_change:
        said = f"{plan.target} is not wired" if args.remove else f"{plan.target} is wired already"
    elif not done:
        said = "nothing was changed"
    else:
        said = f"{plan.target} is {'no longer' if args.remove else 'now'} wired"
    print_answer(said)
    if plan.is_change:
        for note in plan.notes:
            print_answer(clean(note))
