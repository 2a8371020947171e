"""The members of one big JSON object, without holding more than one of them."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_BLOCK_BYTES: Final = 1 << 18
_BLANK: Final = re.compile(r"[\s,]*")


class _Window:
    """The part of the text that is being parsed; grows at its end, is dropped at its beginning."""

    def __init__(
        self, file: BinaryIO, max_value_bytes: int, progress: Callable[[int], None] | None
    ) -> None:
        self.text = ""
        self.at = 0
        self._file = file
        self._progress = progress
        self._max = max_value_bytes
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._decoder = json.JSONDecoder(strict=False)

    def more(self) -> bool:
        """Read on; False at the end of the file. As much again as is waiting: linear in all."""
        if len(self.text) - self.at > self._max:
            raise ValueError("one value of the document is too large to read")
        data = self._file.read(max(_BLOCK_BYTES, len(self.text) - self.at))
        if not data:
            return False
        if b"\0" in data:
            raise ValueError("zero bytes in the document: this is no text")
        if self._progress is not None:
            self._progress(len(data))
        self.text = self.text[self.at :] + self._decode(data)
        self.at = 0
        return True

    def peek(self) -> str:
        """Return the next character that is neither blank nor a comma; "" at the end."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Parse the value that comes next."""
        self.peek()
        while True:
            try:
                found, after = self._decoder.raw_decode(self.text, self.at)
            except RecursionError as error:
                raise ValueError("the document is nested too deeply") from error
            except ValueError:
                if self.more():
                    continue
                raise ValueError("the document ends too early") from None
            # A number at the window's end may go on behind it; all else is closed.
            if after == len(self.text) and not isinstance(found, (dict, list, str)) and self.more():
                continue
            self.at = after
            return found

    def skip(self, expected: str) -> None:
        """Step over one character."""
        if self.peek() != expected:
            raise ValueError(f"the document lacks a {expected!r} where one belongs")
        self.at += 1


def object_members(
    file: BinaryIO,
    arrays: Sequence[str],
    max_value_bytes: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yield ``(key, value)`` of a JSON object; of the arrays named, ``(key, element)`` each.

    Raises ValueError where the text is no such object or ends too early, after all that came
    before it was yielded.
    """
    window = _Window(file, max_value_bytes, progress)
    window.skip("{")
    while (ahead := window.peek()) != "}":
        if ahead != '"':
            raise ValueError("the document ends too early" if not ahead else "no key in its place")
        key = window.value()
        window.skip(":")
        if key in arrays and window.peek() == "[":
            window.skip("[")
            while (ahead := window.peek()) != "]":
                if not ahead:
                    raise ValueError("the document ends too early")
                yield key, window.value()
            window.skip("]")
        else:
            yield key, window.value()
