"""Read transcripts: only what is new, only complete lines, never more memory than one line.

A `TranscriptSource` is what a plugin's ``heddle_usage`` gets. It knows where the last read ended
(`Position`, kept by ``usage_state``), notices files that were rewritten, replaced, rotated or
shrunk, waits for a torn last line, takes apart glued records, and turns what cannot be read into
a fault of that source alone. Blocking; not thread-safe: one source, one reader.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.adapters.position import Position, digest_of, look, samples_digest
from heddle_registry.adapters.transcript_lines import hits, lines_by_head, lines_of
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

BLOCK_BYTES: Final = 1 << 18
MAX_LINE_BYTES: Final = 16 << 20
"""A longer line is skipped with a fault: it would cost several times its size in memory."""
MAX_GLUED_STARTS: Final = 64
_HEAD_BYTES: Final = 4096


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SourceFault(Record):
    """What could not be read of one source. The totals of all others stand."""

    path: str
    code: str
    """``missing``, ``unreadable``, ``not_a_file``, ``binary``, ``line_too_long``, ``unparsable``,
    ``torn``, ``plugin``, ``no_reader`` or a plugin's own."""
    detail: str


@cache
def json_parser() -> Callable[[bytes | bytearray | memoryview], Any]:
    """Return orjson's parser where it is installed (the extra ``fast``), else the standard one."""
    try:
        import orjson
    except ImportError:
        return standard_parser
    return orjson.loads


def standard_parser(text: bytes | bytearray | memoryview) -> Any:
    """Parse with the standard library."""
    import json

    return json.loads(bytes(text))


