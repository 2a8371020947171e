"""TOML text of keys, single values and loose tables, spelt as the original's writer spells them.

The five string rules and the 32-bit floats are those of ``golden/README.md``, seen in files that
the Rust program wrote. No ``re``, no ``decimal``: this module lies on the way of every command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from heddle_registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CONTROL: Final = frozenset(map(chr, range(0x20))) - {"\t", "\n"} | {"\x7f"}
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04X}" for char in _CONTROL} | {
    ord("\b"): "\\b",
    ord("\t"): "\\t",
    ord("\f"): "\\f",
    ord("\r"): "\\r",
    ord("\\"): "\\\\",
}
_BARE_KEY: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_F32_DIGITS: Final = 9
"""This many decimal digits tell any two 32-bit floats apart."""


def string_text(text: str) -> str:
    """Return ``text`` as a TOML string, in the first of five forms that fits."""
    if '"' not in text and "\\" not in text and text.isprintable():
        return f'"{text}"'
    line_break = "\n" if "\n" in text else ""
    if _CONTROL.isdisjoint(text):
        if not (line_break or '"' in text or "\\" in text):
            return '"' + text.replace("\t", "\\t") + '"'
        if not line_break and "'" not in text:
            return f"'{text}'"
        if "\\" not in text and '"""' not in text:
            return f'"""{line_break}' + text.replace("\t", "\\t") + '"""'
        if "'''" not in text:
            return f"'''{line_break}{text}'''"
    escaped = text.translate(_ESCAPES)
    if line_break:
        return '"""\n' + escaped.replace('"""', '""\\"') + '"""'
    return '"' + escaped.replace('"', '\\"') + '"'


def key_text(key: str) -> str:
    """Return ``key`` bare where TOML allows it, else quoted on one line."""
    if key and _BARE_KEY.issuperset(key):
        return key
    escaped = key.translate(_ESCAPES).replace("\n", "\\n").replace('"', '\\"')
    return f'"{escaped}"'


def strings_text(texts: Iterable[str]) -> str:
    """Return an array of strings: up to one on the key's line, more on a line each."""
    spelt = [string_text(text) for text in texts]
    if len(spelt) <= 1:
        return f"[{''.join(spelt)}]"
    return "[\n" + "".join(f"    {text},\n" for text in spelt) + "]"


def seconds_text(value: float) -> str:
    """Return a duration as an integer where it is whole."""
    return str(int(value)) if value.is_integer() else repr(value)


def as_f32(value: float) -> float:
    """Return ``value`` rounded to 32 bits; infinite beyond their range."""
    import struct

    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("-inf") if value < 0 else float("inf")


def f32_text(value: float) -> str:
    """Return the shortest decimal that reads back as the same 32-bit float, without exponent."""
    single = as_f32(value)
    spelt = repr(single)
    if "n" in spelt:
        return spelt  # inf, nan
    for digits in range(_F32_DIGITS):
        spelt = f"{single:.{digits}e}"
        if as_f32(float(spelt)) == single:
            break
    mantissa, _, exponent = spelt.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    figures = mantissa.lstrip("-").replace(".", "")
    point = int(exponent) + 1
    if point <= 0:
        return f"{sign}0.{'0' * -point}{figures}"
    if point >= len(figures):
        return f"{sign}{figures.ljust(point, '0')}.0"
    return f"{sign}{figures[:point]}.{figures[point:]}"


def loose_line(key: str, value: Any) -> str:
    """Return ``key = value`` for a key that nobody here knows, as ``tomli_w`` writes it.

    :raises UsageError: TOML has no form for the value.
    """
    # Late: hardly any record has such a key, and every command would pay for the import.
    import tomli_w

    try:
        return tomli_w.dumps({key: value})
    except (TypeError, ValueError) as error:
        raise UsageError(f"TOML has no form for the value of {key!r}: {error}") from None


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise UsageError(f"a TOML key must be text, not {type(key).__name__}")
    return key_text(key)


def _is_table_array(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, dict) for item in value)
    )


def write_loose_lines(values: Mapping[str, Any], out: list[str]) -> list[tuple[str, Any]]:
    """Append ``key = value`` lines; return the pairs that need tables, which must come later."""
    tables: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) or _is_table_array(value):
            tables.append((key, value))
        else:
            _checked_key(key)
            out.append(loose_line(key, value))
    return tables


def write_loose_tables(tables: Iterable[tuple[str, Any]], path: str, out: list[str]) -> None:
    """Append ``[path.key]`` and ``[[path.key]]`` tables with everything in them."""
    for key, value in tables:
        name = path + _checked_key(key)
        header, items = (
            (f"\n[{name}]\n", [value]) if isinstance(value, dict) else (f"\n[[{name}]]\n", value)
        )
        for item in items:
            out.append(header)
            write_loose_tables(write_loose_lines(item, out), f"{name}.", out)
