"""The parser and the writer of JSON: msgspec's where it is installed (the extra ``fast``)."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Text = bytes | bytearray | memoryview


class JsonParser(NamedTuple):
    """A parser, and what it raises for what is no JSON."""

    parse: Callable[[Text], Any]
    errors: tuple[type[Exception], ...]


@cache
def json_parser() -> JsonParser:
    """Return the quickest parser at hand."""
    try:
        from msgspec import DecodeError
        from msgspec.json import Decoder
    except ImportError:
        return standard_parser()
    return JsonParser(Decoder().decode, (DecodeError, ValueError, RecursionError))


def standard_parser() -> JsonParser:
    """Return the standard library's parser."""
    import json

    # As text: of bytes it takes what is no UTF-8, and in other encodings.
    return JsonParser(lambda text: json.loads(str(text, "utf-8")), (ValueError, RecursionError))


def json_text(value: object) -> str:
    """Write a value as JSON. Raises TypeError where it holds what has no place there."""
    if (write := _quick_writer()) is not None:
        with suppress(TypeError, ValueError):  # halves of characters; the other one takes them
            return write(value).decode()
    import json

    return json.dumps(value)


@cache
def _quick_writer() -> Callable[[object], bytes] | None:
    try:
        from msgspec.json import Encoder
    except ImportError:
        return None
    return Encoder().encode
