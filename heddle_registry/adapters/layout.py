"""Where everything lies below ``.heddle``, and how those folders are made."""

from __future__ import annotations

import os
from typing import Final

from heddle_registry.core.digest import sha256_hex
from heddle_registry.errors import StoreUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIX: Final = ".toml"
_IGNORE_ALL: Final = b"# Made by heddle-registry: nothing in here belongs into a commit.\n*\n"


class Layout:
    """The paths of one registry. Makes nothing until `make` is called."""

    __slots__ = (
        "agents",
        "claims",
        "index",
        "live",
        "quarantine",
        "queries",
        "root",
        "tmp",
        "wait",
    )

    def __init__(self, heddle_dir: str) -> None:
        self.root = os.path.abspath(heddle_dir)
        below = self.root.rstrip(os.sep) + os.sep
        self.agents = below + "agents"
        self.claims = below + "claims"
        self.live = below + "live"
        self.wait = below + "wait"
        self.tmp = below + "tmp"
        self.queries = below + "queries"
        self.quarantine = self.agents + os.sep + ".quarantine"
        self.index = below + "index.sqlite"

    def entry_name(self, session_id: str) -> str:
        """Return the name of an entry's file in `agents`."""
        return session_id + SUFFIX

    def claim_name(self, thread: str) -> str:
        """Return the name of a thread's file in `claims`: threads may hold slashes."""
        return thread_hash(thread) + SUFFIX

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder below the root that holds what we write."""
        return (
            self.agents, self.claims, self.live, self.wait, self.tmp, self.queries, self.quarantine,
        )  # fmt: skip

    def refuse_links(self) -> None:
        """Refuse to change anything where a link stands in a folder's place.

        A repository may be cloned with ``.heddle/tmp`` as a link to somebody's home; whoever
        sweeps, stamps or prunes through it harms what was never ours. The root itself may be a
        link: that is the user's own way to keep it elsewhere.

        :raises StoreUnavailable: one of them is a link.
        """
        for path in self.folders:
            if os.path.islink(path):
                raise StoreUnavailable(
                    path,
                    "a link stands in the place of a folder, and none is followed here",
                    "Put a real folder in its place; `doctor` names every such link",
                )

    def make(self) -> None:
        """Make the root and `agents`, out of git's sight where the root is new.

        :raises StoreUnavailable: they cannot be made.
        """
        if not os.path.isdir(self.root):
            self._make(self.root)
            # Private, unless the folder it lies in is already shared with a group.
            parent = os.stat(os.path.dirname(self.root)).st_mode
            os.chmod(self.root, 0o2770 if parent & 0o020 and parent & 0o2000 else 0o700)
            ignore = os.path.join(self.root, ".gitignore")
            try:
                fd = os.open(ignore, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                try:
                    os.write(fd, _IGNORE_ALL)
                finally:
                    os.close(fd)
            except OSError:
                pass  # somebody else's, or no space; git may then see the folder, harming nobody
        self._make(self.agents)

    def make_folder(self, path: str) -> None:
        """Make one folder below the root, with the mode of the one it lies in.

        :raises StoreUnavailable: it cannot be made.
        """
        if not os.path.isdir(path):
            self.make()
            self._make(path)

    def _make(self, path: str) -> None:
        parent = os.path.dirname(path)
        try:
            if not os.path.isdir(parent):
                self._make(parent)
            # Others could make links in a root that is theirs to write until `make` closes it.
            os.mkdir(path, 0o700 if path == self.root else 0o777)
            if len(path) > len(self.root):
                # Whatever the umask: a shared registry stays shared, a private one private.
                os.chmod(path, os.stat(parent).st_mode & 0o7777)
            _sync_name(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise StoreUnavailable(path, "something that is no folder is in the way") from None
        except OSError as error:
            raise StoreUnavailable(
                path,
                f"it cannot be made ({error.strerror})",
                "Choose another place with --heddle-dir, or ask who owns the folder",
                errno=error.errno,
            ) from error


def _sync_name(folder: str) -> None:
    # A power loss that took the folder would take every record that was made durable in it.
    from heddle_registry.adapters.atomic_file import sync_folder
    from heddle_registry.errors import OutcomeUnknown

    try:
        sync_folder(os.path.dirname(folder))
    except OutcomeUnknown as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError):
            return  # one that may be written and not read cannot be synced
        os.rmdir(folder)
        if isinstance(cause, OSError):
            raise cause from None
        raise


def thread_hash(thread: str) -> str:
    """Return a file name for a thread: 32 hex digits of its SHA-256."""
    return sha256_hex(thread.encode("utf-8", "surrogateescape"))[:32]


def toml_names(names: Iterable[str]) -> list[str]:
    """Return the names that readers take, as the original does: ``*.toml``, but not ``.toml``."""
    return [name for name in names if name.endswith(SUFFIX) and name != SUFFIX]
