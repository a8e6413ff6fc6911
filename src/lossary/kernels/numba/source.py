"""Plain functions rewritten for Numba: constants in the right precision, branches taken."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, cast

from lossary.kernels.numba.machine import always_inline


class _Specialised(ast.NodeTransformer):
    """A function with its branches taken, and its numbers as constants of its precision.

    A bare 0.5 would widen float32. A branch asks about a parameter (an ``if`` statement, not
    ``where``); it is decided before compiling, for a loop with both halves would compute both.
    """

    def __init__(self, taken: tuple[bool, ...]) -> None:
        self.values: dict[str, float] = {}
        self.taken = iter(taken)

    def visit_If(self, node: ast.If) -> list[ast.stmt]:
        kept = node.body if next(self.taken) else node.orelse
        return [self.visit(statement) for statement in kept]

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, float):
            return node
        name = f"constant{len(self.values)}"
        self.values[name] = node.value
        return ast.Name(name, ast.Load())


def inlined(
    text: str,
    name: str,
    file: str,
    names: Mapping[str, Any],
    real: type,
    taken: tuple[bool, ...] = (),
) -> Callable[..., Any]:
    """The function ``name`` of the source ``text``, to be compiled as part of its callers."""
    specialised = _Specialised(taken)
    tree = specialised.visit(ast.parse(text))
    tree.body[0].body.insert(0, ast.parse("always_inline()").body[0])
    ast.fix_missing_locations(tree)
    space = dict(names) | {key: real(value) for key, value in specialised.values.items()}
    space["always_inline"] = always_inline
    exec(compile(tree, file, "exec"), space)  # our own sources only
    return cast(Callable[..., Any], space[name])
