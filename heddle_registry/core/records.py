"""The part of attrs that our records use, at a tenth of what attrs costs a command to start.

To import attrs takes four times as long as to start the interpreter, and each of its classes half
a millisecond more, because it writes, compiles and keeps source for it. A command builds fifty of
them and makes a handful of instances. So records are written as attrs classes are::

    from heddle_registry.core.records import attrs

    @attrs.frozen(kw_only=True)
    class Point:
        x: int

and type checkers see attrs itself; at run time the class is built here, with the same meaning:
slots, frozen, equal by fields, hashable, picklable, matched by position where it is not
``kw_only``. Whoever asks attrs about it (``attrs.fields``, ``attrs.evolve``, ``attrs.asdict``,
cattrs, a child class that attrs decorates) is answered: the answer is made when first asked for.

Not all of attrs: no ``order``, no ``on_setattr``, no private names, no mutable classes, no
decorator for defaults or validators. A module that needs more imports attrs.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    import attrs as attrs  # noqa: PLC0414 - exported


class _Missing:
    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = _Missing()


class Field:
    """One attribute of a record: what `attrs.field` was told, and its name and place."""

    __slots__ = (
        "converter", "default", "eq", "factory", "hash", "init", "kw_only", "name", "put",
        "repr", "type", "validator",
    )  # fmt: skip

    def __init__(
        self,
        *,
        default: Any = NOTHING,
        factory: Callable[[], Any] | None = None,
        validator: Callable[[Any, Any, Any], None] | None = None,
        converter: Callable[[Any], Any] | None = None,
        repr: bool = True,  # noqa: A002 - attrs' names
        eq: bool = True,
        hash: bool | None = None,  # noqa: A002
        init: bool = True,
    ) -> None:
        self.default = default
        self.factory = factory
        self.validator = validator
        self.converter = converter
        self.repr = repr
        self.eq = eq
        self.hash = hash
        self.init = init
        self.name = ""
        self.type = ""
        self.kw_only = False
        self.put: Callable[[Any, Any], None] = object.__setattr__  # type: ignore[assignment]


def frozen(
    cls: type | None = None, *, kw_only: bool = False, order: bool = False, cache_hash: bool = False
) -> Any:
    """Build a record of the annotated class, as ``attrs.frozen`` does."""
    del order, cache_hash  # what they ask for, nothing here costs
    if cls is None:
        return lambda found: _build(found, kw_only=kw_only)
    return _build(cls, kw_only=kw_only)


def evolve(record: Any, /, **changes: Any) -> Any:
    """Return the record with ``changes``, as ``attrs.evolve`` does.

    :raises TypeError: it has no such field.
    """
    cls = record.__class__
    given = dict(zip(cls.__record_inits__, cls.__record_values__(record), strict=True))
    given.update(changes)
    return cls(**given)


def fields(cls: Any) -> tuple[Field, ...]:
    """Return the fields of a record, in order; only what `Field` keeps of each."""
    found: tuple[Field, ...] = cls.__record_fields__
    return found


def _build(cls: type, *, kw_only: bool) -> type:
    namespace = dict(cls.__dict__)
    own = _own_fields(namespace, kw_only=kw_only)
    inherited = _inherited(cls, {field.name for field in own})
    known = {field.name for field in inherited}
    slots = [field.name for field in own if field.name not in known]
    if not any(getattr(base, "__weakrefoffset__", 0) for base in cls.__mro__[1:]):
        slots.append("__weakref__")
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    found = (*inherited, *own)
    inits = [field for field in found if field.init]
    namespace |= {
        "__slots__": tuple(slots),
        "__qualname__": cls.__qualname__,
        "__record_fields__": found,
        "__record_inits__": tuple(field.name for field in inits),
        "__record_values__": _values_of(field.name for field in inits),
        "__match_args__": tuple(field.name for field in inits if not field.kw_only),
        "__attrs_attrs__": _Attributes(),
        "__signature__": _Signature(),
        "__setattr__": _refuse_change,
        "__delattr__": _refuse_change,
        "__getstate__": _state,
        "__setstate__": _restore,
    }
    if "__eq__" not in namespace:
        namespace["__eq__"] = _eq(_values_of(field.name for field in found if field.eq))
        if namespace.get("__hash__") is None:
            namespace["__hash__"] = _hash(
                _values_of(field.name for field in found if _is_hashed(field))
            )
    if "__repr__" not in namespace:
        namespace["__repr__"] = _repr
    built = type(cls)(cls.__name__, cls.__bases__, namespace)
    for field in own:
        field.put = getattr(built, field.name).__set__
    if "__init__" not in namespace:
        built.__init__ = _first_init(built)  # type: ignore[misc]
    _reclose(cls, built)
    return built


def _own_fields(namespace: dict[str, Any], *, kw_only: bool) -> list[Field]:
    found = []
    for name, kind in namespace.get("__annotations__", {}).items():
        if str(kind).startswith(("ClassVar", "typing.ClassVar")):
            continue
        value = namespace.pop(name, NOTHING)
        field = value if isinstance(value, Field) else Field(default=value)
        field.name, field.type, field.kw_only = name, kind, kw_only
        found.append(field)
    return found


def _inherited(cls: type, own: set[str]) -> list[Field]:
    for base in cls.__mro__[1:]:
        found: tuple[Field, ...] | None = base.__dict__.get("__record_fields__")
        if found is not None:
            return [field for field in found if field.name not in own]
    return []


def _values_of(names: Iterable[str]) -> Callable[[Any], tuple[Any, ...]]:
    wanted = tuple(names)
    if len(wanted) > 1:
        # Staticmethods, because on a class any other function would become a method.
        return staticmethod(attrgetter(*wanted))
    if not wanted:
        return staticmethod(lambda _: ())
    one = attrgetter(wanted[0])
    return staticmethod(lambda record: (one(record),))


def _first_init(built: Any) -> Callable[..., None]:
    # Most classes that a command imports it makes no instance of.
    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        built.__init__ = _init(built)
        built.__init__(self, *args, **given)

    return __init__


def _init(built: Any) -> Callable[..., None]:
    known: dict[str, Any] = {"_NOTHING": NOTHING}
    parameters: list[str] = []
    lines: list[str] = []
    is_keyword = False
    for field in filter(_is_init, built.__record_fields__):
        name = field.name
        value = name
        known[f"_put_{name}"] = field.put
        if field.kw_only and not is_keyword:
            parameters.append("*")
            is_keyword = True
        if field.factory is None and field.default is NOTHING:
            parameters.append(name)
        else:
            known[f"_default_{name}"], known[f"_make_{name}"] = field.default, field.factory
            parameters.append(f"{name}=_default_{name}")
        if field.factory is not None:
            value = f"{name} if {name} is not _NOTHING else _make_{name}()"
        if field.converter is not None:
            known[f"_convert_{name}"] = field.converter
            value = f"_convert_{name}({value})"
        lines.append(f"_put_{name}(self, {value})")
    for field in filter(_is_init, built.__record_fields__):
        if field.validator is not None:
            known |= {f"_check_{field.name}": field.validator, f"_field_{field.name}": field}
            lines.append(f"_check_{field.name}(self, _field_{field.name}, self.{field.name})")
    if hasattr(built, "__attrs_post_init__"):
        lines.append("self.__attrs_post_init__()")
    body = "\n    ".join(lines or ["pass"])
    exec(f"def __init__(self, {', '.join(parameters)}):\n    {body}", known)  # noqa: S102
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{built.__qualname__}.__init__"
    made.__module__ = built.__module__
    return made


def _is_init(field: Field) -> bool:
    return field.init


def _is_hashed(field: Field) -> bool:
    return field.eq if field.hash is None else field.hash


def _eq(values: Any) -> Any:
    key = values.__func__

    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        if other.__class__ is not self.__class__:
            return NotImplemented
        return key(self) == key(other)

    return __eq__


def _hash(values: Any) -> Any:
    key = values.__func__

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(key(self))

    return __hash__


def _repr(self: Any) -> str:
    name = self.__class__.__qualname__.rpartition(">.")[2]
    shown = ", ".join(
        f"{field.name}={getattr(self, field.name)!r}"
        for field in self.__record_fields__
        if field.repr
    )
    return f"{name}({shown})"


def _refuse_change(self: Any, name: str, value: Any = None) -> None:
    del self, name, value
    from attrs.exceptions import FrozenInstanceError

    raise FrozenInstanceError


def _state(self: Any) -> dict[str, Any]:
    return {field.name: getattr(self, field.name) for field in self.__record_fields__}


def _restore(self: Any, state: dict[str, Any]) -> None:
    for field in self.__record_fields__:
        if field.name in state:
            field.put(self, state[field.name])


def _reclose(cls: type, built: type) -> None:
    # A method that says super() keeps the class in a cell, and that is still the old one.
    for value in built.__dict__.values():
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        for cell in getattr(function, "__closure__", None) or ():
            try:
                if cell.cell_contents is cls:
                    cell.cell_contents = built
            except ValueError:  # empty
                continue


class _Attributes:
    # In a class's place for attrs' own description of it, until somebody asks for that.
    def __get__(self, record: Any, owner: Any) -> Any:
        owner.__attrs_attrs__ = _twin(owner).__attrs_attrs__
        return owner.__attrs_attrs__


class _Signature:
    def __get__(self, record: Any, owner: Any) -> Any:
        from inspect import signature

        return signature(_twin(owner))


def _twin(cls: Any) -> Any:
    import attr

    return attr.make_class(
        cls.__name__,
        {
            field.name: attr.ib(
                default=attr.Factory(field.factory)
                if field.factory is not None
                else attr.NOTHING
                if field.default is NOTHING
                else field.default,
                validator=field.validator,
                converter=field.converter,
                repr=field.repr,
                eq=field.eq,
                hash=field.hash,
                init=field.init,
                kw_only=field.kw_only,
                type=field.type,
            )
            for field in cls.__record_fields__
        },
        frozen=True,
    )


if not TYPE_CHECKING:

    class attrs:  # noqa: D101, N801
        frozen = staticmethod(frozen)
        field = Field
        evolve = staticmethod(evolve)
        fields = staticmethod(fields)
