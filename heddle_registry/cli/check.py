"""``check``: whether a fence still holds, for whatever guards a resource."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import add_token_options, whole_number

    parser.add_argument(
        "branch", metavar="BRANCH", nargs="?", help="the branch (default: HEDDLE_THREAD)"
    )
    parser.add_argument(
        "--fence",
        metavar="N",
        type=whole_number,
        help="the fence (default: HEDDLE_AGENT_FENCE; without either, a token is judged)",
    )
    add_token_options(parser)


def run(args: argparse.Namespace) -> int:
    """Return 0 where the fence holds, 11 where it does not."""
    from heddle_registry.cli.arguments import from_variable, shown_token
    from heddle_registry.cli.context import open_registry
    from heddle_registry.errors import ClaimLost, UsageError

    thread = from_variable(args.branch, "HEDDLE_THREAD", "the branch")
    fence = args.fence if args.fence is not None else _fence_variable()
    told = args.token is not None or args.token_file is not None
    # The variable's token says nothing that the fence does not, and may be for another branch.
    token = shown_token(args) if told or fence is None else None
    if fence is None and token is None:
        raise UsageError(
            "a fence is missing",
            "Give --fence N, or show the claim's token, or set HEDDLE_AGENT_FENCE",
        )
    answer = open_registry(args).check(thread, fence, token=token)
    lost = ClaimLost(thread, by=answer.holder or "", why=answer.why)
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json(
            {
                "valid": answer.valid,
                "fence": answer.fence,
                "holder": answer.holder,
                "why": answer.why,
            }
        )
        return 0 if answer.valid else lost.exit_code
    if not answer.valid:
        raise lost
    from heddle_registry.cli.output import print_answer
    from heddle_registry.cli.text import clean

    print_answer(f"fence {answer.fence} on {clean(thread)} is good: {clean(answer.why)}")
    return 0


def _fence_variable() -> int | None:
    import os

    text = os.environ.get("HEDDLE_AGENT_FENCE")
    if not text:
        return None
    from argparse import ArgumentTypeError

    from heddle_registry.cli.arguments import whole_number
    from heddle_registry.errors import UsageError

    try:
        return whole_number(text)
    except ArgumentTypeError as error:
        raise UsageError(f"HEDDLE_AGENT_FENCE: {error}") from None
