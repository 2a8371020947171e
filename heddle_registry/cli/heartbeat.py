"""``heartbeat``: renew a claim."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import add_token_options

    parser.add_argument(
        "id", metavar="ID", nargs="?", help="the session (default: HEDDLE_AGENT_SESSION_ID)"
    )
    add_token_options(parser)


def run(args: argparse.Namespace) -> int:
    """Renew and return 0; a lost claim is an error that says who took it."""
    from heddle_registry.cli.arguments import from_variable, shown_token
    from heddle_registry.cli.context import open_registry
    from heddle_registry.cli.output import print_answer, print_json

    session_id = from_variable(args.id, "HEDDLE_AGENT_SESSION_ID", "the session id")
    renewed = open_registry(args).heartbeat(session_id, shown_token(args))
    if args.json:
        from heddle_registry.cli.answers import entry_json

        print_json(
            {
                "entry": entry_json(renewed.entry),
                "fence": renewed.fence,
                "renew_within_s": renewed.renew_within_s,
            }
        )
    elif renewed.renew_within_s is not None:
        print_answer(f"renewed; again within {renewed.renew_within_s:g} s")
    else:
        print_answer("noted")
    return 0
