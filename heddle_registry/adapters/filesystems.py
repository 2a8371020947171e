"""Which file system a folder lies on, and whether its locks can be believed."""

from __future__ import annotations

import os
from typing import Final

MOUNTS: Final = "/proc/self/mounts"
_NETWORK: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs2", "glusterfs", "gpfs",
        "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs",
        "virtiofs", "vboxsf", "prl_fs", "vmhgfs",
    }
)  # fmt: skip


def filesystem_of(folder: str, mounts: str | None = None) -> str | None:
    """Return the type of the file system that ``folder`` lies on; None where nobody tells.

    :param mounts: the text of ``/proc/mounts``, read from this system where left out.
    """
    if mounts is None:
        try:
            with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
                mounts = file.read()
        except OSError:
            return None
    real = os.path.realpath(folder)
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # noqa: PLR2004
            continue
        point = _unescaped(fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is seen.
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def is_doubtful(kind: str) -> bool:
    """Return whether a lock taken there may exclude nobody on another machine, or nobody at all."""
    return kind in _NETWORK or kind.startswith("fuse")


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
