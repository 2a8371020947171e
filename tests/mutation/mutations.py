"""Small lies about a program: every place where a source could say something else.

A mutation changes one node of the syntax tree. Texts for people, annotations and docstrings are
left out: what they say is checked elsewhere, and a test that pins each word keeps nobody safe.
"""

from __future__ import annotations

import ast
import collections
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


_LOOKS = {"repr", "hash", "eq", "kw_only", "slots"}
"""Keywords of `attrs.field`: how a record is shown and compared, not what it means."""

_MOST = 90
"""How many characters of a place its name shows."""

_WITHIN = (ast.expr, ast.comprehension, ast.keyword, ast.Assign, ast.AnnAssign,
           ast.AugAssign, ast.Expr, ast.Return, ast.Raise, ast.Assert, ast.Delete)  # fmt: skip
"""What a number is told together with."""


@attrs.frozen
class Mutation:
    """One lie: where, what it says instead, and the whole source that says it."""

    line: int
    what: str
    source: str


def mutations_of(source: str) -> list[Mutation]:
    """Return every mutation of a module's source; of those that read alike, with their places."""
    found = list(_mutations_of(source))
    alike = collections.Counter(mutation.what for _, mutation in found)
    named = [
        attrs.evolve(one, what=f"in {function}, {one.what}") if alike[one.what] > 1 else one
        for function, one in found
    ]
    alike = collections.Counter(mutation.what for mutation in named)
    seen: collections.Counter[str] = collections.Counter()
    for at, one in enumerate(named):
        seen[one.what] += 1
        if alike[one.what] > 1:
            which = f"{one.what} ({seen[one.what]} of {alike[one.what]})"
            named[at] = attrs.evolve(one, what=which)
    return named


def _mutations_of(source: str) -> Iterator[tuple[str, Mutation]]:
    plain = ast.parse(source)
    count = sum(1 for _ in _places(plain))
    for number in range(count):
        for variant in range(4):
            tree = ast.parse(source)
            node, field, at = list(_places(tree))[number]
            parents = {of: node for node in ast.walk(tree) for of in ast.iter_child_nodes(node)}
            told = _around(node, parents) if isinstance(node, ast.Constant) else node
            before = _told(told, field, at)
            if not _change(node, field, at, variant):
                break
            after = _told(told, field, at)
            if after == before:
                continue
            line = getattr(node, "lineno", 0)
            what = _difference(before, after, is_part=told is not node)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            yield _function_of(node, parents), Mutation(line, what, changed)


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int]]:
    for node in _walk(tree):
        if isinstance(node, ast.Compare):
            for at in range(len(node.ops)):
                yield node, "ops", at
        elif isinstance(node, (ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Constant)):
            yield node, "self", 0
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            yield node, "test", 0
        elif isinstance(node, (ast.Break, ast.Continue)):
            yield node, "self", 0
        if isinstance(node, (ast.FunctionDef, ast.If, ast.For, ast.With, ast.Try, ast.While)):
            for at, statement in enumerate(node.body):
                if _can_go(statement):
                    yield node, "body", at


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Assign) and ast.unparse(node) == "TYPE_CHECKING = False":
        return
    if isinstance(node, ast.FunctionDef) and all(map(_says_nothing, node.body)):
        return  # of a protocol: its defaults are what the implementations say
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg in _LOOKS:
                continue
            if isinstance(node, ast.Call) and child is _default_asked_for(node):
                continue  # what a system without that constant would take
            if name == "value" and isinstance(node, ast.Subscript) and _is_first_part(node):
                yield from _walk(child.func.value)
                yield from _walk(child.args[0])
                continue
            if isinstance(child, ast.stmt) and _says_nothing(child):
                continue  # a docstring
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _default_asked_for(node: ast.Call) -> ast.expr | None:
    # Of `getattr(os, "O_CLOEXEC", 0)`.
    is_asked = len(node.args) > 2 and ast.unparse(node.args[0]) == "os"
    return node.args[2] if is_asked and ast.unparse(node.func) == "getattr" else None


def _is_first_part(node: ast.Subscript) -> bool:
    # Of `split(x, 1)[0]` and `rsplit(x, 1)[-1]`: how often more is split changes nothing.
    end = {"split": "0", "rsplit": "-1"}
    call = node.value
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and end.get(call.func.attr) == ast.unparse(node.slice)
        and len(call.args) == 2
    )


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _can_go(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Return):
        nothing = statement.value is None or ast.unparse(statement.value) == "None"
        return not nothing
    if isinstance(statement, (ast.AugAssign, ast.Raise)):
        return True
    return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)


def _change(node: Any, field: str, at: int, variant: int) -> bool:
    """Make variant number ``variant`` of a lie at that place; False when there is none."""
    if field == "ops":
        choices = _COMPARED[type(node.ops[at])]
        if variant >= len(choices):
            return False
        node.ops[at] = choices[variant]()
        return True
    if field == "test":
        if variant > 1:
            return False
        node.test = ast.copy_location(ast.Constant(variant == 0), node.test)
        return True
    if variant:
        return False
    if field == "body":
        gone = node.body[at]
        # Falling through says more than an answer of None, which often means the same as False.
        last = isinstance(gone, ast.Return) and isinstance(node, ast.FunctionDef)
        value = ast.Return(value=None) if last else ast.Pass()
        node.body[at] = ast.copy_location(value, gone)
        return True
    return _change_self(node)


def _change_self(node: Any) -> bool:
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        operand = ast.copy_location(ast.Call(ast.Name("bool"), [node.operand], []), node)
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _CALCULATED:
        node.op = _CALCULATED[type(node.op)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        node.value += 1
    else:
        return False
    return True


def _told(node: Any, field: str, at: int) -> str:
    return ast.unparse(node.body[at] if field == "body" else node)


def _around(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    # `8 -> 9` would name every 8 of the module: a number is told with its statement, or with what
    # stands at the head of one that has others in it.
    while not isinstance(node, ast.stmt) and isinstance(parents[node], _WITHIN):
        node = parents[node]
    return node


def _function_of(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    names = []
    while node in parents:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        node = parents[node]
    return ".".join(reversed(names)) or "the module"


def _difference(before: str, after: str, *, is_part: bool) -> str:
    before, after = (" ".join(text.split()) for text in (before, after))
    if is_part:
        same = next(
            at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new
        )
        before, after = (_behind(text, same - 45) for text in (before, after))
    return f"{_short(before)} -> {_short(after)}"


def _behind(line: str, start: int) -> str:
    return line if len(line) <= _MOST or start <= 0 else "…" + line[start:]


def _short(line: str) -> str:
    return line if len(line) <= _MOST else line[: _MOST - 1] + "…"
