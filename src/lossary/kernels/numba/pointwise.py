"""Pointwise losses: one kernel per formula and purpose, its source written from the formula.

The source text depends on ``formulas`` and this file alone, and the name of a kernel carries a
hash of all that it is made of, so Numba's disk cache is found again in every process and never
stale.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, intp

from lossary.kernels import formulas
from lossary.kernels.numba import machine, pool, scalar, special
from lossary.kernels.numba.memory import address
from lossary.kernels.numba.source import inlined
from lossary.kernels.pointwise import computes, names, parameter_names

REAL = {"float32": np.float32, "float64": np.float64}

# Sums run in the array's precision within a group, for a loop that holds a double takes vectors of
# half as many numbers; in double precision within a block, and pairwise over blocks, in an order
# that does not depend on the number of threads. Where the memory is what takes time, as with
# gradients of formulas that compute little, doubles cost nothing, and short loops do.
GROUP = 256
BLOCK: dict[Any, int] = {np.float32: 2048, np.float64: 512}


@functools.cache
def _tests(loss: str) -> tuple[Any, ...]:
    """The questions that a formula's branches ask about its parameters, in order."""
    tree = ast.parse(inspect.getsource(getattr(formulas, loss)))
    return tuple(
        compile(ast.Expression(node.test), formulas.__file__, "eval")
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
    )


def branches(loss: str, given: tuple[Any, ...]) -> tuple[bool, ...]:
    """Which branches of the formula these parameters take."""
    numbers = dict(zip(parameter_names(loss), given, strict=True))
    return tuple(bool(eval(test, {}, numbers)) for test in _tests(loss))


@functools.cache
def _formula(loss: str, real: type, taken: tuple[bool, ...]) -> Callable[..., Any]:
    text = inspect.getsource(getattr(formulas, loss))
    return inlined(text, loss, formulas.__file__, scalar.functions(real), real, taken)


def source(
    loss: str, *, weighted: bool, gradient: bool, values: bool, columns: tuple[str, ...] = ()
) -> str:
    """The source of one kernel: a block loop that is vectorised, and the loop over blocks.

    Addresses come as integers, 0 for what the kernel does not use. ``partial`` receives one sum per
    block; gradients the slopes times ``factor`` (and weight); ``values`` the unreduced values.
    Parameters among ``columns`` are arrays that repeat themselves after ``period`` numbers.
    """
    inputs, slopes, gradients = names(loss)
    arrays = [*inputs, *["weights"] * weighted, *gradients * gradient]
    parameters = parameter_names(loss)
    scalars = [name for name in parameters if name not in columns]
    each = [f"{name}[i]" if name in columns else name for name in parameters]
    call = ", ".join([*(f"{name}[i]" for name in inputs), *each])
    body = [f"value, {', '.join(slopes)} = formula({call})"]
    if weighted:  # a weight of 0 means absent, whatever is there
        body += ["weight = weights[i]", "present = weight != zero"]
        body += ["value = where(present, value, zero)"]
        body += [f"{slope} = where(present, weight * {slope}, zero)" for slope in slopes]
    for into, slope in zip(gradients * gradient, slopes * gradient, strict=True):
        body += [f"{into}[i] = {slope} * factor"]
    body += ["values[i] = value"] * values
    body += ["value = weight * value"] * weighted
    wide = gradient and not computes(loss)
    group = "{block_size}" if wide else "{group}"
    arrays += ["values"] * values
    places = [f"past({name}, low)" for name in arrays]
    places += [f"past({name}, low % period)" for name in columns]
    arrays += columns
    integers = [*(f"{name}_at" for name in columns), *["period"][: len(columns)]]
    lines = [
        f"def block({', '.join([*arrays, 'n', 'factor', *scalars])}):",
        "    full_width()",
        "    total = 0.0",
        f"    for start in range(0, n, {group}):",
        f"        part = {'0.0' if wide else 'zero'}",
        f"        for i in range(start, start + {group} if n - start > {group} else n):",
        *(f"            {line}" for line in body),
        f"            part += {'float64(value)' if wide else 'value'}",
        "        total += float64(part)",
        "    return total",
        "",
        f"def {loss}(begin, end, size, {', '.join(f'{name}_at' for name in inputs)}, weights_at,",
        f"    {', '.join(f'{name}_at' for name in gradients)}, values_at, partial_at,",
        f"    {', '.join([*integers, 'factor', *scalars])}):",
        *(f"    {name} = array_at({name}_at)" for name in arrays),
        "    partial = doubles_at(partial_at)",
        "    total = 0.0",
        "    for index in range(begin, end):",
        "        low = index * {block_size}",
        "        n = {block_size} if {block_size} < size - low else size - low",
        "        total = block("
        + ", ".join([*places, "n", "real(factor)"])
        + "".join(f", real({p})" for p in scalars)
        + ")",
        "        partial[index] = total",
        "    return total",
    ]
    return "\n".join(lines)


