"""JSON decoded straight into the few fields that a reader looks at.

A *shape* is a named tuple. Its fields are the keys that matter, each with a default: ``Any`` for
a value as it is, ``Other | None`` for an object of another shape, ``list[Other] | None`` for a
list of them, both None by default. Nothing else of a line becomes an object, and making objects is
a third of the time of parsing, or more.

A key that is no name in Python is given by `keyed`.

What does not fit is the default, never an error: transcripts are written by other people's
programs. So a line is decoded by msgspec (the extra ``fast``) if it fits, and else, or where
msgspec is missing, taken from the whole parsed object. Both find the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heddle_registry.adapters.json_parser import Text

Shape = TypeVar("Shape", bound=tuple[Any, ...])


class ShapeDecoder(NamedTuple):
    """Decodes text that fits a shape. Answers have the shape's attributes, but are no tuples."""

    one: Callable[[Text], Any]
    many: Callable[[Text], list[Any]]
    """Of objects one after another, with or without line ends between them."""


class _Field(NamedTuple):
    name: str
    key: str
    default: Any
    inner: type[tuple[Any, ...]] | None
    """The shape of the value or, in a list, of each; None where any value will do."""
    is_list: bool


def keyed(**keys: str) -> Callable[[type[Shape]], type[Shape]]:
    """Tell of fields what their keys are, where those are other than the names."""

    def note(shape: type[Shape]) -> type[Shape]:
        shape._keys = keys  # type: ignore[attr-defined]  # noqa: SLF001 - no field begins so
        return shape

    return note


@cache
def decoder_of(shape: type[tuple[Any, ...]]) -> ShapeDecoder | None:
    """Return what decodes a shape; None where msgspec is missing. Raises TypeError as `shaped`."""
    _fields_of(shape)
    try:
        from msgspec.json import Decoder
    except ImportError:
        return None
    decoder = Decoder(_struct(shape))
    return ShapeDecoder(decoder.decode, decoder.decode_lines)


def shaped(shape: type[Shape], value: dict[str, Any]) -> Shape:
    """Return the shape of an object that was parsed. Raises TypeError for what is no shape."""
    found: Shape = _shaped(shape, value)
    return found


def members_of(shape: type[tuple[Any, ...]], found: Any) -> Iterator[tuple[str, Any]]:
    """Yield ``(name, value)`` of the fields that are not their defaults, of a list each element."""
    for name, _, default, _, is_list in _fields_of(shape):
        value = getattr(found, name)
        if is_list:
            yield from ((name, one) for one in value or ())
        elif value != default:
            yield name, value


def lists_of(shape: type[tuple[Any, ...]]) -> list[str]:
    """Return the keys whose values are lists of another shape."""
    return [field.key for field in _fields_of(shape) if field.is_list]


@cache
def _fields_of(shape: type[tuple[Any, ...]]) -> tuple[_Field, ...]:
    defaults, keys = getattr(shape, "_field_defaults", {}), getattr(shape, "_keys", {})
    if unknown := keys.keys() - defaults.keys():
        raise TypeError(f"{shape.__name__} has no field {min(unknown)} with a default")
    found = []
    for name, hint in get_type_hints(shape).items():
        inner, is_list = (None, False) if hint is Any else _inner_of(hint)
        if hint is not Any and (inner is shape or not hasattr(inner, "_field_defaults")):
            raise TypeError(f"{shape.__name__}.{name} must be Any, or another shape, a list of it")
        if name not in defaults or (inner is not None and defaults[name] is not None):
            raise TypeError(f"{shape.__name__}.{name} needs a default, None for another shape")
        found.append(_Field(name, keys.get(name, name), defaults[name], inner, is_list))
    return tuple(found)


def _inner_of(hint: Any) -> tuple[Any, bool]:
    """Return what ``… | None`` and ``list[…] | None`` are of, and whether it is a list."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    if len(parts) != 1 or len(get_args(hint)) != 2:  # noqa: PLR2004 - something, and None
        return None, False
    if get_origin(parts[0]) is list:
        return get_args(parts[0])[0], True
    return parts[0], False


def _shaped(shape: type[tuple[Any, ...]], value: dict[str, Any]) -> Any:
    values = []
    for _, key, default, inner, is_list in _fields_of(shape):
        held = value.get(key, default)
        if inner is not None and held is not None:
            held = _of_inner(inner, held, is_list=is_list)
        values.append(held)
    return tuple.__new__(shape, values)


def _of_inner(inner: type[tuple[Any, ...]], value: Any, *, is_list: bool) -> Any:
    if not is_list:
        return _shaped(inner, value) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    return [_shaped(inner, one) for one in value if isinstance(one, dict)]


@cache
def _struct(shape: type[tuple[Any, ...]]) -> Any:
    """Return the class that msgspec fills; one for each shape, so that values can be compared."""
    from msgspec import defstruct

    held: list[tuple[str, Any, Any]] = []
    for name, _, default, inner, is_list in _fields_of(shape):
        kind: Any = Any
        if inner is not None:
            kind = (list[_struct(inner)] if is_list else _struct(inner)) | None  # type: ignore[misc]
        held.append((name, kind, default))
    # Parsed values hold no cycles: the collector need not know them.
    return defstruct(shape.__name__, held, gc=False, rename=getattr(shape, "_keys", None))
