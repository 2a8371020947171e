"""Bytes to a TOML document: every way in which hostile or torn bytes can fail, as one error."""

from __future__ import annotations

from typing import Any, Final

from heddle_registry.core.limits import MAX_ENTRY_BYTES

MAX_NESTING: Final = 80
"""Tables and arrays within each other; the original's parser ends at 80 as well."""
_BOM: Final = "\ufeff"
_MAX_INTEGER_BITS: Final = 8_192
_SHOWN: Final = 60


class NotToml(ValueError):
    """The bytes are no TOML document. ``line`` counts from 1, None where no line is to blame."""

    def __init__(self, why: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(why)


def parse_document(data: bytes) -> dict[str, Any]:
    """Return the document in ``data``.

    The size is looked at first, so that a huge file costs nothing.

    :raises NotToml: too large, empty, not UTF-8, not TOML, or nested beyond reason.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise NotToml(f"{len(data)} bytes, more than {MAX_ENTRY_BYTES}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotToml(f"not UTF-8 (at line {line})", line) from None
    if not text or text.isspace():
        raise NotToml("empty")

    import tomli

    try:
        return tomli.loads(text.removeprefix(_BOM))
    except tomli.TOMLDecodeError as error:
        raise NotToml(_clipped(str(error)), error.lineno) from None
    except RecursionError:
        raise NotToml("nested too deeply") from None
    except ValueError:
        # Python refuses to read integers of over 4,300 digits, with a bare ValueError.
        raise NotToml("an integer of thousands of digits") from None


def _clipped(message: str) -> str:
    # The parser quotes keys whole, and puts the place at the end.
    printable = message if message.isprintable() else ascii(message)[1:-1]
    most = 3 * _SHOWN
    return printable if len(printable) <= most else f"{printable[:_SHOWN]}...{printable[-_SHOWN:]}"


def why_unreasonable(value: Any) -> str:
    """Return why ``value`` cannot be kept for a key that nobody knows; ``""`` where it can.

    Deeper nesting could be read, and then neither compared nor written without a
    `RecursionError`; a longer integer (TOML has hexadecimal ones) neither shown nor written.
    """
    layer = [value]
    for _ in range(MAX_NESTING + 1):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, int) and item.bit_length() > _MAX_INTEGER_BITS:
                return "an integer of thousands of digits"
        if not inner:
            return ""
        layer = inner
    return f"nested deeper than {MAX_NESTING} levels"


def shown(value: Any) -> str:
    """Return what an error says of a wrong value: short, printable, on one line."""
    if isinstance(value, str):
        text = ascii(value) if not value.isprintable() else repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= _SHOWN * 3):
        return str(value)
    kinds = {dict: "a table", list: "an array", int: "a huge integer"}
    return kinds.get(type(value), f"a {type(value).__name__}")