class TranscriptSource:
    """One transcript as a plugin sees it.

    A plugin reads it by *one* of `lines`, `json_lines` (append-only files: new complete lines
    only), `document` (one JSON document, rewritten as a whole) or, for a folder or database,
    by ``path`` itself. ``memory`` is a JSON-able dict that comes back at the next read: current
    model, running state. `declare` names the actor that records without an ``actor`` belong to.
    """

    def __init__(
        self,
        harness: str,
        path: str,
        *,
        position: Position | None = None,
        memory: dict[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
        buffer: bytearray | None = None,
    ) -> None:
        self.harness = harness
        self.path = path
        self.position = position
        self.memory: dict[str, Any] = {} if memory is None else memory
        self._line_at = 0
        self._lines: list[bytes] | None = None
        self._line, self._lines_at = b"", 0
        self.line_bytes = 0
        """Length of the line being looked at."""
        self.faults: list[SourceFault] = []
        self.actor: str | None = self.memory.get("_actor")
        self.parents: dict[str, str] = dict(self.memory.get("_parents", {}))
        self._progress = progress
        self._buffer = bytearray(BLOCK_BYTES) if buffer is None else buffer
        self._loads = json_parser()

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder of files rather than one file."""
        return os.path.isdir(self.path)

    def declare(self, actor: str, parent: str | None = None) -> None:
        """Name whose transcript this is, and its parent where the transcript tells.

        Both as ``kind:id``, e.g. ``session:…``, ``agent:…``. Naming another actor later changes
        only the records that follow.
        """
        self.actor = actor
        self.memory["_actor"] = actor
        if parent is not None and parent != actor:
            self.link(actor, parent)

    def link(self, actor: str, parent: str) -> None:
        """Tell that an actor of this file is a child of another."""
        if self.parents.get(actor) != parent:
            self.parents[actor] = parent
            self.memory["_parents"] = self.parents

    def fault(self, code: str, detail: str) -> None:
        """Report something that could not be read. Only the first of each code is kept."""
        if all(code != known.code for known in self.faults):
            self.faults.append(SourceFault(path=self.path, code=code, detail=detail))

    def head(self, size: int = 1 << 16) -> bytes:
        """Return the file's first bytes, without moving the position."""
        with open(self.path, "rb") as file:
            return file.read(size)

    def lines(self, *needles: bytes, of_objects: bool = False) -> Iterator[bytes]:
        """Yield each new, complete line that contains one of the needles (all, if none given).

        Without its line end. A last line that has none waits for the next read, unless the lines
        are ``of_objects``, for `objects`: then it is yielded once it is a complete JSON object.
        """
        for block, limit, base in self._blocks(tail=of_objects):
            for start, end in hits(block, limit, needles):
                self._line_at, self.line_bytes = base + start, end - start
                yield bytes(block[start:end])

    def lines_by_head(
        self, head: re.Pattern[bytes], mark: bytes, kind: tuple[int, ...]
    ) -> Iterator[tuple[list[bytes], bytes]]:
        """Yield the new, complete lines, each with its end, and their kinds, many at a time.

        For files of which most lines need no parsing. ``head`` describes how every line begins,
        with a group around each beginning that matters: a line's kind is the number of the group
        that matched, and 255 where the head matched without a group. Each head begins
        with ``mark``, which no other place of a line holds. Lines that agree in the bytes from
        the first number in ``kind`` to one of the others are taken for lines of one kind, if a
        head ends before that one.

        A line that begins otherwise, has a second mark inside (a torn write) or no end is of kind
        0: it has to be looked at. The file's last line may lack its end, as for `objects`.
        """
        for block, limit, base in self._blocks(tail=True):
            with memoryview(block)[:limit] as view:
                self._lines, kinds = lines_by_head(bytes(view), head, mark, kind)
            self._lines_at = base
            yield self._lines, kinds
            self._lines = None

    @staticmethod
    def lines_of_kind(kind: int, lines: list[bytes], kinds: bytes) -> list[bytes]:
        """Return the lines of one kind, of some that `lines_by_head` yielded."""
        return lines_of(kind, lines, kinds)

    @property
    def line_at(self) -> int:
        """Byte offset of the line being looked at."""
        if self._lines is None:
            return self._line_at
        # By identity: of two equal lines it is this one.
        place = next(place for place, line in enumerate(self._lines) if line is self._line)
        return self._lines_at + sum(map(len, self._lines[:place]))

    def parse(self, text: bytes) -> Any:
        """Parse one JSON value; raises ValueError where it is none."""
        return self._loads(text)

    def objects(self, line: bytes) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a line that `lines` or `lines_by_head` yielded; mostly one."""
        self._line, self.line_bytes = line, len(line)
        try:
            record = self._loads(line)
        except ValueError:
            yield from self._unglue(line)
            return
        if type(record) is dict:
            yield record

    def json_lines(self, *needles: bytes) -> Iterator[dict[str, Any]]:
        r"""Yield the JSON objects of each new, complete line that contains one of the needles.

        A needle must be bytes that every wanted record has and that JSON cannot hold in another
        spelling: a key or value *with* its quotes, without what follows (``"usage"``, not
        ``"usage":{``). Inside strings quotes are escaped, so a text that talks about ``"usage"``
        does not match. Records glued onto one line are yielded one by one. A last line without
        a line end is yielded if it is a complete object: nothing can follow that belongs to it.
        """
        loads = self._loads
        for block, limit, base in self._blocks(tail=True):
            with memoryview(block) as view:
                for start, end in hits(block, limit, needles):
                    self._line_at, self.line_bytes = base + start, end - start
                    try:
                        record = loads(view[start:end])
                    except ValueError:
                        yield from self._unglue(block[start:end])
                        continue
                    if type(record) is dict:
                        yield record

    def _unglue(self, line: bytes | bytearray) -> Iterator[dict[str, Any]]:
        # A torn write leaves a fragment with the next record glued to it. A record starts at a
        # brace that is not the value of a key and not an element of a list, or as this line does.
        import json
        import re

        text = line.decode("utf-8", "replace").lstrip("\ufeff \t\r")
        decoder = json.JSONDecoder(strict=False)
        head = text[: text.find(":") + 1]
        alike = f"|(?={re.escape(head)})" if head.startswith("{") else ""
        starts = re.compile(r'(?<![:,\[\s\\])\s*(?=\{\s*")' + alike)
        at = tried = found = 0
        most = max(4, min(MAX_GLUED_STARTS, MAX_LINE_BYTES // (len(text) + 1)))
        while at < len(text) and tried < most:
            tried += 1
            try:
                record, after = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                following = starts.search(text, at + 1)
                if following is None:
                    break
                at = following.end()
                continue
            if type(record) is dict:
                found += 1
                yield record
            at = after
            while at < len(text) and text[at].isspace():
                at += 1
        if not found and text.strip():
            self.fault("unparsable", f"the line at byte {self.line_at} is no JSON; it was left out")

    def document(self, *arrays: str) -> Iterator[tuple[str, Any]]:
        """Yield the members of a file that is one JSON object, in order, as ``(key, value)``.

        A member named in ``arrays`` is yielded element by element, so a document of any size is
        read in little memory. A document that ends too early gives what is complete and a fault.
        """
        from heddle_registry.adapters.json_stream import object_members

        if self.position is not None:
            self.position = self.position._replace(whole=True)
        with open(self._open(), "rb", buffering=0) as file:
            if (whole := self._small_document(file)) is not None:
                for key, value in whole.items():
                    inside = value if key in arrays and type(value) is list else (value,)
                    yield from ((key, one) for one in inside)
                return
            file.seek(0)
            try:
                yield from object_members(file, arrays, MAX_LINE_BYTES, self._progress)
            except ValueError as error:
                self.fault("torn", str(error))

    def _small_document(self, file: Any) -> dict[str, Any] | None:
        # Whatever the quick way does not take, the other tells what is wrong with.
        text = file.read(BLOCK_BYTES)
        if len(text) == BLOCK_BYTES:
            return None
        try:
            found = self._loads(text)
        except (ValueError, RecursionError):
            return None
        if self._progress is not None:
            self._progress(len(text))
        return found if type(found) is dict else None

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotAFileError(self.path)
        return descriptor

    def _blocks(self, *, tail: bool = False) -> Iterator[tuple[bytearray, int, int]]:
        """Yield ``(buffer, limit, offset)``: complete lines up to ``limit``; keep the position.

        The buffer is used again for the next block, and grows only for a line that fills it.
        """
        position = self.position or look(self.path)
        if position is None:
            raise FileNotFoundError(self.path)
        # A file object takes as long as all the rest of a small file.
        descriptor = self._open()
        try:
            if position.offset:
                os.lseek(descriptor, position.offset, os.SEEK_SET)
            yield from self._blocks_of(descriptor, position, tail=tail)
        finally:
            os.close(descriptor)

    def _blocks_of(
        self, descriptor: int, position: Position, *, tail: bool
    ) -> Iterator[tuple[bytearray, int, int]]:
        offset, skipping, filled = position.offset, position.skipping, 0
        buffer, begun, is_all = self._buffer, offset > 0, False
        # What was appended since the look is for the next read, whose look will tell of it.
        while offset + filled < position.size:
            size = os.readv(descriptor, [memoryview(buffer)[filled:]])
            if not size:
                break
            if self._progress is not None:
                self._progress(size)
            if not begun and buffer.find(0, 0, min(size, _HEAD_BYTES)) >= 0:
                self.fault("binary", "zero bytes at the beginning: this is no text")
                tail = False
                break
            is_all, begun = not begun, True
            cut = buffer.rfind(b"\n", filled, filled + size) + 1
            new, filled = cut or filled, filled + size
            if skipping:
                found = buffer.find(b"\n", 0, filled) + 1
                skipping = not found
                size = found or filled
                offset += size
                buffer[: filled - size] = buffer[size:filled]
                filled, cut, new = filled - size, max(0, cut - size), max(0, new - size)
            # A hole in the file is no line: it would be read to its end for nothing.
            is_hole = buffer.find(0, new, filled) >= 0
            if cut:
                yield buffer, cut, offset
                offset += cut
                # Not `del buffer[:cut]`, which would make the buffer smaller.
                if cut < filled:
                    buffer[: filled - cut] = buffer[cut:filled]
                    is_all = False
                filled -= cut
            elif filled == len(buffer) and not is_hole:
                if filled > MAX_LINE_BYTES:
                    self.fault("line_too_long", f"the line at byte {offset} was left out")
                    offset, filled, skipping = offset + filled, 0, True
                else:
                    buffer = buffer + bytes(filled)  # a new one: the shared one stays small
            if is_hole:
                self.fault("binary", f"zero bytes after byte {offset}: this is no text")
                tail = False
                break
        if tail and filled and self._is_object(buffer[:filled]):
            yield buffer, filled, offset
            offset += filled
        if is_all and not skipping:  # nothing was written over it
            with memoryview(buffer)[:offset] as text:
                check = digest_of(text)
        else:
            check = samples_digest(descriptor, offset)
        self.position = position.read_to(offset, check, skipping=skipping)

    def _is_object(self, text: bytearray) -> bool:
        if not text.rstrip().endswith(b"}"):
            return False
        try:
            return type(self._loads(text)) is dict
        except ValueError:
            return False


class NotAFileError(OSError):
    """A transcript's path names a FIFO, device or folder where a file was expected."""
