"""A user's function made ready to be checked, whatever it returns and wherever it runs.

The battery wants losses of single units on NumPy arrays at least. Here is found out, by calling the
function once on an everyday batch, what data it takes, on which libraries, and whether it returns
a mean; where needed it is wrapped, and ``notes`` say so.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import (
    ANYTHING,
    Array,
    Binary,
    Classes,
    ClassLogits,
    Contract,
    Embeddings,
    Logit,
    LossError,
    PerElement,
    PerSample,
    PositiveReal,
    Real,
    contract_of,
)
from lossary.evaluate import Loss
from lossary.testing.everyday import plain_batch
from lossary.testing.libraries import Library, library_of
from lossary.testing.oracle import Oracle
from lossary.testing.settings import parameter_sets
from lossary.testing.subject import Subject
from lossary.xp import is_array, library, namespace

# What a function without annotations may take: the first kind that gives finite numbers.
KINDS = (
    (ClassLogits, Classes, PerSample),
    (Embeddings, Embeddings, PerSample),
    (Real, Real, PerElement),
    (Logit, Binary, PerElement),
    (PositiveReal, PositiveReal, PerElement),
)


@dataclass(frozen=True)
class Prepared:
    """The subject to check, the libraries that the function runs on, and what to tell."""

    subject: Subject
    libraries: list[Library]
    notes: list[str]


def prepare(
    thing: Callable[..., Any], name: str, libraries: Sequence[str], oracle: Oracle | None = None
) -> Prepared:
    """Ready to be checked on those of ``libraries`` on which it runs; LossError if on none."""
    function = _function(thing, name)
    problems = []
    for contract in _guesses(function):
        seen: dict[str, Array | LossError] = {}
        for each in libraries:
            try:
                seen[each] = _first_look(contract, library_of(each))
            except LossError as problem:
                seen[each] = problem
        homes = [each for each, found in seen.items() if not isinstance(found, LossError)]
        if homes:
            return _prepared(contract, seen, homes, oracle)
        problems += list(seen.values())
    raise next(problem for problem in reversed(problems) if isinstance(problem, LossError))


def _function(thing: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A plain function of positional arrays: modules and other objects have no name or page."""
    if isinstance(thing, type):
        raise LossError(
            f"{name} is a class; name an object of it, such as {name.lower()} = {name}()"
        )
    if hasattr(thing, "contract") or inspect.isfunction(thing):
        return thing

    def function(*arrays: Any, **parameters: Any) -> Any:
        return thing(*arrays, **parameters)

    call = getattr(thing, "forward", thing)
    function.__name__, function.__doc__ = name, inspect.getdoc(thing)
    try:
        function.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise LossError(f"{name} shows no signature; wrap it in a function") from None
    return function


def _guesses(function: Callable[..., Any]) -> Iterator[Contract]:
    contract = contract_of(function)
    contract.read()
    spaces = list(contract.inputs.values())
    if len(spaces) != 2 or any(space is not ANYTHING for space in spaces):
        yield contract
        return
    for prediction, target, unit in KINDS:
        hints = {"prediction": prediction, "target": target, "return": unit}
        yield _annotated(contract, function, hints)


def _annotated(contract: Contract, compute: Callable[..., Any], hints: dict[str, Any]) -> Contract:
    """The contract of ``compute`` under the name and with the arguments of another."""

    @functools.wraps(contract.compute)
    def wrapper(*arrays: Any, **parameters: Any) -> Any:
        return compute(*arrays, **parameters)

    wrapper.__dict__.pop("contract", None)
    wrapper.__annotations__ = {**getattr(contract.compute, "__annotations__", {}), **hints}
    wrapper.__qualname__ = f"<locals>.{contract.name}"  # cannot be pickled by name
    signature = inspect.signature(contract.compute)
    if hints:  # positional arguments are passed by position: the second is the target
        names = dict(zip(contract.inputs, ("prediction", "target"), strict=True))
        signature = signature.replace(
            parameters=[
                each.replace(name=names.get(each.name, each.name))
                for each in signature.parameters.values()
            ]
        )
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    made = Contract(wrapper, contract.properties, paper=contract.paper)
    made.read()
    return made


