"""Read transcripts: only what is new, only complete lines, never more memory than one line.

A `TranscriptSource` is what a plugin's ``heddle_usage`` gets. It knows where the last read ended
(`Position`, kept by ``usage_state``), notices files that were rewritten, replaced, rotated or
shrunk, waits for a torn last line, takes apart glued records, and turns what cannot be read into
a fault of that source alone. Blocking; not thread-safe: one source, one reader.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.adapters.json_parser import json_parser, standard_parser
from heddle_registry.adapters.position import Position, digest_of, look, samples_digest
from heddle_registry.adapters.shapes import decoder_of, lists_of, members_of, shaped
from heddle_registry.adapters.transcript_lines import hits
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import FileIO

    from heddle_registry.adapters.json_parser import Text
    from heddle_registry.adapters.shapes import Shape, ShapeDecoder

BLOCK_BYTES: Final = 1 << 18
MAX_LINE_BYTES: Final = 16 << 20
"""A longer line is skipped with a fault: it would cost several times its size in memory."""
MAX_GLUED_STARTS: Final = 64
"""So many beginnings of a record are tried in vain in one line."""
_HEAD_BYTES: Final = 4096


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SourceFault(Record):
    """What could not be read of one source. The totals of all others stand."""

    path: str
    code: str
    """``missing``, ``unreadable``, ``not_a_file``, ``binary``, ``line_too_long``, ``unparsable``,
    ``torn``, ``plugin``, ``no_reader`` or a plugin's own."""
    detail: str


