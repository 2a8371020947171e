"""The registry that a command line means."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from heddle_registry.cli.progress import Progress
    from heddle_registry.registry import AgentRegistry


def open_registry(args: argparse.Namespace) -> AgentRegistry:
    """Return the registry named by options, variables or the working directory. Makes nothing.

    :raises UsageError: none can be found, or a config file is wrong.
    :raises StoreUnavailable: something that is no folder is in its place, or it may not be seen.
    """
    from heddle_registry.opening import directory_store, local_host
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.settings import lock_timeout_s

    heddle_dir = find_folder(args)
    host = local_host()
    timeout_s = lock_timeout_s(heddle_dir, args.lock_timeout)
    watch = None if args.json else _rebuild_progress
    return AgentRegistry(store=directory_store(heddle_dir, host, timeout_s, watch), host=host)


def _rebuild_progress() -> Progress:
    from heddle_registry.cli.progress import Progress, rebuilding_index

    return Progress(rebuilding_index)


def find_folder(args: argparse.Namespace) -> str:
    """Return the registry's folder, there or not yet.

    :raises UsageError: none can be found.
    :raises StoreUnavailable: something that is no folder is in its place, or it may not be seen.
    """
    from heddle_registry.errors import StoreUnavailable, UsageError
    from heddle_registry.opening import find_heddle_dir

    heddle_dir = find_heddle_dir(explicit=args.heddle_dir)
    hint = "Name another folder with --heddle-dir"
    try:
        os.listdir(heddle_dir)
    except FileNotFoundError:
        return heddle_dir
    except NotADirectoryError:
        raise StoreUnavailable(heddle_dir, "something that is no folder lies there", hint) from None
    except OSError as error:
        raise StoreUnavailable(
            heddle_dir, f"it cannot be read ({error.strerror})", hint, errno=error.errno
        ) from None
    inner = os.path.join(heddle_dir, ".heddle")
    if os.path.isdir(inner) and not os.path.isdir(os.path.join(heddle_dir, "agents")):
        raise UsageError(f"{heddle_dir} is no registry; it holds one", f"Did you mean {inner}?")
    return heddle_dir