def _first_look(contract: Contract, home: Library) -> Array:
    """What the function returns for an everyday batch; a LossError that says what is wrong."""
    parameters = parameter_sets(contract)[0]
    batch = plain_batch(contract, parameters, rows=6)
    arrays = home.arrays({name: array.copy() for name, array in batch.items()})
    where = ", ".join(f"{name} {array.shape}" for name, array in batch.items())
    where = f"{contract.name}: for {where} on {home.name} it"
    try:
        with np.errstate(all="ignore"):
            found = contract.compute(*arrays.values(), **parameters)
    except Exception as fault:
        told = textwrap.shorten(str(fault), 160, placeholder=" ...") or "nothing more"
        raise LossError(f"{where} raised {type(fault).__name__}: {told}") from None
    if type(found) is float:
        raise LossError(
            f"{where} returned a float, which has no gradient; return an array's mean()"
        )
    if not is_array(found):
        raise LossError(
            f"{where} returned {type(found).__name__}, expected an array of losses: one for each "
            "element or sample, or their mean"
        )
    came = library(found)
    if came != library(*arrays.values()):
        raise LossError(f"{where} returned an array of {came}; give --library {came}")
    values = home.numpy(found)
    if not np.all(np.isfinite(values)):
        raise LossError(f"{where} returned {values.flat[np.argmin(np.isfinite(values))]}")
    for name, array in batch.items():
        if not np.array_equal(home.numpy(arrays[name]), array):
            raise LossError(
                f"{where} wrote into {name}; work on a copy: {name} - x instead of {name} -= x"
            )
    units, shape = len(next(iter(batch.values()))), tuple(found.shape)
    if contract.unit is not None and contract.unit.name != "tensor" and shape not in ((), (units,)):
        raise LossError(f"{where} returned values of shape {shape}, expected ({units},) or a mean")
    return found


def _prepared(
    contract: Contract, seen: dict[str, Array | LossError], homes: list[str], oracle: Oracle | None
) -> Prepared:
    notes = [
        f"{found}; it is not checked there"
        for found in seen.values()
        if isinstance(found, LossError)
    ]
    first = seen[homes[0]]
    assert not isinstance(first, LossError)
    compute = contract.compute
    unit = contract.unit.name if contract.unit else ""
    if tuple(first.shape) == () and unit in ("element", "sample"):
        compute = _one_by_one(compute)
        notes.append(
            f"{contract.name} returns one number for a batch: it is checked one sample at a time"
        )
    make = Loss
    if "numpy" not in homes:
        compute = _bridged(compute, library_of(homes[0]))
        make = _differentiated_by(library_of(homes[0]))
    if compute is not contract.compute:
        contract = _annotated(contract, compute, {})
    subject = Subject(contract, oracle, make=make)
    return Prepared(subject, [library_of(home) for home in homes], notes)


def _one_by_one(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A mean's parts: the loss of each sample by itself."""

    def each(*arrays: Array, **parameters: Any) -> Array:
        first = arrays[0]
        xp = namespace(first)
        if first.shape[0] == 0:
            return xp.sum(first, axis=tuple(range(1, first.ndim))) if first.ndim > 1 else first
        rows = range(first.shape[0])
        return xp.stack(
            [compute(*(array[row : row + 1] for array in arrays), **parameters) for row in rows]
        )

    return each


def _bridged(compute: Callable[..., Any], home: Library) -> Callable[..., Any]:
    """NumPy arrays go to the one library that the function knows, and come back."""

    def either(*arrays: Array, **parameters: Any) -> Array:
        if library(arrays[0]) != "numpy":
            return compute(*arrays, **parameters)
        found = compute(*(home.array(np.array(array)) for array in arrays), **parameters)
        return home.numpy(found)

    return either


def _differentiated_by(home: Library) -> type[Loss]:
    """``Loss`` that takes NumPy arrays to this library for their gradient, and to no other."""

    def there(value: Any) -> Any:
        return home.array(np.array(value)) if isinstance(value, np.ndarray) else value

    class Bridged(Loss):
        def value_and_grad(self, *arrays: Array, **named: Any) -> tuple[Array, Any]:
            if (
                library(*arrays, *(named[key] for key in self.contract.inputs if key in named))
                != "numpy"
            ):
                return super().value_and_grad(*arrays, **named)
            moved = {key: there(value) for key, value in named.items()}
            value, gradient = super().value_and_grad(*map(there, arrays), **moved)
            if isinstance(gradient, tuple):
                return home.numpy(value), tuple(map(home.numpy, gradient))
            return home.numpy(value), home.numpy(gradient)

    return Bridged
