"""The loss in hand, whichever framework it comes from, asked with NumPy arrays."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lossary.contract import Contract, LossError
from lossary.doctor.arrays import like, precise, to_numpy
from lossary.doctor.untouched import untouched
from lossary.evaluate import Loss
from lossary.inputs import arrivals

ROWS_ONE_BY_ONE = 64  # for a callable that only returns a scalar, units are found row by row

_READS = {
    ("class logits", "probabilities"): "simplex",
    ("class logits", "log_probabilities"): "log simplex",
    ("logit", "probabilities"): "probability",
    ("logit", "log_probabilities"): "log probability",
    ("mask", "probabilities"): "probability",
    ("mask", "logits"): "logit",
    ("log rate", "rates"): "rate",
    ("log variance", "variances"): "variance",
}
SETTINGS = ("reduction", "predictions", "ignore", "empty", "implementation")
MASKS = ("mask", "where", "valid")
WEIGHTS = ("weights", "sample_weight", "sample_weights")


@dataclass
class Subject:
    """One loss: Lossary's own (``loss``) or a callable of the user's (``callable``)."""

    name: str
    library: str
    contract: Contract | None = None
    loss: Any = None  # a Loss, or None for a callable
    callable: Any = None
    predictions: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    reduction: str | None = None
    ignore: int | None = None
    target_place: int | None = None  # among the positional arguments; None: after predictions
    target_in_logs: bool = False  # the target arrives as logarithms
    framework: str | None = None  # the framework whose own loss this is
    as_keras: bool = False  # Keras adapts target and prediction to each other
    device: Any = None  # where PyTorch computes

    @property
    def own(self) -> bool:
        """Whether this is Lossary's own loss, whose laws Lossary's tests prove."""
        return self.loss is not None

    @property
    def reads(self) -> str | None:
        """The name of the set that the first prediction should live in; None when unknown."""
        if self.contract is None:
            return {
                "logits": "class logits",
                "probabilities": "simplex",
                "log_probabilities": "log simplex",
            }.get(self.predictions or "")
        space = self.contract.inputs[self.contract.predictions[0]].name
        way = self.predictions or next(iter(arrivals(self.contract)), "")
        return _READS.get((space, way), space)

    def promises(self, name: str) -> bool:
        """Whether the contract has this property at the parameters in use."""
        if self.contract is None:
            return False
        known = self.contract.parameters
        return self.contract.has(name, {k: v for k, v in self.parameters.items() if k in known})

    @property
    def further(self) -> tuple[str, ...]:
        """Inputs beside predictions and target, which a case does not hand to the loss."""
        if self.contract is None:
            return ()
        known = (*self.contract.predictions, *self.contract.learned, self.contract.target_name)
        return tuple(name for name in self.contract.inputs if name not in known)

    @property
    def unit(self) -> str | None:
        return self.contract.unit.name if self.contract and self.contract.unit else None

    @cached_property
    def keywords(self) -> Mapping[str, inspect.Parameter]:
        function = getattr(self.callable, "forward", None) or self.callable
        try:
            return inspect.signature(function).parameters
        except (TypeError, ValueError):
            return {}

    def keyword_for(self, names: tuple[str, ...]) -> str | None:
        """The callable's own name for a mask or for weights, if it takes one."""
        return next((name for name in names if name in self.keywords), None)

    @property
    def takes_mask(self) -> bool:
        return self.own or self.keyword_for(MASKS) is not None

    @property
    def takes_weights(self) -> bool:
        return self.own or self.keyword_for(WEIGHTS) is not None

    def raw(
        self,
        prediction: Any,
        target: Any,
        *,
        weights: Any = None,
        mask: Any = None,
        class_weights: Any = None,
        dtype: str | None = None,
        **parameters: Any,
    ) -> Any:
        """What the loss returns. ``prediction`` is one array or a tuple of them, of NumPy."""
        predictions = prediction if isinstance(prediction, tuple) else (prediction,)
        if self.loss is not None:
            loss = self.loss if not parameters else self.with_parameters(**parameters).loss
            wide = tuple(array.astype(dtype) if dtype else array for array in predictions)
            options = {"weights": weights, "mask": mask, "class_weights": class_weights}
            present = {key: value for key, value in options.items() if value is not None}
            try:
                return loss(**self.bound(wide, target), **present)
            except (ValueError, TypeError, IndexError, ArithmeticError) as error:
                raise _refused(self.name, error) from error
        with precise(self.library, dtype):
            inputs = [
                self.live(array, dtype) if isinstance(array, np.ndarray) else array
                for array in predictions
            ]
            return self._foreign(inputs, target, weights, mask, dtype, parameters)

    def live(self, array: np.ndarray, dtype: str | None = None) -> Any:
        """An array of the loss's own library, where it computes."""
        return like(array, self.library, dtype, self.device)

    def ordered(self, predictions: Sequence[Any], target: Any) -> list[Any]:
        """The positional arguments of a call."""
        given = list(predictions)
        if target is not None:
            given.insert(len(given) if self.target_place is None else self.target_place, target)
        return given

    def bound(self, prediction: Any, target: Any) -> dict[str, Any]:
        """The inputs of Lossary's own loss by name: a target may stand between predictions."""
        predictions = prediction if isinstance(prediction, tuple) else (prediction,)
        contract: Contract = self.loss.contract
        named = dict(zip(contract.predictions, predictions, strict=False))
        name = contract.target_name
        return named if target is None or name is None else {**named, name: target}

    def _foreign(
        self,
        inputs: list[Any],
        target: Any,
        weights: Any,
        mask: Any,
        dtype: str | None,
        parameters: dict[str, Any],
    ) -> Any:
        options = dict(parameters)
        for value, names in ((weights, WEIGHTS), (mask, MASKS)):
            keyword = self.keyword_for(names)
            if value is not None and keyword:
                options[keyword] = self.live(np.asarray(value))
        if target is not None:
            target = self.label(np.asarray(target), dtype)
        try:
            with np.errstate(all="ignore"), untouched(self.callable):
                return self.callable(*self.ordered(inputs, target), **options)
        except Exception as error:  # whatever the user's code raises becomes one line
            first = (str(error).strip() or "no message").splitlines()[0]
            raise LossError(f"{self.name} raised {type(error).__name__}: {first[:200]}") from error

    def label(self, target: np.ndarray, dtype: str | None = None) -> Any:
        """The target as the loss's own library has it: PyTorch's labels are int64."""
        if self.library == "torch" and target.dtype.kind in "iu":
            return self.live(target.astype(np.int64))
        return self.live(target, dtype if target.dtype.kind == "f" else None)

    def __call__(self, prediction: Any, target: Any, **options: Any) -> float:
        """The loss as one number: the mean where it returns several."""
        result = self.raw(prediction, target, **options)
        if isinstance(result, (tuple, list, dict)) or result is None:
            raise LossError(
                f"{self.name} returned a {type(result).__name__}; a loss returns one array"
            )
        value = np.asarray(to_numpy(result, f"the value of {self.name}"), dtype=np.float64)
        return float(value.mean()) if value.size else 0.0

    def values(self, prediction: np.ndarray, target: Any, **options: Any) -> np.ndarray:
        """Unreduced values; of a callable that reduces, one per row by calling it row by row."""
        if self.loss is not None:
            try:
                with np.errstate(all="ignore"):
                    values = self.loss.values(**self.bound(prediction, target), **options)
            except (ValueError, TypeError, IndexError, ArithmeticError) as error:
                raise _refused(self.name, error) from error
            return np.asarray(values, dtype=np.float64)
        unreduced = self._unreduced()
        result = to_numpy(unreduced.raw(prediction, target, **options), self.name)
        if result.ndim:
            return result.astype(np.float64)
        rows = range(min(len(prediction), ROWS_ONE_BY_ONE))
        return np.array(
            [
                self(prediction[i : i + 1], None if target is None else target[i : i + 1])
                for i in rows
            ]
        )

    def _unreduced(self) -> Subject:
        if not isinstance(getattr(self.callable, "reduction", None), str):
            return self
        other = copy.copy(self.callable)
        try:
            other.reduction = "none"
        except (RuntimeError, AttributeError):  # compiled: it stays as it is
            return self
        return self.replaced(callable=other)

    def gradient(
        self, prediction: np.ndarray, target: Any, *, dtype: str | None = None, **options: Any
    ) -> np.ndarray | None:
        """The derivative of the loss's mean by the prediction; None when no gradient flows."""
        from lossary.doctor import derivative

        try:
            return derivative.gradient(self, prediction, target, dtype, options)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, LossError) or self.own:
                raise
            first = (str(error).strip() or "no message").splitlines()[0]
            raise LossError(
                f"{self.name}: its gradient raised {type(error).__name__}: {first[:200]}"
            ) from error

    def replaced(self, **changes: Any) -> Subject:
        other = copy.copy(self)
        other.__dict__.pop("keywords", None)
        for key, value in changes.items():
            setattr(other, key, value)
        return other

    def with_parameters(self, **changes: Any) -> Subject:
        """The same loss with other parameter values."""
        if self.loss is not None:
            settings = {name: getattr(self.loss, name) for name in SETTINGS}
            parameters = {**self.loss.parameters, **changes}
            loss = Loss(self.loss.contract, **settings, **parameters)
            return self.replaced(loss=loss, parameters=parameters)
        if hasattr(self.callable, "get_config"):
            other = type(self.callable).from_config({**self.callable.get_config(), **changes})
            return self.replaced(callable=other, parameters={**self.parameters, **changes})
        if any(hasattr(self.callable, name) for name in changes):
            other = copy.copy(self.callable)
            for name, value in changes.items():
                setattr(other, name, value)
            return self.replaced(callable=other, parameters={**self.parameters, **changes})
        inner = self.callable

        def changed(*inputs: Any, **options: Any) -> Any:
            return inner(*inputs, **{**changes, **options})

        other_subject = self.replaced(callable=changed, parameters={**self.parameters, **changes})
        other_subject.__dict__["keywords"] = self.keywords
        return other_subject


def _refused(name: str, error: Exception) -> Exception:
    """Arrays that a definition stumbles over are arrays that it does not take."""
    if isinstance(error, (LossError, FloatingPointError)):
        return error
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return LossError(f"{name} does not take these arrays: {first[:160]}")