class TranscriptSource:
    """One transcript as a plugin sees it.

    A plugin reads it by *one* of `lines`, `json_lines`, `shapes` (append-only files: new complete
    lines only), `document`, `shaped_document` (one JSON document, rewritten as a whole) or, for a
    folder or database, by ``path`` itself. ``memory`` is a dict that comes back at the next read
    (current model, running state), as JSON keeps it: text, numbers, lists, dicts with text for
    keys. `declare` names the actor that records without an ``actor`` belong to.
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
        self.line_at = 0
        """Byte offset of the line being looked at."""
        self.line_bytes = 0
        """Length of the line being looked at."""
        self.faults: list[SourceFault] = []
        self.actor: str | None = self.memory.get("_actor")
        self.parents: dict[str, str] = dict(self.memory.get("_parents", {}))
        self._progress = progress
        self._buffer = bytearray(BLOCK_BYTES) if buffer is None else buffer
        self._json = json_parser()

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

    def lines(self, *needles: bytes) -> Iterator[bytes]:
        """Yield each new, complete line that contains one of the needles (all, if none given).

        Without its line end. A last line that has none waits for the next read.
        """
        for block, limit, base in self._blocks():
            for start, end in hits(block, limit, needles):
                self.line_at, self.line_bytes = base + start, end - start
                yield bytes(block[start:end])

    def json_lines(self, *needles: bytes) -> Iterator[dict[str, Any]]:
        r"""Yield the JSON objects of each new, complete line that contains one of the needles.

        A needle must be bytes that every wanted record has and that JSON cannot hold in another
        spelling: a key or value *with* its quotes, without what follows (``"usage"``, not
        ``"usage":{``). Inside strings quotes are escaped, so a text that talks about ``"usage"``
        does not match. Records glued onto one line are yielded one by one. A last line without
        a line end is yielded if it is a complete object: nothing can follow that belongs to it.
        """
        return self._each(needles, self._object, None)

    def shapes(self, shape: type[Shape], *needles: bytes, at_once: bool = False) -> Iterator[Shape]:
        """Yield what `json_lines` does, but of each object only what ``shape`` names.

        What is yielded has the attributes of `adapters.shapes`' named tuples. It takes four fifths
        of the time. ``at_once`` decodes many lines by one call, in less than half: the quickest
        way where most lines matter. Then lines without a needle may come too, ``line_at`` and
        ``line_bytes`` are not those of each, and a record that somebody spread over several lines
        may be found or not.
        """
        decoder = decoder_of(shape)
        if decoder is None:
            return self._each(needles, lambda text: shaped(shape, self._object(text)), shape)
        if at_once:
            return chain.from_iterable(self._at_once(decoder, shape, needles))
        return self._each(needles, decoder.one, shape)

    def _each(
        self,
        needles: tuple[bytes, ...],
        decode: Callable[[Text], Any],
        shape: type[tuple[Any, ...]] | None,
    ) -> Iterator[Any]:
        # Not by `yield from`, which costs each line a step more.
        return chain.from_iterable(
            self._each_in(block, limit, base, needles, decode, shape)
            for block, limit, base in self._blocks(tail=True)
        )

    def _each_in(
        self,
        block: bytearray,
        limit: int,
        base: int,
        needles: tuple[bytes, ...],
        decode: Callable[[Text], Any],
        shape: type[tuple[Any, ...]] | None,
    ) -> Iterator[Any]:
        with memoryview(block) as view:
            for start, end in hits(block, limit, needles):
                self.line_at, self.line_bytes = base + start, end - start
                try:
                    found = decode(view[start:end])
                except self._json.errors:
                    yield from self._slowly(view[start:end], shape)
                    continue
                yield found

    def _at_once(
        self, decoder: ShapeDecoder, shape: type[tuple[Any, ...]], needles: tuple[bytes, ...]
    ) -> Iterator[Iterable[Any]]:
        for block, limit, base in self._blocks(tail=True):
            try:
                with memoryview(block)[:limit] as text:
                    found = decoder.many(text)
            except self._json.errors:
                # A line is torn, or does not fit: each by itself.
                found = [*self._each_in(block, limit, base, needles, decoder.one, shape)]
            yield found

    def _slowly(self, line: memoryview, shape: type[tuple[Any, ...]] | None) -> Iterator[Any]:
        """Yield the objects of a line that is not one, or not of the shape."""
        records: Iterable[dict[str, Any]]
        try:
            found = self._json.parse(line)
            records = [found] if type(found) is dict else []
        except self._json.errors:
            records = self._unglue(bytes(line))
        for record in records:
            yield record if shape is None else shaped(shape, record)

    def _object(self, text: Text) -> dict[str, Any]:
        found = self._json.parse(text)
        if type(found) is not dict:
            raise ValueError("this is no object")
        return found

    def _unglue(self, line: bytes) -> Iterator[dict[str, Any]]:
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
            try:
                record, after = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                tried += 1
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
        with self._document() as file:
            try:
                members = self._object(self._small(file)).items()
            except self._json.errors:
                yield from self._members(file, arrays)
                return
        for key, value in members:
            inside = value if key in arrays and type(value) is list else (value,)
            yield from ((key, one) for one in inside)

    def shaped_document(self, shape: type[tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
        """Yield of a file that is one JSON object what ``shape`` names, as ``(name, value)``.

        Of a list of another shape each element comes by itself. Else as `document`.
        """
        with self._document() as file:
            try:
                found = self._shape(shape, self._small(file))
            except self._json.errors:
                lists = lists_of(shape)
                for key, value in self._members(file, lists):
                    part = {key: [value] if key in lists else value}
                    yield from members_of(shape, shaped(shape, part))
                return
        yield from members_of(shape, found)

    def _shape(self, shape: type[Shape], text: bytes) -> Shape:
        if (decoder := decoder_of(shape)) is not None:
            with suppress(*self._json.errors):
                found: Shape = decoder.one(text)
                return found
        return shaped(shape, self._object(text))

    def _document(self) -> FileIO:
        if self.position is not None:
            self.position = self.position._replace(whole=True)
        return open(self._open(), "rb", buffering=0)

    def _small(self, file: FileIO) -> bytes:
        """Return all of a small file; nothing of a large one, which no parser takes."""
        text = file.read(BLOCK_BYTES)
        if len(text) == BLOCK_BYTES:
            return b""
        if self._progress is not None:
            self._progress(len(text))
        return text

    def _members(self, file: FileIO, arrays: Sequence[str]) -> Iterator[tuple[str, Any]]:
        # It tells, too, what is wrong with a document that the quick way did not take.
        from heddle_registry.adapters.json_stream import object_members

        file.seek(0)
        try:
            yield from object_members(file, arrays, MAX_LINE_BYTES, self._progress)
        except ValueError as error:
            self.fault("torn", str(error))

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
        for parser in (self._json, standard_parser()):  # the one takes what the other does not
            try:
                return type(parser.parse(text)) is dict
            except parser.errors:
                continue
        return False


class NotAFileError(OSError):
    """A transcript's path names a FIFO, device or folder where a file was expected."""
