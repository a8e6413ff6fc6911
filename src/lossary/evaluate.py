"""``Loss``: a loss with its choices made. Convert, check, choose, mask, weigh, reduce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lossary import cost, inputs
from lossary.contract import Array, Contract, LossError, contract_of, resolve
from lossary.cost import EMPTY, REDUCTIONS, Total
from lossary.gradient import value_and_grad
from lossary.xp import library, namespace

_SETTINGS = {
    "reduction": "mean",
    "predictions": None,
    "ignore": None,
    "empty": "zero",
    "validate": None,
    "implementation": "auto",
}


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Loss:
    """A loss with its choices made: ``Loss("huber", delta=2.0)(prediction, target)``.

    ``loss`` is a name (any spelling of the field) or a function of (prediction, target) that returns
    unreduced values. Further keywords are the loss's own parameters.

    - ``reduction``: none, sum, mean, mean_over_batch or batch_mean (see ``cost.reduce``).
    - ``predictions``: how they arrive: logits, probabilities, log_probabilities, rates ...;
      by default as the definition takes them, or as the name implies.
    - ``ignore``: a target value that marks units to skip (NaN works).
    - ``empty``: what a mean over nothing is: zero, nan or error.
    - ``validate="values"``: check that values lie in their spaces, wherever they can be seen.
    - ``implementation``: auto, definition, or a kernel by name.

    Masked means absent: a NaN under the mask reaches neither value nor gradient. Unlike shapes are
    an error, never broadcast. Half precision is computed in float32; the result's dtype and device
    follow the prediction. Errors: ``LossError``.
    """

    contract: Contract
    parameters: Mapping[str, Any]
    reduction: str
    predictions: str | None
    ignore: float | None
    empty: str
    validate: str | None
    implementation: str

    def __init__(
        self,
        loss: str | Callable[..., Array] | Contract,
        *,
        reduction: str = "mean",
        predictions: str | None = None,
        ignore: float | None = None,
        empty: str = "zero",
        validate: str | None = None,
        implementation: str = "auto",
        **parameters: Any,
    ) -> None:
        presets: Mapping[str, Any] = {}
        if isinstance(loss, str):
            contract, presets = resolve(loss)
        else:
            contract = loss if isinstance(loss, Contract) else contract_of(loss)
        contract.read()
        given = {key: value for key, value in presets.items() if key != "predictions"} | parameters
        ways = inputs.arrivals(contract)
        arrival = predictions or presets.get("predictions")
        _one_of(contract.name, "reduction", reduction, REDUCTIONS)
        _one_of(contract.name, "empty", empty, EMPTY)
        _one_of(contract.name, "validate", validate, (None, "values"))
        if arrival is not None:
            _one_of(contract.name, "predictions", arrival, ways)
        settings = {
            "contract": contract,
            "parameters": contract.check_parameters(given),
            "reduction": reduction,
            "predictions": None if arrival in (None, *ways[:1]) else arrival,
            "ignore": ignore,
            "empty": empty,
            "validate": validate,
            "implementation": implementation,
        }
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    # -- calling ------------------------------------------------------------------------------

    def __call__(
        self,
        *arrays: Array,
        weights: Array | None = None,
        class_weights: Array | None = None,
        mask: Array | None = None,
        **named: Array,
    ) -> Array:
        """The reduced loss of (prediction, target): a scalar, or one value per unit for ``none``.

        ``weights`` and ``mask`` (True counts) have the shape of the unreduced values or of their
        leading dimensions; ``class_weights`` has one number per class.
        """
        values, details, result = self._evaluate(arrays, named, weights, class_weights, mask)
        reduced = cost.reduce(values, self.reduction, empty=self.empty, **details)
        return _as(reduced, result)

    def values(self, *arrays: Array, mask: Array | None = None, **named: Array) -> Array:
        """The unreduced losses, one per unit, unweighted; 0 where masked or ignored."""
        values, details, result = self._evaluate(arrays, named, None, None, mask)
        return _as(cost.reduce(values, "none", **details), result)

    def total(
        self,
        *arrays: Array,
        weights: Array | None = None,
        class_weights: Array | None = None,
        mask: Array | None = None,
        **named: Array,
    ) -> Total:
        """Weighted sum and weight. Totals of any split of the data add to the whole's."""
        values, details, _ = self._evaluate(arrays, named, weights, class_weights, mask)
        return cost.total(values, **details)

    def value_and_grad(
        self, *arrays: Array, wrt: tuple[str, ...] | None = None, **keywords: Any
    ) -> tuple[Array, Array | tuple[Array, ...]]:
        """The reduced loss and its gradient by the prediction (a tuple of them if there are several)."""
        bound = self._bind(arrays, {k: keywords.pop(k) for k in list(keywords) if k in self.contract.inputs})
        names = wrt or self.contract.predictions
        inputs.check(self.contract, bound, self.parameters)

        def function(*predictions: Array) -> Array:
            given = bound | dict(zip(names, predictions, strict=True))
            home = namespace(*predictions)
            if home is not namespace(*bound.values()):  # NumPy differentiated by another library
                given = {key: _move(value, home) for key, value in given.items()}
                moved = {key: _move(value, home) for key, value in keywords.items()}
            else:
                moved = keywords
            return self(**given, **moved)

        value, gradients = value_and_grad(function, tuple(bound[name] for name in names))
        return value, gradients[0] if len(gradients) == 1 else gradients

    def explain(self, *arrays: Array, **named: Array) -> str:
        """Which implementation runs for these arrays, and why the others do not."""
        bound = self._bind(arrays, named)
        return f"{self.contract.name} on {library(*bound.values())}: the definition"

    # -- the steps ----------------------------------------------------------------------------

    def _bind(self, arrays: tuple[Array, ...], named: Mapping[str, Array]) -> dict[str, Array]:
        names = tuple(self.contract.inputs)
        if len(arrays) + len(named) != len(names) or any(name not in names for name in named):
            came = ", ".join([*names[: len(arrays)], *named]) or "nothing"
            raise LossError(f"{self.contract.name}: takes {', '.join(names)}; got {came}")
        return dict(zip(names, arrays, strict=False)) | dict(named)

    def _evaluate(
        self,
        arrays: tuple[Array, ...],
        named: Mapping[str, Array],
        weights: Array | None,
        class_weights: Array | None,
        mask: Array | None,
    ) -> tuple[Array, dict[str, Array | None], Any]:
        """Unreduced values, what reduces them (weights, counts, measure), and the result's dtype."""
        contract, parameters = self.contract, self.parameters
        bound = self._bind(arrays, named)
        first = bound[contract.predictions[0]] if contract.predictions else arrays[0]
        xp = namespace(first)
        if mask is not None:
            mask = inputs.companion("mask", contract, mask, first)
            mask = mask if xp.isdtype(mask.dtype, "bool") else mask != 0
        if self.ignore is not None and contract.target_name is not None:
            kept = inputs.ignored(bound[contract.target_name], self.ignore)
            if mask is not None:
                kept = xp.logical_and(kept, cost.spread(mask, kept, "mask", contract.name))
            mask = kept
        if mask is not None:
            bound = inputs.blank(contract, bound, mask, parameters)
        inputs.check(contract, bound, parameters)
        if self.validate:
            inputs.check_values(contract, bound)
        bound, result = inputs.working(contract, bound)
        compute = contract.compute
        if self.predictions in contract.forms:
            compute = contract.forms[self.predictions]
        elif self.predictions is not None:
            bound = inputs.convert(contract, bound, self.predictions)
        inner: dict[str, Array] = {}
        if mask is not None and "mask" in contract.accepts:
            inner["mask"] = mask
        if class_weights is not None:
            class_weights = inputs.companion("class_weights", contract, class_weights, first)
            class_weights = xp.astype(class_weights, bound[contract.predictions[0]].dtype)
            if "class_weights" in contract.accepts:
                inner["class_weights"] = class_weights
        values = compute(*bound.values(), **parameters, **inner)
        details = self._details(bound, values, weights, class_weights, mask)
        return values, details, result

    def _details(
        self,
        bound: dict[str, Array],
        values: Array,
        weights: Array | None,
        class_weights: Array | None,
        mask: Array | None,
    ) -> dict[str, Array | None]:
        contract, xp = self.contract, namespace(values)
        measure = None
        if weights is not None:
            weights = inputs.companion("weights", contract, weights, values)
            weights = cost.spread(xp.astype(weights, values.dtype), values, "weights", contract.name)
        if class_weights is not None:
            factor = inputs.class_weights_of(contract, bound, class_weights, self.parameters)
            if "class_weights" in contract.accepts:
                measure = factor
            else:
                weights = factor if weights is None else weights * factor
        counts = None
        if contract.counts is not None:
            counts = contract.counts(bound[contract.target_name], mask)
        elif mask is not None:
            whole = contract.unit is not None and contract.unit.name == "region"
            if whole and "mask" in contract.accepts and mask.ndim > values.ndim:
                counts = xp.any(mask, axis=tuple(range(values.ndim, mask.ndim)))
            else:
                counts = cost.spread(mask, values, "mask", contract.name)
        return {"weights": weights, "counts": counts, "measure": measure}

    # -- the object ---------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """A plain dictionary from which ``Loss.from_config`` makes an equal loss."""
        return {
            "loss": self.contract.name,
            **{key: getattr(self, key) for key in _SETTINGS},
            "parameters": dict(self.parameters),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Loss:
        """The loss of a ``config``; it is looked up by name, nothing is executed."""
        unknown = set(config) - {"loss", "parameters", *_SETTINGS}
        if "loss" not in config or unknown:
            raise LossError(
                f"Loss.from_config: expected loss, parameters, {', '.join(_SETTINGS)}; "
                f"got {', '.join(map(str, config)) or 'nothing'} (of a newer version?)"
            )
        settings = {key: config[key] for key in _SETTINGS if key in config}
        return cls(config["loss"], **settings, **config.get("parameters", {}))

    @property
    def _key(self) -> tuple[Any, ...]:
        settings = tuple(repr(getattr(self, name)) for name in _SETTINGS)
        return (self.contract.compute, tuple(self.parameters.items()), settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> Any:
        settings = {key: getattr(self, key) for key in _SETTINGS}
        return (_rebuild, (self.contract.compute, settings, dict(self.parameters)))

    def __repr__(self) -> str:
        registered = getattr(self.contract.compute, "contract", None) is not None
        name = repr(self.contract.name) if registered else self.contract.name
        chosen = {
            key: getattr(self, key)
            for key, default in _SETTINGS.items()
            if getattr(self, key) != default
        }
        chosen |= {
            key: value
            for key, value in self.parameters.items()
            if self.contract.parameters[key].required or value != self.contract.parameters[key].default
        }
        return f"Loss({', '.join([name, *(f'{key}={_literal(value)}' for key, value in chosen.items())])})"


def _rebuild(compute: Callable[..., Array], settings: dict[str, Any], parameters: dict[str, Any]) -> Loss:
    return Loss(compute, **settings, **parameters)


def _literal(value: Any) -> str:
    return f"float({str(value)!r})" if isinstance(value, float) and value - value != 0 else repr(value)


def _one_of(name: str, setting: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        expected = ", ".join(map(str, allowed)) or "left out"
        raise LossError(f"{name}: {setting}={value!r} is not known; it can be {expected}")


def _as(array: Array, dtype: Any) -> Array:
    return array if array.dtype == dtype else namespace(array).astype(array, dtype)


def _move(value: Any, home: Any) -> Any:
    """A NumPy array in the library of ``home``; everything else stays."""
    if type(value).__module__ != "numpy":
        return value
    import numpy as np

    return home.asarray(np.ascontiguousarray(value))
