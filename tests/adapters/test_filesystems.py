from __future__ import annotations

import pytest

from heddle_registry.adapters.filesystems import filesystem_of, is_doubtful

MOUNTS = r"""/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
server:/x /mnt/nfs nfs4 rw 0 0
/dev/sdb /mnt/with\040space xfs rw 0 0
tmpfs /mnt/twice tmpfs rw 0 0
sshfs#h:/ /mnt/twice fuse.sshfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("folder", "kind", "doubtful"),
    [
        ("/srv/repo", "ext4", False),
        ("/mnt/nfs/repo/.heddle", "nfs4", True),
        ("/mnt/nfsx", "ext4", False),
        ("/mnt/with space/r", "xfs", False),
        ("/mnt/twice/r", "fuse.sshfs", True),
    ],
)
def test_the_deepest_and_latest_mount_tells(folder: str, kind: str, doubtful: bool) -> None:
    assert filesystem_of(folder, MOUNTS) == kind
    assert is_doubtful(kind) is doubtful


def test_where_nothing_tells_there_is_no_answer() -> None:
    assert filesystem_of("/srv", "") is None
