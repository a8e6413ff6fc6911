"""``Loss``: a loss with its choices made. Convert, check, choose, mask, weigh, reduce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lossary import choose, cost, inputs
from lossary.contract import Array, Contract, LossError, contract_of, resolve
from lossary.cost import EMPTY, REDUCTIONS, Total
from lossary.gradient import value_and_grad
from lossary.xp import library, namespace, signature

if TYPE_CHECKING:
    from lossary.kernels import Kernel

_SETTINGS = {
    "reduction": "mean",
    "predictions": None,
    "ignore": None,
    "empty": "zero",
    "validate": None,
    "implementation": "auto",
}


class _Plan(NamedTuple):
    """What shapes and dtypes decide: worked out once for arrays of one signature."""

    casts: dict[str, Any]
    result: Any  # the dtype of the result
    definition_only: str | None  # why no kernel can stand in, whatever it supports
    kernels: tuple[Kernel, ...]
    scale: float  # of the sum, where every unit counts alike


class _Call(NamedTuple):
    """The arrays of one call, checked and cast; masked places are still as they came."""

    arrays: dict[str, Array]
    plan: _Plan
    weights: Array | None
    class_weights: Array | None
    mask: Array | None


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Loss:
    """A loss with its choices made: ``Loss("huber", delta=2.0)(prediction, target)``.

    ``loss`` is a name (any spelling of the field) or a function of (prediction, target) that
    returns unreduced values. Further keywords are the loss's own parameters.

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
    _plans: dict[tuple[Any, ...], _Plan]

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
        settings["_plans"] = {}
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
        call = self._prepare(arrays, named, weights, class_weights, mask)
        kernel = self._kernel(call)
        if kernel is not None and kernel.scaled_sum is not None and self.reduction != "none":
            return kernel.scaled_sum(*call.arrays.values(), **self._share(call), **self.parameters)
        values, details = self._evaluate(call)
        return _as(
            cost.reduce(values, self.reduction, empty=self.empty, **details), call.plan.result
        )

    def values(self, *arrays: Array, mask: Array | None = None, **named: Array) -> Array:
        """The unreduced losses, one per unit, unweighted; 0 where masked or ignored."""
        return self.units(*arrays, mask=mask, **named)[0]

    def units(
        self, *arrays: Array, mask: Array | None = None, **named: Array
    ) -> tuple[Array, Array | None]:
        """The ``values``, and where they count (broadcastable to them; None: everywhere)."""
        call = self._prepare(arrays, named, None, None, mask)
        kernel = self._kernel(call)
        if kernel is not None and kernel.values is not None and call.mask is None:
            return kernel.values(*call.arrays.values(), **self.parameters), None
        values, details = self._evaluate(call)
        return _as(cost.reduce(values, "none", **details), call.plan.result), details["counts"]

    def total(
        self,
        *arrays: Array,
        weights: Array | None = None,
        class_weights: Array | None = None,
        mask: Array | None = None,
        **named: Array,
    ) -> Total:
        """Weighted sum and weight. Totals of any split of the data add to the whole's."""
        values, details = self._evaluate(self._prepare(arrays, named, weights, class_weights, mask))
        return cost.total(values, **details)

    def value_and_grad(
        self,
        *arrays: Array,
        weights: Array | None = None,
        class_weights: Array | None = None,
        mask: Array | None = None,
        **named: Array,
    ) -> tuple[Array, Array | tuple[Array, ...]]:
        """The reduced loss and its gradient by the prediction (a tuple if there are several)."""
        bound = self._bind(arrays, named)
        call = self._prepare((), bound, weights, class_weights, mask)
        kernel = self._kernel(call)
        if kernel is not None and kernel.value_and_grad is not None:
            share = self._share(call)
            return kernel.value_and_grad(*call.arrays.values(), **share, **self.parameters)
        companions = {"weights": weights, "class_weights": class_weights, "mask": mask}

        def function(*predictions: Array) -> Array:
            given = (
                bound | dict(zip(self.contract.predictions, predictions, strict=True)) | companions
            )
            home = namespace(*predictions)
            if home is not namespace(*bound.values()):  # NumPy differentiated by another library
                given = {key: _move(value, home) for key, value in given.items()}
            return self(**given)

        value, gradients = value_and_grad(
            function, tuple(bound[name] for name in self.contract.predictions)
        )
        return value, gradients[0] if len(gradients) == 1 else gradients

    def explain(self, *arrays: Array, **named: Array) -> str:
        """Which implementation runs for these arrays, and why the others do not."""
        call = self._prepare(arrays, named, None, None, None)
        if call.plan.definition_only is not None:
            where = f"{self.contract.name} on {library(*call.arrays.values())}"
            return f"{where}: the definition, because {call.plan.definition_only}"
        return choose.explain(self.contract, self.implementation, call.arrays, self.parameters)

    # -- the steps ----------------------------------------------------------------------------

    def _bind(self, arrays: tuple[Array, ...], named: Mapping[str, Array]) -> dict[str, Array]:
        names = tuple(self.contract.inputs)
        given = dict(zip(names, arrays, strict=False)) | dict(named)
        if len(arrays) + len(named) != len(names) or given.keys() != set(names):
            came = ", ".join([*names[: len(arrays)], *named]) or "nothing"
            raise LossError(f"{self.contract.name}: takes {', '.join(names)}; got {came}")
        return {name: given[name] for name in names}

    def _prepare(
        self,
        arrays: tuple[Array, ...],
        named: Mapping[str, Array],
        weights: Array | None,
        class_weights: Array | None,
        mask: Array | None,
    ) -> _Call:
        """Everything that came, checked, in the dtype that is computed in."""
        contract = self.contract
        bound = self._bind(arrays, named)
        plan = self._plan(bound)
        first = next(iter(bound.values()))
        if mask is not None:
            mask = inputs.companion("mask", contract, mask, first)
            if not namespace(mask).isdtype(mask.dtype, "bool"):
                mask = mask != 0
        if self.ignore is not None and contract.target_name is not None:
            kept = inputs.ignored(bound[contract.target_name], self.ignore)
            if mask is not None:
                mask = cost.spread(mask, kept, "mask", contract.name)
                kept = namespace(kept).logical_and(kept, mask)
            mask = kept
        for name, dtype in plan.casts.items():
            bound[name] = namespace(first).astype(bound[name], dtype)
        if weights is not None:
            weights = inputs.companion("weights", contract, weights, first)
        if class_weights is not None:
            class_weights = inputs.companion("class_weights", contract, class_weights, first)
            kind = bound[contract.predictions[0]].dtype
            class_weights = namespace(first).astype(class_weights, kind)
        return _Call(bound, plan, weights, class_weights, mask)

    def _evaluate(self, call: _Call) -> tuple[Array, dict[str, Any]]:
        """The definition's unreduced values, and what reduces them: weights, counts, measure."""
        contract = self.contract
        bound = call.arrays
        inputs.check_classes(contract, bound, self.parameters, call.mask)
        if call.mask is not None:
            bound = inputs.blank(contract, bound, call.mask, self.parameters)
        if self.validate:
            inputs.check_values(contract, bound)
        compute = contract.compute
        if self.predictions is None:
            pass
        elif self.predictions in contract.forms:
            compute = contract.forms[self.predictions]
        else:
            bound = inputs.convert(contract, bound, self.predictions)
        inner: dict[str, Array] = {}
        if call.mask is not None and "mask" in contract.accepts:
            inner["mask"] = call.mask
        if call.class_weights is not None and "class_weights" in contract.accepts:
            inner["class_weights"] = call.class_weights
        values = compute(*bound.values(), **self.parameters, **inner)
        weights, measure = self._weights(call, bound, values, values.dtype)
        counts = None
        if contract.counts is not None:
            counts = contract.counts(bound[str(contract.target_name)], call.mask)
        elif call.mask is not None:
            counts = inputs.counted(contract, call.mask, values)
        return values, {"weights": weights, "counts": counts, "measure": measure}

    def _weights(
        self, call: _Call, bound: dict[str, Array], shaped: Array, dtype: Any
    ) -> tuple[Array | None, Array | None]:
        """(weights of the units, weights that only the mean's denominator sees)."""
        weights, measure = call.weights, None
        if weights is not None:
            weights = namespace(weights).astype(weights, dtype)
            weights = cost.spread(weights, shaped, "weights", self.contract.name)
        if call.class_weights is not None:
            factor = inputs.class_weights_of(
                self.contract, bound, call.class_weights, self.parameters
            )
            if "class_weights" in self.contract.accepts:
                measure = factor
            else:
                weights = factor if weights is None else weights * factor
        return weights, measure

    # -- the fast path ------------------------------------------------------------------------

    def _plan(self, bound: dict[str, Array]) -> _Plan:
        """Checks, casts and kernels for arrays of these shapes and dtypes."""
        key = signature(tuple(bound.values()))
        if key is None:
            return self._new_plan(bound, kernels=False)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= 256:  # batches of ever new shapes
                self._plans.clear()
            plan = self._plans[key] = self._new_plan(bound, kernels=True)
        return plan

    def _new_plan(self, bound: dict[str, Array], *, kernels: bool) -> _Plan:
        inputs.check(self.contract, bound, self.parameters)
        casts, result = inputs.casts(self.contract, bound)
        reason = self._definition_only(bound)
        kernels = kernels and reason is None
        found = choose.candidates(self.contract, self.implementation, bound) if kernels else ()
        return _Plan(casts, result, reason, found, self._plain_scale(bound) if found else 1.0)

    def _plain_scale(self, bound: dict[str, Array]) -> float:
        units = inputs.units(self.contract, bound[self.contract.predictions[0]], self.parameters)
        if self.reduction == "batch_mean":
            return 1.0 / (units.shape[0] if units.ndim else 1)
        return 1.0 if self.reduction == "sum" else 1.0 / cost.size(units)

    def _definition_only(self, bound: dict[str, Array]) -> str | None:
        contract = self.contract
        unit = contract.unit.name if contract.unit else None
        if len(bound) != 2 or contract.target_name is None or unit not in ("element", "sample"):
            return "kernels take one prediction and one target, and return one value for each"
        if self.predictions is not None:
            return f"predictions arrive as {self.predictions}"
        if self.validate:
            return "values are validated"
        if self.empty != "zero":
            return f"empty={self.empty!r}"
        if 0 in tuple(bound[contract.predictions[0]].shape):
            return "the input has no elements"
        return None

    def _kernel(self, call: _Call) -> Kernel | None:
        if not call.plan.kernels and self.implementation in ("auto", choose.DEFINITION):
            return None
        if call.plan.definition_only and self.implementation not in ("auto", choose.DEFINITION):
            raise LossError(
                f"{self.contract.name}: implementation={self.implementation!r} was asked for, but "
                f"{call.plan.definition_only}; use implementation='auto'"
            )
        for companion in (call.weights, call.class_weights):
            if getattr(companion, "requires_grad", False):
                return None
        given = self.parameters
        if call.class_weights is not None and "class_weights" in self.contract.accepts:
            given = {**given, "class_weights": call.class_weights}
        return choose.choose(
            self.contract, self.implementation, call.plan.kernels, call.arrays, given
        )

    def _share(self, call: _Call) -> dict[str, Any]:
        """``scale`` and ``weights`` that make a kernel's sum this reduction."""
        if call.weights is None and call.class_weights is None and call.mask is None:
            return {"scale": call.plan.scale}
        prediction = call.arrays[self.contract.predictions[0]]
        xp = namespace(prediction)
        units = inputs.units(self.contract, prediction, self.parameters)
        weights, measure = self._weights(call, call.arrays, units, prediction.dtype)
        counts = None if call.mask is None else inputs.counted(self.contract, call.mask, units)
        if counts is not None:
            weights = xp.where(counts, xp.ones_like(units) if weights is None else weights, 0.0)
        if weights is not None:
            weights = xp.broadcast_to(weights, units.shape)
        scale = call.plan.scale
        if self.reduction == "mean":
            both = [factor for factor in (weights, measure) if factor is not None]
            behind = float(xp.sum(both[0] if len(both) == 1 else both[0] * both[1]))
            scale = 1.0 / behind if behind else 0.0
        elif self.reduction == "mean_over_batch" and counts is not None:
            behind = float(xp.sum(xp.where(counts, xp.ones_like(units), 0.0)))
            scale = 1.0 / behind if behind else 0.0
        share: dict[str, Any] = {"scale": scale, "weights": weights}
        if call.class_weights is not None and "class_weights" in self.contract.accepts:
            share["class_weights"] = call.class_weights
        return share

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
            if self.contract.parameters[key].required
            or value != self.contract.parameters[key].default
        }
        settings = (f"{key}={_literal(value)}" for key, value in chosen.items())
        return f"Loss({', '.join([name, *settings])})"


def _rebuild(
    compute: Callable[..., Array], settings: dict[str, Any], parameters: dict[str, Any]
) -> Loss:
    return Loss(compute, **settings, **parameters)


def _literal(value: Any) -> str:
    return (
        f"float({str(value)!r})" if isinstance(value, float) and value - value != 0 else repr(value)
    )


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
