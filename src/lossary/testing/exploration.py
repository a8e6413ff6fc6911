"""Looking for a counterexample to a mathematical property, in float64 on NumPy."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lossary.testing.everyday import plain_batch
from lossary.testing.samples import Batch, classes_of
from lossary.testing.subject import Subject

NEAR = 1e3  # properties are looked at where float64 can tell; accuracy has its own check
SLACK = 1e-9


class Probe:
    """A loss at fixed parameter values, as functions of batches."""

    def __init__(self, subject: Subject, parameters: Mapping[str, Any]) -> None:
        self.subject = subject
        self.parameters = dict(parameters)
        self.contract = subject.contract
        self.predictions = subject.contract.predictions
        self._values = subject.loss(parameters).values
        self._summed = subject.loss(parameters, reduction="sum")

    def values(self, batch: Batch) -> np.ndarray:
        """One value per unit."""
        with np.errstate(all="ignore"):
            return np.asarray(self._values(**{name: batch[name] for name in self.contract.inputs}))

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        """The gradient of the values' sum."""
        found = self._summed.value_and_grad(**batch)[1]
        return dict(
            zip(self.predictions, found if isinstance(found, tuple) else (found,), strict=True)
        )

    def inside(self, batch: Batch) -> np.ndarray:
        """Which units lie within their spaces."""
        held = True
        for name, array in batch.items():
            interval = self.contract.inputs[name].interval
            if array.dtype.kind == "f" and not math.isinf(interval.high - interval.low):
                fits = (array >= interval.low) & (array <= interval.high)
            elif interval.low > -math.inf and array.dtype.kind == "f":
                fits = (
                    array > interval.low if interval.closed == "neither" else array >= interval.low
                )
            else:
                continue
            held = held & self.by_unit(fits, np.all)
        return np.broadcast_to(held, self.values(batch).shape)

    def by_unit(self, array: np.ndarray, how: Callable[..., Any]) -> Any:
        """Reduce an array to one number per unit (to one in all, where units meet)."""
        if not self.subject.independent or array.ndim == 0:
            return how(array)
        return how(array, axis=tuple(range(1, array.ndim))) if array.ndim > 1 else array

    def explore(self) -> Iterator[Batch]:
        """Everyday batches at several scales, and the hard points within reach."""
        for seed in range(12):
            batch = plain_batch(
                self.contract, self.parameters, rows=8 if self.large else 24, seed=seed
            )
            yield batch
            for scale in (0.05, 6.0):
                yield {
                    name: array * scale
                    if name in self.predictions
                    and self.contract.inputs[name].interval.high == math.inf
                    else array
                    for name, array in batch.items()
                }
        yield from self.hard()
        yield from self.joints()

    def joints(self) -> Iterator[Batch]:
        """Logits that lead by a parameter's value: where margins have their kinks."""
        gaps = [value for value in self.parameters.values() if isinstance(value, float)]
        gaps = [gap for gap in gaps if 0.05 <= gap <= NEAR]
        if not gaps or self.subject.layouts != {"class axis", "class"}:
            return
        classes = classes_of(self.parameters)
        batch = plain_batch(self.contract, self.parameters, rows=classes * len(gaps))
        lead = np.concatenate([gap * np.eye(classes) for gap in gaps])
        (name,) = self.predictions
        yield {**batch, name: lead, "target": np.tile(np.arange(classes), len(gaps))}

    def hard(self) -> Iterator[Batch]:
        """The hard batches at these parameter values, within reach."""
        for sample in self.subject.samples:
            if dict(sample.parameters) == self.parameters:
                arrays = sample.arrays
                if self.subject.independent:
                    held = np.ones(len(next(iter(arrays.values()))), dtype=bool)
                    for array in arrays.values():
                        if array.dtype.kind == "f":
                            held &= self.by_unit(np.abs(array) <= NEAR, np.all)
                    arrays = {name: array[held] for name, array in arrays.items()}
                yield arrays

    @property
    def large(self) -> bool:
        """Whether a unit is so large that few of them must do."""
        return "image" in self.subject.layouts


def where(batch: Batch, probe: Probe, unit: int) -> str:
    """The inputs of one unit, as text."""
    parts = {
        name: array[unit] if probe.subject.independent and array.ndim else array
        for name, array in batch.items()
    }
    return ", ".join(
        f"{name}={' '.join(np.array2string(np.asarray(part), threshold=8).split())}"
        for name, part in parts.items()
    )


_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "max": max,
    "min": min,
    "log": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
}


def number_of(expression: float | str, parameters: Mapping[str, Any]) -> float:
    """A constant of a property: a number, or arithmetic over the parameters' names."""
    if not isinstance(expression, str):
        return float(expression)
    return float(_evaluate(ast.parse(expression, mode="eval").body, parameters))


def _evaluate(node: ast.AST, parameters: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in parameters:
            return parameters[name]
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_evaluate(left, parameters), _evaluate(right, parameters))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, parameters)
        case ast.Call(func=ast.Name(id=name), args=given) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_evaluate(each, parameters) for each in given))
    raise ValueError(f"{ast.unparse(node)} is not arithmetic over {', '.join(parameters)}")
