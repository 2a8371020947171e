"""``reserve``: claim a branch from a script."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from heddle_registry.core.reserve import LiveOwner, Reserved
    from heddle_registry.registry import AgentRegistry


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import (
        add_token_options,
        duration_s,
        folder,
        note,
        ttl_s,
        whole_number,
    )

    parser.add_argument("branch", metavar="BRANCH", help="the branch to claim")
    parser.add_argument(
        "--ttl", metavar="S", type=ttl_s, help="the claim ends S seconds after its last renewal"
    )
    parser.add_argument(
        "--owner-pid", metavar="PID", type=whole_number, help="the claim ends with that process"
    )
    parser.add_argument(
        "--wait",
        metavar="S",
        type=duration_s,
        default=0.0,
        help="stand in line for up to S seconds",
    )
    parser.add_argument(
        "--path", metavar="DIR", type=folder, help="a folder that nobody else may claim meanwhile"
    )
    parser.add_argument("--task", metavar="TEXT", type=note, help="what for, in a few words")
    parser.add_argument(
        "--base-state", metavar="S", type=note, help="what the work starts from (default: HEAD)"
    )
    parser.add_argument(
        "--force", action="store_true", help="take it from whoever holds it; needs --reason"
    )
    parser.add_argument("--reason", metavar="TEXT", type=note, help="why; the old holder is told")
    parser.add_argument(
        "--export", action="store_true", help="print `export` lines for a shell to eval"
    )
    add_token_options(parser, variable=False)


def run(args: argparse.Namespace) -> int:
    """Reserve; return 0, or 5 where somebody else has the branch."""
    from heddle_registry.cli.arguments import shown_token
    from heddle_registry.cli.context import open_registry
    from heddle_registry.core.limits import check_thread
    from heddle_registry.core.reserve import LiveOwner
    from heddle_registry.errors import UsageError
    from heddle_registry.registry.scripting import script_terms, try_reserve
    from heddle_registry.settings import load_settings

    check_thread(args.branch)
    if args.force and args.reason is None:
        raise UsageError("--force needs --reason", "The old holder is told it: say why")
    if args.reason is not None and not args.force:
        raise UsageError("--reason goes with --force", "Use --task to say what the work is")
    token = shown_token(args, variable=False)
    registry = open_registry(args)
    settings = load_settings(getattr(registry.store, "heddle_dir", ""))
    terms = script_terms(
        registry,
        owner_pid=args.owner_pid,
        ttl_s=args.ttl,
        path=args.path,
        force_reason=args.reason,
        token=token,
        default_ttl_s=settings.default_ttl_s if settings is not None else None,
        detection=settings is None or settings.detection is not False,
    )
    outcome = try_reserve(
        registry,
        args.branch,
        terms=terms,
        task=args.task,
        base_state=args.base_state,
        wait_s=args.wait,
    )
    if isinstance(outcome, LiveOwner):
        return report_live_owner(args, outcome)
    report_reserved(args, registry, outcome)
    return 0


def report_live_owner(args: argparse.Namespace, outcome: LiveOwner) -> int:
    """Say who has the branch; return 5."""
    from heddle_registry.registry.attempt import held_error

    error = held_error(args.branch, outcome)
    if not args.json:
        raise error
    from heddle_registry.cli.answers import entry_json, verdict_json
    from heddle_registry.cli.output import print_json

    print_json(
        {
            "outcome": "live_owner",
            "state": outcome.state,
            "entry": entry_json(outcome.entry) if outcome.entry is not None else None,
            "liveness": verdict_json(outcome.verdict),
            "why": outcome.why,
            "frees_when": outcome.frees_when or None,
        }
    )
    return error.exit_code


def report_reserved(args: argparse.Namespace, registry: AgentRegistry, reserved: Reserved) -> None:
    """Print the claim with its token. Where that fails, nobody has the token: release it again.

    :raises OSError: the answer could not be written.
    """
    from heddle_registry.cli.answers import entry_json
    from heddle_registry.cli.output import print_answer, print_json

    try:
        if args.json:
            print_json(
                {
                    "outcome": "reserved",
                    "entry": entry_json(reserved.entry),
                    "token": reserved.token,
                    "fence": reserved.fence,
                    "present": [entry_json(entry) for entry in reserved.present],
                }
            )
        else:
            print_answer(
                _exports(registry, reserved) if getattr(args, "export", False) else _told(reserved)
            )
    except OSError:
        if reserved.is_new:
            from heddle_registry.core.lifecycle import AgentStatus

            registry.release(reserved.entry.session_id, AgentStatus.ABANDONED, token=reserved.token)
        raise


def _exports(registry: AgentRegistry, reserved: Reserved) -> str:
    from shlex import quote

    variables = {
        "HEDDLE_DIR": getattr(registry.store, "heddle_dir", ""),
        "HEDDLE_THREAD": reserved.entry.thread,
        "HEDDLE_AGENT_SESSION_ID": reserved.entry.session_id,
        "HEDDLE_AGENT_TOKEN": reserved.token or "",
        "HEDDLE_AGENT_FENCE": str(reserved.fence),
    }
    return "\n".join(f"export {name}={quote(value)}" for name, value in variables.items())


def _told(reserved: Reserved) -> str:
    from heddle_registry.cli.text import clean

    entry = reserved.entry
    owner = entry.owner
    ttl_s = entry.extension.ttl_s if entry.extension is not None else None
    lines = [
        f"{clean(entry.thread)} is yours",
        f"  session  {entry.session_id}",
        f"  fence    {reserved.fence}",
        f"  token    {reserved.token}  (shown only here)",
    ]
    if ttl_s is not None:
        lines.append(f"  ends     {ttl_s:g} s after the last `heartbeat`")
    elif owner is not None:
        command = f" ({clean(owner.command)})" if owner.command else ""
        lines.append(f"  ends     with process {owner.pid}{command}")
    lines += [f"  present  {clean(other.session_id)} is still there" for other in reserved.present]
    lines.append(f"`release {entry.session_id} --token ...` ends it")
    return "\n".join(lines)
