# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Plain functions as Triton functions: the words that formulas use, in one precision.

Triton reads the source of what it compiles, so rewritten functions are entered in Python's line
cache under names of their own.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
from collections.abc import Callable, Mapping
from typing import Any

import triton
import triton.language as tl

from lossary.kernels import elementary, formulas


class _ExactQuotients(ast.NodeTransformer):
    """``a / b`` as ``divide(a, b)``: a GPU's own quotient in single precision is off by 2 ulp."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("divide", ast.Load()), [node.left, node.right], [])


def formal(text: str, name: str, mark: str, names: Mapping[str, Any]) -> Any:
    """A formula's source for Triton, its quotients exact; ``mark`` tells variants apart."""
    tree = _ExactQuotients().visit(ast.parse(text))
    text = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    return compiled(text, name, mark, names)


def compiled(text: str, name: str, mark: str, names: Mapping[str, Any]) -> Any:
    """The function ``name`` of the source ``text`` for Triton."""
    file = f"<lossary triton {mark} {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space = {**names, "tl": tl, "__name__": __name__}
    exec(compile(text, file, "exec"), space)  # our own sources only
    return triton.jit(space[name])


@triton.jit
def _where(condition, yes, no):
    return tl.where(condition, yes, no)


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _quotient(a, b):
    return a / b


@triton.jit
def _exact_quotient(a, b):
    # Both operands must be tensors of one shape.
    a, b = tl.where(b == b, a, a), tl.where(a == a, b, b)
    return tl.div_rn(a, b)


@triton.jit
def _root(x):
    return tl.sqrt(x)


@triton.jit
def _exact_root(x):
    return tl.sqrt_rn(x)


@triton.jit
def _single(x):
    return x.to(tl.float32)


@triton.jit
def _double(x):
    return x.to(tl.float64)


@triton.jit
def _integer32(x):
    return x.to(tl.int32)


@triton.jit
def _integer64(x):
    return x.to(tl.int64)


@triton.jit
def _bits32(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def _bits64(x):
    return x.to(tl.int64, bitcast=True)


@triton.jit
def _from_bits32(x):
    return x.to(tl.float32, bitcast=True)


@triton.jit
def _from_bits64(x):
    return x.to(tl.float64, bitcast=True)


@functools.cache
def words(dtype: str) -> dict[str, Any]:
    """What a formula's words mean in ``float32`` or ``float64``."""
    single = dtype == "float32"
    precision = elementary.SINGLE if single else elementary.DOUBLE
    found: dict[str, Any] = {
        "where": _where, "absolute": _absolute,
        "divide": _exact_quotient if single else _quotient,
        "ratio": _exact_quotient if single else _quotient,
        "sqrt": _exact_root if single else _root,
        "real": _single if single else _double, "integer": _integer32 if single else _integer64,
        "bits": _bits32 if single else _bits64,
        "from_bits": _from_bits32 if single else _from_bits64,
    }  # fmt: skip
    numbers, patterns = elementary.constants(precision)
    found |= {name: tl.constexpr(value) for name, value in {**numbers, **patterns}.items()}
    for name in elementary.POLYNOMIALS:
        text = elementary.polynomial(getattr(precision, name))
        found[name] = formal(f"def {name}(x):\n    return {text}\n", name, dtype, found)
    for name, function in inspect.getmembers(elementary, inspect.isfunction):
        if name not in ("polynomial", "constants"):
            found[name] = formal(inspect.getsource(function), name, dtype, found)
    return found


@functools.cache
def formula(loss: str, dtype: str) -> Any:
    """The formula of a loss as a Triton function of one precision."""
    text = inspect.getsource(getattr(formulas, loss))
    return formal(text, loss, dtype, words(dtype))


def bound(function: Callable[..., Any], dtype: str, **names: Any) -> Any:
    """A plain function of this package for Triton, its words those of the precision."""
    constants = {name: tl.constexpr(value) for name, value in names.items()}
    text, mark = inspect.getsource(function), f"{dtype} {names}"
    return compiled(text, function.__name__, mark, {**words(dtype), **constants})
