"""``attach``: where this process belongs, and why. Presence, never a claim."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from heddle_registry.codec.config import Settings
    from heddle_registry.core.attach import AttachDecision, AttachRule
    from heddle_registry.plugins import Plugins
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.registry.attaching import AttachWish
    from heddle_registry.registry.rehearsal import Rehearsed
    from heddle_registry.surroundings import Situation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import add_token_options, folder
    from heddle_registry.cli.situations import add_hook_options

    parser.add_argument(
        "--thread",
        metavar="BRANCH",
        help="the branch of a new entry (default: HEDDLE_THREAD, else the one checked out here)",
    )
    parser.add_argument(
        "--client-instance", metavar="ID", help="the client's own id, stronger than a native key"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be, change nothing")
    parser.add_argument(
        "--input",
        metavar="FILE",
        type=folder,
        nargs="+",
        help="attach a recorded situation, not this one; several only with --dry-run",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        type=folder,
        help="with --dry-run: a config file whose attach rules are tried instead of those in force",
    )
    parser.add_argument(
        "--record", metavar="FILE", type=folder, help="write the situation down, without secrets"
    )
    add_hook_options(parser)
    add_token_options(parser, variable=False)


def run(args: argparse.Namespace) -> int:
    """Attach, say where and why, and return 0; others on the branch are no failure."""
    from heddle_registry.cli.arguments import shown_token
    from heddle_registry.cli.context import open_registry
    from heddle_registry.cli.situations import (
        as_switched,
        present_situation,
        read_recording,
        write_recording,
    )
    from heddle_registry.core.limits import check_thread
    from heddle_registry.errors import UsageError
    from heddle_registry.registry.attaching import AttachWish, attach_situation, rules_in_force
    from heddle_registry.settings import load_settings
    from heddle_registry.surroundings import plugins_here

    if not args.dry_run and (args.rules is not None or (args.input and len(args.input) > 1)):
        raise UsageError("several recordings, and --rules, are for --dry-run only")
    registry = open_registry(args)
    settings = load_settings(getattr(registry.store, "heddle_dir", ""))
    plugins = plugins_here(registry.host, settings)
    wish = AttachWish(
        thread=check_thread(args.thread) if args.thread is not None else None,
        client_instance_id=args.client_instance,
        token=shown_token(args, variable=False),
    )
    if args.input is None:
        situations = [present_situation(registry.host, args)]
    else:
        situations = [read_recording(path) for path in args.input]
    situations = [as_switched(situation, settings) for situation in situations]
    if args.record is not None:
        write_recording(args.record, situations[0], plugins)
    if args.dry_run and (len(situations) > 1 or args.rules is not None):
        cases = _rehearsed(args, registry, situations, plugins, wish, settings)
        _tell_cases(args, cases)
        return 0
    rules = rules_in_force(settings, plugins)
    decision = attach_situation(
        registry, situations[0], plugins, wish, rules=rules, dry_run=args.dry_run
    )
    _tell(args, decision)
    return 0


def _rehearsed(
    args: argparse.Namespace,
    registry: AgentRegistry,
    situations: Sequence[Situation],
    plugins: Plugins,
    wish: AttachWish,
    settings: Settings | None,
) -> list[Rehearsed]:
    # Rules that are tried are compared with those in force, those in force with the built-in ones.
    from heddle_registry.core.attach import ATTACH_RULES
    from heddle_registry.registry.attaching import rules_in_force
    from heddle_registry.registry.rehearsal import rehearse

    before: Sequence[AttachRule] = ATTACH_RULES
    after = rules_in_force(settings, plugins)
    if args.rules is not None:
        before, after = after, rules_in_force(_rules_in(args.rules), plugins)
    return rehearse(registry, situations, plugins, wish, before=before, after=after)


def _rules_in(path: str) -> Settings:
    from heddle_registry.codec.config import settings_from_toml
    from heddle_registry.errors import UsageError

    try:
        with open(path, "rb") as file:
            return settings_from_toml(file.read(1_048_576), path)
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read ({error.strerror})") from None


def _json(decision: AttachDecision) -> dict[str, Any]:
    from heddle_registry.cli.answers import entry_json

    return {
        "entry": entry_json(decision.entry),
        "created": decision.created,
        "rule": decision.rule,
        "reason": decision.reason,
        "precedence": list(decision.precedence),
        "present": [entry_json(entry) for entry in decision.present],
        "held_by": decision.held_by.session_id if decision.held_by is not None else None,
    }


def _tell(args: argparse.Namespace, decision: AttachDecision) -> None:
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json({**_json(decision), "dry_run": args.dry_run})
        return
    from heddle_registry.cli.list import who
    from heddle_registry.cli.text import clean

    done = ("would be made" if args.dry_run else "is new") if decision.created else "was there"
    named = "a new entry" if decision.created and args.dry_run else decision.entry.session_id
    print(clean(f"{named} on {decision.entry.thread} ({who(decision.entry)}) {done}"))
    print(clean(f"  rule      {decision.rule}: {decision.reason}"))
    for line in decision.precedence:
        print(clean(f"  asked     {line}"))
    for entry in decision.present:
        is_holder = decision.held_by is not None and decision.held_by == entry
        there = "holds the branch" if is_holder else "is on the branch too"
        print(clean(f"  {entry.session_id} ({who(entry)}) {there}"))


def _tell_cases(args: argparse.Namespace, cases: Sequence[Rehearsed]) -> None:
    paths = args.input or ["this process"]
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json(
            {
                "cases": [
                    {
                        "input": path,
                        **_json(case.after),
                        "before": _json(case.before),
                        "changed": case.changed,
                    }
                    for path, case in zip(paths, cases, strict=True)
                ],
                "dry_run": True,
            }
        )
        return
    from heddle_registry.cli.text import clean

    for path, case in zip(paths, cases, strict=True):
        print(clean(f"{'changed ' if case.changed else 'the same'}  {path}"))
        if case.changed:
            print(clean(f"          before  {_summary(case.before)}"))
            print(clean(f"          after   {_summary(case.after)}"))
    print(f"{sum(case.changed for case in cases)} of {len(cases)} changed")


def _summary(decision: AttachDecision) -> str:
    what = "a new entry" if decision.created else decision.entry.session_id
    return f"{decision.rule}: {what} on {decision.entry.thread}"
