"""Giving a file another name, so that no crash leaves it without one.

A rename is one step for whoever looks, but a disk may keep its two halves apart: the old name
gone, the new one not there yet. So a file gets its second name first, that is made durable, and
only then the first one goes. The caller holds the store's lock.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.atomic_file import sync_folder
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.errors import OutcomeUnknown

if TYPE_CHECKING:
    from heddle_registry.adapters.layout import Layout

_NO_SECOND_NAME: Final = {
    errno.EPERM,  # a folder; a file system without links; Linux, of a file that is another user's
    errno.EISDIR,
    errno.EMLINK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}
_MOST_NAME: Final = 200


def put_aside(layout: Layout, folder: str, name: str, kept: str) -> None:
    """Move whatever lies at ``folder/name`` into the quarantine, under the name ``kept``.

    :raises StoreUnavailable: nothing was changed.
    :raises OutcomeUnknown: it lies in the quarantine; after a power loss perhaps in both places.
    """
    layout.make_folder(layout.quarantine)
    move(folder, name, layout.quarantine, kept)


def kept_name(name: str) -> str:
    """Return a name for the quarantine: two damaged files of one name are both kept."""
    shorter = name if len(os.fsencode(name)) <= _MOST_NAME else name[: _MOST_NAME // 4]
    return f"{shorter}.{os.urandom(4).hex()}"


def move(folder: str, name: str, to_folder: str, new_name: str) -> None:
    """Give what lies at ``folder/name`` the name ``to_folder/new_name``, and replace nothing there.

    Where there can be no second name, of a folder say, it is renamed.

    :raises StoreUnavailable: nothing was changed.
    :raises OutcomeUnknown: it has the new name; the old one may still be there, or come back.
    """
    path, to = os.path.join(folder, name), os.path.join(to_folder, new_name)
    # Then a crash came between an earlier move's two steps.
    was_begun = _is_one_file(path, to)
    if was_begun:
        sync_folder(to_folder, changed=path)
    is_linked = was_begun or name_again(path, to)
    try:
        if is_linked:
            _retried(os.unlink, path)
        else:
            _refuse_taken(to)
            _retried(os.rename, path, to)
    except OSError as error:
        if is_linked and not (was_begun or _is_taken_back(to)):
            raise OutcomeUnknown(path, "it has a second name, and could lose neither") from error
        raise unavailable(path, error, "move it") from error
    if folder != to_folder and not is_linked:
        sync_folder(to_folder, changed=path)
    sync_folder(folder, changed=path)


def name_again(path: str, to: str) -> bool:
    """Give what lies at ``path`` a durable second name; False where it can have only one.

    :raises StoreUnavailable: nothing was changed.
    :raises OutcomeUnknown: it has the second name, which may not be durable.
    """
    try:
        _retried(_link, path, to)
    except OSError as error:
        if error.errno in _NO_SECOND_NAME:
            return False
        raise unavailable(path, error, "give it a second name") from error
    try:
        sync_folder(os.path.dirname(to), changed=path)
    except OutcomeUnknown as error:
        if _is_taken_back(to) and isinstance(error.__cause__, OSError):
            cause = error.__cause__
            raise unavailable(path, cause, "give it a second name") from cause
        raise
    return True


def _link(path: str, to: str) -> None:
    # A link itself, where a system can.
    os.link(path, to, follow_symlinks=os.link not in os.supports_follow_symlinks)


def _is_one_file(path: str, to: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(to))
    except OSError:
        return False


def _is_taken_back(to: str) -> bool:
    with suppress(OSError):
        _retried(os.unlink, to)
    return not os.path.lexists(to)


def _refuse_taken(to: str) -> None:
    if os.path.lexists(to):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)


def _retried(call: object, *paths: str) -> None:
    # Python retries EINTR itself, unless what it calls is wrapped; this makes it a promise.
    while True:
        try:
            call(*paths)  # type: ignore[operator]
        except InterruptedError:
            continue
        return
