"""``release``: end a session and its claim, or hand the claim over."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import add_token_options, ttl_s, whole_number

    parser.add_argument(
        "id", metavar="ID", nargs="?", help="the session (default: HEDDLE_AGENT_SESSION_ID)"
    )
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--status",
        choices=("complete", "merged", "abandoned"),
        help="how it ended (default: complete)",
    )
    end.add_argument(
        "--to-pid", metavar="PID", type=whole_number, help="hand the claim over to that process"
    )
    end.add_argument("--to-ttl", metavar="S", type=ttl_s, help="hand the claim over to a TTL")
    add_token_options(parser)


def run(args: argparse.Namespace) -> int:
    """Release or hand over, and return 0."""
    from heddle_registry.cli.arguments import from_variable, shown_token
    from heddle_registry.cli.context import open_registry

    session_id = from_variable(args.id, "HEDDLE_AGENT_SESSION_ID", "the session id")
    token = shown_token(args)
    registry = open_registry(args)
    if args.to_pid is not None or args.to_ttl is not None:
        from heddle_registry.cli.reserve import report_reserved

        handed = registry.hand_over(session_id, token, to_pid=args.to_pid, to_ttl_s=args.to_ttl)
        report_reserved(args, registry, handed)
        return 0
    entry = registry.release(session_id, args.status or "complete", token=token)
    if args.json:
        from heddle_registry.cli.answers import entry_json
        from heddle_registry.cli.output import print_json

        print_json({"entry": entry_json(entry)})
    else:
        from heddle_registry.cli.output import print_answer
        from heddle_registry.cli.text import clean

        print_answer(f"{entry.session_id} is {entry.status.value}; {clean(entry.thread)} is let go")
    return 0
