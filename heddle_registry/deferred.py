"""Modules that others import early and a short command never uses: loaded at their first use.

attrs imports ``inspect`` for what it does with converters, and its own validators because it always
did: a quarter of what importing attrs costs. In the process of one command a stand-in takes the
place of each such module; the first attribute asked of it loads the module. Python 3.15 has this as
``lazy import`` (PEP 810).

Only for a process of our own (`heddle_registry.__main__.program`): whoever embeds the registry
finds the interpreter's modules as they were.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any
else:
    ModuleType = type(sys)  # importing ``types`` for its name would be one module more

NEVER_USED_BY_A_SHORT_COMMAND = (
    "ast",
    "attr.validators",
    "attrs.validators",
    "inspect",
    "tokenize",
    "unicodedata",
)


class StandIn(ModuleType):
    """Takes a module's place until an attribute is asked of it; passes every such question on."""

    def __getattr__(self, name: str) -> Any:
        # Asked only for what a bare module has not: everything of the module's own.
        import importlib

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def defer(names: Iterable[str]) -> None:
    """Let the modules of these full names be loaded when they are used, not when imported.

    A module that is there already stays. A missing one is told of at its first use, by the error
    that importing it would have raised. Call it before anything imports them, in one thread.
    """
    for name in names:
        sys.modules.setdefault(name, StandIn(name))
