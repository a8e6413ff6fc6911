"""The loss in hand, whichever framework it comes from, asked with NumPy arrays."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lossary.contract import Contract, LossError, key_of, resolve
from lossary.doctor.arrays import library_of, like, precise, to_numpy
from lossary.evaluate import Loss
from lossary.inputs import arrivals

ROWS_ONE_BY_ONE = 64  # for a callable that only returns a scalar, units are found row by row

# How frameworks' own losses read their first argument, where it is not the canonical way.
_TORCH = {
    "bce": ("binary_cross_entropy", "probabilities"),
    "binary_cross_entropy": ("binary_cross_entropy", "probabilities"),
    "nll": ("cross_entropy", "log_probabilities"),
    "kl_div": ("kl_divergence", "log_probabilities"),
}
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
_SETTINGS = ("reduction", "predictions", "ignore", "empty", "implementation")
_MASKS = ("mask", "where", "valid")
_WEIGHTS = ("weights", "sample_weight", "sample_weights")


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
    target_first: bool = False
    identified: bool = True  # the contract is known to hold, not only named as a reference

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
        function = self.callable
        function = getattr(function, "forward", None) or getattr(function, "call", None) or function
        try:
            return inspect.signature(function).parameters
        except (TypeError, ValueError):
            return {}

    def keyword_for(self, names: tuple[str, ...]) -> str | None:
        """The callable's own name for a mask or for weights, if it takes one."""
        return next((name for name in names if name in self.keywords), None)

    @property
    def takes_mask(self) -> bool:
        return self.own or self.keyword_for(_MASKS) is not None

    @property
    def takes_weights(self) -> bool:
        return self.own or self.keyword_for(_WEIGHTS) is not None

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
            return loss(
                **self.bound(wide, target),
                **{key: value for key, value in options.items() if value is not None},
            )
        with precise(self.library, dtype):
            inputs = [
                like(array, self.library, dtype) if isinstance(array, np.ndarray) else array
                for array in predictions
            ]
            return self._foreign(inputs, target, weights, mask, dtype, parameters)

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
        for value, names in ((weights, _WEIGHTS), (mask, _MASKS)):
            keyword = self.keyword_for(names)
            if value is not None and keyword:
                options[keyword] = like(np.asarray(value), self.library)
        given = list(inputs)
        if target is not None:
            target = self._label(np.asarray(target), dtype)
            given = [target, *given] if self.target_first else [*given, target]
        try:
            with np.errstate(all="ignore"):
                return self.callable(*given, **options)
        except Exception as error:  # whatever the user's code raises becomes one line
            first = (str(error).strip() or "no message").splitlines()[0]
            raise LossError(f"{self.name} raised {type(error).__name__}: {first[:200]}") from error

    def _label(self, target: np.ndarray, dtype: str | None) -> Any:
        if self.library == "torch" and target.dtype.kind in "iu":
            return like(target.astype(np.int64), "torch")
        return like(target, self.library, dtype if target.dtype.kind == "f" else None)

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
            with np.errstate(all="ignore"):
                return np.asarray(
                    self.loss.values(**self.bound(prediction, target), **options), dtype=np.float64
                )
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
        for attribute, none in (("reduction", "none"),):
            if isinstance(getattr(self.callable, attribute, None), str):
                other = copy.copy(self.callable)
                setattr(other, attribute, none)
                return self.replaced(callable=other)
        return self

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
            settings = {name: getattr(self.loss, name) for name in _SETTINGS}
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


def subject_of(
    loss: Any,
    *,
    predictions: str | None,
    arguments: str,
    reference: str | None,
    library: str,
    parameters: Mapping[str, Any],
    ignore: float | None = None,
) -> Subject | None:
    """The subject behind a name, a ``Loss``, a definition, a framework's loss or any callable."""
    if loss is None:
        return None
    settings: dict[str, Any] = {"predictions": predictions, "ignore": ignore}
    if isinstance(loss, str) or (
        callable(loss)
        and isinstance(getattr(loss, "contract", None), Contract)
        and not isinstance(loss, Loss)
    ):
        loss = Loss(loss, **settings, **parameters)
    if isinstance(loss, Loss):
        # The definition judges: no kernel is compiled for a look at some arrays.
        settings = {name: getattr(loss, name) for name in _SETTINGS} | {
            "implementation": "definition"
        }
        settings["ignore"] = loss.ignore if ignore is None else ignore
        loss = Loss(loss.contract, **settings, **loss.parameters)
        return Subject(
            loss.contract.name,
            "numpy",
            loss.contract,
            loss,
            predictions=predictions or loss.predictions,
            parameters=dict(loss.parameters),
            reduction=loss.reduction,
            ignore=loss.ignore,
        )
    inner = getattr(loss, "loss", None)
    if isinstance(inner, Loss):  # an adapter's class holds the Loss that it runs
        return subject_of(
            inner,
            predictions=predictions,
            arguments=arguments,
            reference=None,
            library=library,
            parameters={},
        )
    if not callable(loss):
        raise LossError(f"loss={loss!r} is neither a name, a Loss nor a callable")
    return _foreign_subject(loss, predictions, arguments, reference, library)


def _foreign_subject(
    loss: Any, predictions: str | None, arguments: str, reference: str | None, library: str
) -> Subject:
    kind = loss if inspect.isfunction(loss) else type(loss)
    root = (getattr(kind, "__module__", None) or "").partition(".")[0]
    name = getattr(loss, "__name__", None) or type(loss).__name__
    if library_of(loss) != "numpy":
        library = library_of(loss)
    library = getattr(loss, "__lossary_library__", library)
    subject = Subject(
        name,
        library,
        callable=loss,
        predictions=predictions,
        target_first=arguments.replace(" ", "") == "target,prediction",
    )
    subject.parameters = _settings(loss)
    subject.reduction = getattr(loss, "reduction", None)
    subject.ignore = getattr(loss, "ignore_index", None)
    if root in ("torch", "keras", "optax") and reference is None:
        reference = key_of(name)
        if root == "torch" and reference in _TORCH:
            reference, subject.predictions = (
                _TORCH[reference][0],
                predictions or _TORCH[reference][1],
            )
        if root == "keras":
            subject.library, subject.target_first = "keras", True
            if predictions is None:
                from_logits = subject.parameters.get("from_logits", False)
                subject.predictions = "logits" if from_logits else "probabilities"
        try:
            subject.contract = resolve(reference)[0]
        except LossError:
            subject.contract = None  # a framework's loss that Lossary does not hold
    elif reference is not None:
        subject.contract = resolve(reference)[0]
    return subject


def _settings(loss: Any) -> dict[str, Any]:
    """The numbers that a callable was set up with: attributes, or defaults of a function."""
    if hasattr(loss, "get_config"):
        given = dict(loss.get_config())
    elif inspect.isfunction(loss):
        signature = inspect.signature(loss).parameters.values()
        given = {item.name: item.default for item in signature if item.default is not item.empty}
    else:
        given = {key: value for key, value in vars(loss).items() if not key.startswith("_")}
    given.pop("training", None)
    return {key: value for key, value in given.items() if isinstance(value, (bool, int, float))}
