"""``Loss``: a loss with its choices made. Convert, check, choose, mask, weigh, reduce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lossary import choose, cost, inputs
from lossary.call import Plan, Shortcut, bind, prepare
from lossary.contract import Array, Contract, LossError, contract_of, resolve
from lossary.cost import EMPTY, REDUCTIONS, Total
from lossary.gradient import value_and_grad
from lossary.xp import get_ready, library, namespace, signature

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
    _plans: dict[tuple[Any, ...], Plan]
    _shortcuts: dict[tuple[Any, ...], Shortcut]
    _traced: Callable[..., Any] | None

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
        get_ready()
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
        settings["_shortcuts"] = {}
        plain = empty == "zero" and validate is None
        settings["_traced"] = None
        if plain and implementation == "auto":
            name = choose.name_of(contract, arrival if settings["predictions"] else None)
            checked: Any = settings["parameters"]
            settings["_traced"] = choose.traced(name, reduction, checked, ignore)
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
        if not named and arrays:
            if self._traced is not None:
                value = self._traced(arrays, class_weights, weights, mask, None)
                if value is not None:
                    return value
            alone = weights is None and mask is None
            key = signature(arrays, class_weights, () if alone else (weights, mask))
            shortcut = None if key is None else self._shortcuts.get(key)
            if shortcut is not None and shortcut.ready(*arrays):
                if alone:
                    return shortcut.run(*arrays)
                return shortcut.run(*arrays, weights=weights, mask=mask)
        call = prepare(self, arrays, named, weights, class_weights, mask)
        kernel = call.kernel()
        if kernel is not None and kernel.scaled_sum is not None and self.reduction != "none":
            value = kernel.scaled_sum(*call.arrays.values(), **call.share(), **self.parameters)
            call.remember(kernel)
            return _as(value, call.plan.result)
        values, details = call.values(kernel)
        if kernel is not None and self.reduction == "none":
            call.remember(kernel)
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
        call = prepare(self, arrays, named, mask=mask)
        values, details = call.values(call.kernel())
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
        call = prepare(self, arrays, named, weights, class_weights, mask)
        values, details = call.values(call.kernel())
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
        bound = bind(self, arrays, named)
        call = prepare(self, (), bound, weights, class_weights, mask)
        kernel = call.kernel()
        if kernel is not None and kernel.value_and_grad is not None:
            share = call.share()
            value, slopes = kernel.value_and_grad(*call.arrays.values(), **share, **self.parameters)
            kind = call.plan.result
            if isinstance(slopes, tuple):
                return _as(value, kind), tuple(_as(slope, kind) for slope in slopes)
            return _as(value, kind), _as(slopes, kind)
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
        call = prepare(self, arrays, named)
        if call.plan.definition_only is not None:
            where = f"{self.contract.name} on {library(*call.arrays.values())}"
            return f"{where}: the definition, because {call.plan.definition_only}"
        name = choose.name_of(self.contract, self.predictions)
        text = choose.explain(name, self.implementation, call.arrays, self.parameters)
        if self._traced is not None and library(*call.arrays.values()) == "torch":
            text += f"\n  in graphs of torch.compile: {choose.in_graphs(name)}"
        return text

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

    value = np.asarray(value, order="C")
    return home.asarray(value if value.flags.writeable else value.copy())
