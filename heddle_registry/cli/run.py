"""``run BRANCH -- CMD…``: the main job."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from heddle_registry.errors import RegistryError

TAKES_COMMAND = True
"""What stands behind ``--`` is not ours to parse."""
SAYS_ALWAYS = True
"""Our own failures are told on stderr even with ``--json``: stdout may be the command's."""
EXIT_HELD = 75
EXIT_OWN_FAILURE = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from heddle_registry.cli.arguments import duration_s as wait_s

    parser.add_argument("branch", metavar="BRANCH", help="the branch to claim")
    parser.add_argument("--task", metavar="TEXT", help="what the command is for; `list` shows it")
    parser.add_argument(
        "--wait", type=wait_s, default=0.0, metavar="S", help="stand in line for at most S seconds"
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
    parser.usage = "%(prog)s BRANCH [options] -- COMMAND ..."


def say(text: str) -> None:
    """Tell the user something that is ours, not the command's."""
    print(f"heddle-registry: {text}", file=sys.stderr, flush=True)


def exit_status(error: RegistryError) -> int:
    """Return our own statuses, which no command should have: 75 held, 125 anything else."""
    from heddle_registry.errors import Held

    return EXIT_HELD if isinstance(error, Held) else EXIT_OWN_FAILURE


def run(args: argparse.Namespace) -> int:
    """Run the command and return its status; 126 or 127 where it cannot be started."""
    from heddle_registry.adapters.child import CannotExecute
    from heddle_registry.cli.context import open_registry
    from heddle_registry.core.limits import check_thread
    from heddle_registry.errors import UsageError
    from heddle_registry.running import RunRequest, run_command

    command = args.command
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
