"""What attrs generates for its classes, kept from one command to the next.

attrs writes methods for each class as text and compiles them when the class is made, and for a
named tuple its annotations and its ``__new__`` are compiled; with the seventy classes of a command,
and attrs' own, that is an eighth of its time. Python keeps what it compiled of a module's text, and
this keeps, in one file in the user's cache folder, what was compiled of these. The text itself is
the key: nothing old is found after a change of attrs, a class or Python.

Only for a process of our own, as `heddle_registry.deferred`. The file holds code, so it is believed
only where nobody but the user may read or write it, and only if it is the very file that we wrote:
it says which one that was, by inode and time. What came with a clone or an archive, into a cache
that lies below the current directory, is another.
"""

from __future__ import annotations
import __future__

import errno
import os
import sys
import time

from heddle_registry.cache_folder import keep_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    Known = dict[tuple[str, str], CodeType]

MOST_KEPT = 1000
"""Texts in one file, several times what there is; then it begins anew, without old versions'."""
_GENERATED = "<attrs generated "
_WRITABLE_BY_OTHERS = 0o022
_OTHERS = 0o077
_FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_compile = compile


class KeptCode:
    """Compiles what attrs generates, once for all processes of a user. For one OS thread.

    :param folder: where the file lies; None keeps nothing. Failing to read or write is no error.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder if hasattr(os, "geteuid") else None  # Windows tells no owners
        self._known: Known = {}
        self._new: Known = {}

    def install(self) -> None:
        """Let this process compile by this."""
        import builtins
        import collections

        if self._folder is not None:
            self._known = _read(self._folder)
            builtins.compile = self.compile
            # Its named tuples are all that it evaluates. Found before the builtin, by it alone.
            vars(collections)["eval"] = self._evaluate

    def compile(
        self,
        source: Any,
        filename: Any,
        mode: str,
        flags: int = 0,
        dont_inherit: bool = False,
        optimize: int = -1,
        **more: Any,
    ) -> Any:
        """Compile, or return what was compiled before of the same generated text."""
        caller = sys._getframe(1)  # noqa: SLF001
        if not _is_kept(filename, mode, caller.f_globals.get("__name__")):
            if not dont_inherit:  # whoever calls, not this module, says what is inherited
                flags |= caller.f_code.co_flags & _FUTURE
            return _compile(source, filename, mode, flags, True, optimize, **more)
        return self._kept(source, filename, mode)

    def _evaluate(self, source: Any, names: dict[str, Any]) -> Any:
        return eval(self._kept(source, "<string>", "eval"), names)  # noqa: S307

    def _kept(self, source: str, filename: str, mode: str) -> CodeType:
        key = filename, _without_salt(filename, source)
        code = self._known.get(key)
        if code is None:
            code = self._known[key] = self._new[key] = _compile(source, filename, mode)
        return code

    def keep(self) -> None:
        """Write what is new to the file, for the next command."""
        if self._folder is None or not self._new or not _may_be_believed(self._folder):
            return
        import marshal

        # What other commands have kept meanwhile stays, too.
        known = {**_read(self._folder), **self._new}
        data = marshal.dumps((sys.version, known if len(known) <= MOST_KEPT else self._new))
        keep_file(_path(self._folder), lambda file: _write(file, data))


def _write(file: int, data: bytes) -> None:
    # Of a time that nobody can foresee, so that no file made beforehand is taken for this one.
    at_ns = time.time_ns() - int.from_bytes(os.urandom(4), "big")
    os.utime(file, ns=(at_ns, at_ns))
    made = os.fstat(file)  # which says what the file system makes of that time
    head = _head_of(made)
    if os.write(file, head + data) < len(head) + len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.utime(file, ns=(made.st_mtime_ns, made.st_mtime_ns))


def _head_of(found: os.stat_result) -> bytes:
    return b"%d %d %d\n" % (found.st_dev, found.st_ino, found.st_mtime_ns)


def _is_kept(filename: Any, mode: str, caller: str | None) -> bool:
    if filename == "<string>" and mode == "eval":
        return caller == "typing"  # the annotations of a named tuple
    return str(filename).startswith(_GENERATED)


def _without_salt(filename: str, source: str) -> str:
    # A generated hash begins with a number that tells its class from others. It is another one in
    # each process; an earlier one's tells them apart as well.
    before, begin, rest = source.partition("hash((")
    number, comma, after = rest.partition(",")
    if not (filename.startswith(_GENERATED) and number.strip().lstrip("-").isdigit()):
        return source
    return f"{before}{begin}{comma}{after}"


def _read(folder: str) -> Known:
    import marshal

    try:
        file = os.open(_path(folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        found = os.fstat(file)
        if not (_is_ours(os.stat(folder)) and _is_ours(found)) or found.st_mode & _OTHERS:
            return {}
        data, head = os.read(file, found.st_size), _head_of(found)
        if not data.startswith(head):
            return {}
        version, known = marshal.loads(data[len(head) :])  # noqa: S302
    except (OSError, EOFError, ValueError, TypeError):
        return {}
    finally:
        os.close(file)
    return known if version == sys.version and isinstance(known, dict) else {}


def _may_be_believed(folder: str) -> bool:
    try:
        return _is_ours(os.stat(folder))
    except FileNotFoundError:
        return True  # it is made for the user alone
    except OSError:
        return False


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & _WRITABLE_BY_OTHERS


def _path(folder: str) -> str:
    # Each Python has its own; they would write it anew in turn otherwise.
    return os.path.join(folder, f"{sys.implementation.cache_tag}-{sys.hexversion:x}.code")