@functools.cache
def kernel(
    loss: str, real: type, weighted: bool, gradient: bool, values: bool, taken: tuple[bool, ...],
    columns: tuple[str, ...] = (),
) -> Callable[..., float]:  # fmt: skip
    """The compiled kernel; compiled once per machine, then read from Numba's disk cache."""
    text = source(loss, weighted=weighted, gradient=gradient, values=values, columns=columns)
    text = text.replace("{block_size}", str(BLOCK[real])).replace("{group}", str(GROUP))
    formula = _formula(loss, real, taken)
    space = formula.__globals__ | {
        "__name__": __name__, "real": real, "zero": real(0),
        "float64": np.float64, "np": np,
        "array_at": machine.POINTER[real], "doubles_at": machine.POINTER[np.float64],
        "past": machine.past, "full_width": machine.full_width,
    }  # fmt: skip
    # Compiled under this file's name: Numba keeps its cache beside the file of the source.
    exec(compile(text, __file__, "exec"), space)
    variant = f"{special.fingerprint(sys.modules[__name__])}_{loss}_{real.__name__}"
    variant += f"{'_weighted' * weighted}{'_gradient' * gradient}{'_values' * values}"
    variant += "".join(f"_{int(yes)}" for yes in taken) + "".join(f"_{name}" for name in columns)
    space["formula"] = special.bind(formula, space, special.EXACT, variant)
    space["block"] = special.bind(space["block"], space, special.LOOSE, variant)
    reals = 1 + len(parameter_names(loss)) - len(columns)
    inputs, _, gradients = names(loss)
    integers = 6 + len(inputs) + len(gradients) + len(columns) + bool(columns)
    signature = float64(*[intp] * integers, *[float64] * reals)
    return special.entry(space[loss], space, signature, variant)


@functools.lru_cache(maxsize=1024)
def prepared(
    loss: str,
    dtype: str,
    shape: tuple[int, ...],
    purpose: tuple[bool, bool, bool],
    parameters: tuple[Any, ...],
) -> Callable[..., float]:
    """A function of addresses (inputs, weights, gradients, values) and the factor.

    It returns the (weighted) sum of the values times the factor; ``purpose`` says whether weights,
    gradients and values are among them.
    """
    real, size = REAL[dtype], math.prod(shape)
    columns = {
        name: np.resize(np.asarray(value, real), len(value) + BLOCK[real])
        for name, value in zip(parameter_names(loss), parameters, strict=True)
        if isinstance(value, tuple)
    }
    taken = branches(loss, parameters) if _tests(loss) else ()
    run = kernel(loss, real, *purpose, taken, tuple(columns))
    blocks = -(-size // BLOCK[real])
    repeated = [address(column) for column in columns.values()] + [shape[-1]] * bool(columns)
    scalars = [value for value in parameters if not isinstance(value, tuple)]

    def launch(*memory: Any) -> float:
        *places, factor = memory
        if blocks == 1:  # its sum is what the kernel returns
            return factor * run(0, 1, size, *places, _NOWHERE, *repeated, factor, *scalars)  # type: ignore[no-any-return]
        partial = np.empty(blocks)
        rest = (size, *places, address(partial), *repeated)
        pool.run(run, blocks, pool.parts(size // 2), *rest, factor, *scalars)
        return factor * float(partial.sum())  # type: ignore[no-any-return]

    launch.columns = columns  # type: ignore[attr-defined]  # kept alive with their addresses
    return launch if blocks else _nothing


_UNREAD = np.empty(1)
_NOWHERE = address(_UNREAD)


def _nothing(*memory: Any) -> float:
    return 0.0
