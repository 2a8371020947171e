"""Modules that others import early and a short command never uses: loaded at their first use.

attrs imports ``inspect`` for what it does with converters, and its own validators because it always
did; argparse imports ``gettext``; pluggy asks ``inspect`` whether a function is one. They are a
third of what attrs and argparse cost, and half of pluggy. Of ``threading``, ``weakref`` and
``datetime`` they use a class or two that are written in C. In the process of one command a stand-in
takes the place of each such module; the first attribute asked of it that it does not know itself
loads the module. Python 3.15 has this as ``lazy import`` (PEP 810).

Only for a process of our own (`heddle_registry.__main__.program`): whoever embeds the registry
finds the interpreter's modules as they were.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any
else:
    ModuleType = type(sys)  # importing ``types`` for its name would be one module more

NEVER_USED = (
    "ast",
    "attr.converters",
    "attr.filters",
    "attr.validators",
    "attrs.converters",
    "attrs.filters",
    "attrs.validators",
    "copy",
    "tokenize",
    "unicodedata",
    "warnings",
)
"""By most commands; whichever uses one pays for that one."""


_mutex = _thread.allocate_lock()


class StandIn(ModuleType):
    """Takes a module's place until an attribute is asked of it; passes every such question on.

    Of a module only, not of a package. It has no ``__spec__``, and what is set on it before its
    first use is not set on the module.
    """

    def __getattr__(self, name: str) -> Any:
        # Asked only for what a bare module has not: everything of the module's own.
        if name == "__path__":  # which `from module import ...` asks for; a package has one
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = _loaded(self.__name__)
        if name == "__all__" and not hasattr(module, name):
            # `from module import *` takes then what stands in the stand-in itself.
            vars(self).update(vars(module))
        return getattr(module, name)


def _loaded(name: str) -> Any:
    import importlib

    with _mutex:
        if isinstance(sys.modules.get(name), StandIn):
            del sys.modules[name]
    return importlib.import_module(name)


def defer(name: str, **known: Any) -> None:
    """Let the module of this full name be loaded when it is used, not when it is imported.

    A module that is there already stays. A missing one is told of at its first use, by the error
    that importing it would have raised. Call it before anything imports it, in one thread.

    :param known: attributes whose values are known without the module
    """
    if name not in sys.modules:
        sys.modules[name] = module = StandIn(name)
        vars(module).update(known)


def _is_function(value: object) -> bool:
    return isinstance(value, type(defer))


_METHOD = type(StandIn("").__getattr__)


def _is_routine(value: object) -> bool:
    return _is_function(value) or bool(_loaded("inspect").isroutine(value))


def _unwrap(function: Any, **stop: Any) -> Any:
    return (
        _loaded("inspect").unwrap(function, **stop)
        if hasattr(function, "__wrapped__")
        else function
    )


def defer_what_short_commands_never_use() -> None:
    """Call it as the first thing in a command's process."""
    for name in NEVER_USED:
        defer(name)
    # What pluggy asks of each hook, of which it is nearly always a plain function.
    defer(
        "inspect",
        isclass=lambda value: isinstance(value, type),
        isfunction=_is_function,
        ismethod=lambda value: isinstance(value, _METHOD),
        ismodule=lambda value: isinstance(value, ModuleType),
        isroutine=_is_routine,
        unwrap=_unwrap,
    )
    # What argparse says stays English, as everything that we say is.
    defer(
        "gettext", gettext=lambda text: text, ngettext=lambda one, more, n: one if n == 1 else more
    )
    if sys.implementation.name == "cpython":
        defer("platform", python_implementation=lambda: "CPython")  # all that attrs asks of it
        _defer_the_python_around_c()


def _defer_the_python_around_c() -> None:
    import _weakref

    # All that attrs uses of them, and we of the second.
    defer("threading", local=_thread._local)  # noqa: SLF001
    defer("weakref", ref=_weakref.ref)
    try:
        import _datetime  # type: ignore[import-not-found]  # typeshed knows ``datetime`` alone
    except ImportError:  # an interpreter that was built without it
        return
    # Before Python 3.12 its classes are all made in Python, and then thrown away for these.
    defer("datetime", **{name: value for name, value in vars(_datetime).items() if name[0] != "_"})
