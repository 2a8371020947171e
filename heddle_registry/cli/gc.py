"""``gc``: reap on proof of death, prune the stale, remove what is left over."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "--expired", action="store_true", help="also end holders whose TTL has passed"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, change nothing")


def run(args: argparse.Namespace) -> int:
    """Clean up and return 0."""
    from heddle_registry.cli.context import open_registry

    registry = open_registry(args)
    swept = registry.sweep(end_expired=args.expired, dry_run=args.dry_run)
    removed = registry.store.tidy(dry_run=args.dry_run)
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json(
            {
                "dry_run": args.dry_run,
                "reaped": list(swept.reaped),
                "pruned": list(swept.pruned),
                "kept": [{"session_id": who, "evidence": code} for who, code in swept.kept],
                "ended_claims": list(swept.ended_claims),
                "removed": list(removed),
            }
        )
        return 0
    from heddle_registry.cli.text import clean

    would = "would be " if args.dry_run else ""
    for names, what in (
        (swept.reaped, "reaped (its owner is dead, or its claim over)"),
        (swept.pruned, "pruned (it ended 7 days ago or earlier)"),
        (swept.ended_claims, "freed (whoever held the branch had ended)"),
        (removed, "removed (left over)"),
    ):
        for name in names:
            print(f"{would}{what}: {clean(name)}")
    for session_id, code in swept.kept:
        print(f"kept: {clean(session_id)} ({clean(code)})")
    if not (swept.reaped or swept.pruned or swept.ended_claims or removed or swept.kept):
        print("nothing to do")
    return 0
