"""Pointwise losses: a kernel around the formula of each."""

from __future__ import annotations

import functools
from typing import Any

import triton

from lossary.kernels import pointwise
from lossary.kernels.triton import language

BLOCK = 1024


def source(inputs: tuple[str, ...], slopes: tuple[str, ...], gradients: tuple[str, ...]) -> str:
    """Value, slopes and sum of one block of elements; ``partial`` receives the block's sum."""
    arrays = [*inputs, "weights", *gradients, "values", "partial"]
    flags = ["parameters", "WEIGHTED", "GRADIENT", "VALUES", "BLOCK"]
    absent = [f"{slope} = where(weight != 0.0, weight * {slope}, 0.0)" for slope in slopes]
    store = [
        f"tl.store({into}_at + index, {slope} * tl.load(factor_at), mask=inside)"
        for into, slope in zip(gradients, slopes, strict=True)
    ]
    body = [
        "block = tl.program_id(0).to(tl.int64)",
        "index = block * BLOCK + tl.arange(0, BLOCK)",
        "inside = index < size",
        *(f"{name} = tl.load({name}_at + index, mask=inside, other=0.0)" for name in inputs),
        f"value, {', '.join(slopes)} = formula({', '.join(inputs)}, *parameters)",
        "if WEIGHTED:",  # a weight of 0 means absent, whatever is there
        "    weight = tl.load(weights_at + index, mask=inside, other=0.0)",
        "    value = where(weight != 0.0, value, 0.0)",
        *(f"    {line}" for line in absent),
        "if GRADIENT:",
        *(f"    {line}" for line in store),
        "if VALUES:",
        "    tl.store(values_at + index, value, mask=inside)",
        "if WEIGHTED:",
        "    value = weight * value",
        "tl.store(partial_at + block, tl.sum(where(inside, value, 0.0).to(tl.float64)))",
    ]
    given = [*(f"{name}_at" for name in arrays), "size", "factor_at"]
    given += [f"{name}: tl.constexpr" for name in flags]
    return "\n    ".join([f"def pointwise({', '.join(given)}):", *body]) + "\n"


@functools.cache
def kernel(loss: str, dtype: str) -> Any:
    """The kernel of one loss in one precision; Triton compiles it for each set of parameters."""
    words = language.words(dtype) | {"formula": language.formula(loss, dtype)}
    return language.compiled(source(*pointwise.names(loss)), "pointwise", f"{dtype} {loss}", words)


def launch(
    loss: str, dtype: str, arrays: tuple[Any, ...], partial: Any, size: int, factor: Any,
    parameters: tuple[float, ...],
) -> None:  # fmt: skip
    """Run over flat memory; ``arrays``: inputs, weights, gradients, values (or None)."""
    weights, gradient, *_, values = arrays[len(pointwise.names(loss)[0]) :]
    kernel(loss, dtype)[(triton.cdiv(size, BLOCK),)](
        *arrays, partial, size, factor, parameters=parameters,
        WEIGHTED=weights is not None, GRADIENT=gradient is not None, VALUES=values is not None,
        BLOCK=BLOCK,
    )  # fmt: skip
