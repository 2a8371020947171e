"""``run BRANCH -- CMD…``: the main job."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXIT_HELD = 75
EXIT_OWN_FAILURE = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127

HELP = "claim a branch while a command runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("branch", metavar="BRANCH")
    parser.add_argument("--task", metavar="TEXT", help="what the command is for; `list` shows it")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="stand in line for at most S seconds"
    )
    parser.add_argument("--path", metavar="DIR", help="claim this folder together with the branch")
    parser.add_argument("--base-state", metavar="S", help="what the work starts from")
    parser.add_argument("--force", action="store_true", help="take the branch from its holder")
    parser.add_argument("--reason", metavar="TEXT", help="why, for whoever loses it (--force)")
    parser.add_argument(
        "--keep-marks",
        action="store_true",
        help="let the command inherit the variables of harnesses around us",
    )
    parser.add_argument("command", nargs="...", metavar="-- CMD", help="the command to run")


def say(text: str) -> None:
    """Tell the user something that is ours, not the command's."""
    print(f"heddle-registry: {text}", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its status, or ours: 75 held, 125, 126, 127."""
    from heddle_registry.errors import Held, RegistryError

    try:
        return _run(args)
    except Held as held:
        _report(args, held)
        return EXIT_HELD
    except RegistryError as error:
        _report(args, error)
        return EXIT_OWN_FAILURE


def _run(args: argparse.Namespace) -> int:
    from heddle_registry.adapters.child import CannotExecute
    from heddle_registry.cli.context import open_registry
    from heddle_registry.core.limits import check_thread
    from heddle_registry.errors import UsageError
    from heddle_registry.running import RunRequest, run_command

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command to run", "Write it after --, as in: run BRANCH -- make test")
    if args.force != (args.reason is not None):
        raise UsageError("--force and --reason go together", "Say why the branch is taken")
    check_thread(args.branch)
    environment = dict(os.environ)
    if not args.keep_marks:
        from heddle_registry.detection import scrub_env

        environment = scrub_env(environment)
    request = RunRequest(
        thread=args.branch,
        argv=tuple(command),
        environment=environment,
        path=os.path.realpath(args.path) if args.path is not None else None,
        task=args.task,
        base_state=args.base_state,
        force_reason=args.reason,
        wait_s=args.wait,
    )
    try:
        return run_command(open_registry(args), request, say)
    except CannotExecute as error:
        say(f"{error.program}: {os.strerror(error.errno)}")
        return EXIT_NOT_FOUND if error.is_missing else EXIT_CANNOT_EXECUTE


def _report(args: argparse.Namespace, error: Exception) -> None:
    say(str(error))
    if args.json:
        from heddle_registry.cli.output import print_error

        print_error(error)
