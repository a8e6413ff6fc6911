"""Losses for gradient boosting: objective and metric of LightGBM and XGBoost, scikit-learn scorers.

>>> focal = lossary.boosting.objective("binary_focal", gamma=2.0)
>>> data = lightgbm.Dataset(X, y, init_score=focal.init_score(y))
>>> booster = lightgbm.train({"objective": focal}, data, feval=focal.lightgbm_metric)
>>> probability = focal.link(booster.predict(X_test, raw_score=True) + focal.initial(y))

Scores are raw: the booster adds trees in the space of logits, log rates or plain numbers. Works
with every loss of one prediction and one target that returns a value per element or per sample.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from lossary.contract import Array, LossError, resolve
from lossary.evaluate import Loss
from lossary.inputs import arrivals
from lossary.numerics import sigmoid, softmax, softplus
from lossary.xp import namespace

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda raw: raw,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "softplus": softplus,
    "exponential": lambda raw: namespace(raw).exp(raw),
    "tanh": lambda raw: namespace(raw).tanh(raw),
}
# What a score in one of these spaces means to people.
_LINKS = {"logit": "sigmoid", "class logits": "softmax", "log rate": "exponential"}


def objective(loss: str, *, floor: float = 1e-6, **parameters: Any) -> BoostingObjective:
    """The objective of a loss, by name. See ``BoostingObjective``."""
    return BoostingObjective(loss, floor=floor, **parameters)


class BoostingObjective:
    """Gradient and Hessian of a loss by the raw score, for LightGBM and XGBoost.

    Called with (scores, dataset), as by the ``train`` functions, or with (y_true, scores), as by
    the scikit-learn interfaces; sample weights count in both. Boosters divide by the Hessian, so it
    is kept positive: where the loss curves down, the curvature's size is taken (Dauphin 2014); a
    loss of plain numbers curves at least as gradient / residual says, as in iteratively reweighted
    least squares, so that steps of the absolute error or of log-cosh are neither tiny nor wild; and
    ``floor`` is the least. Errors: LossError.
    """

    def __init__(self, loss: str, *, floor: float = 1e-6, **parameters: Any) -> None:
        contract, presets = resolve(loss)
        given = {key: value for key, value in presets.items() if key != "predictions"} | parameters
        unit = contract.unit.name if contract.unit else None
        if list(contract.inputs) != [*contract.predictions, contract.target_name] or (
            unit not in ("element", "sample") or len(contract.predictions) != 1
        ):
            raise LossError(
                f"{contract.name}: takes {', '.join(contract.inputs)}, returns a value per {unit}; "
                "boosting needs one prediction, one target and a value per element or sample"
            )
        if not floor > 0:
            raise LossError(f"{contract.name}: floor={floor!r} must be positive")
        self.loss = Loss(contract, reduction="none", implementation="definition", **given)
        self.floor = floor
        self.space = contract.inputs[contract.predictions[0]]
        self.by_class = self.space.layout == "class axis"
        self.__name__ = contract.name

    def __repr__(self) -> str:
        return f"lossary.boosting.objective({self.loss!r}, floor={self.floor!r})"

    # -- what boosters call -------------------------------------------------------------------

    def __call__(
        self, first: Any, second: Any, sample_weight: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian, of the scores' shape."""
        target, raw, weight = _sorted(first, second, sample_weight)
        gradient, hessian = self.derivatives(target, raw, weight)
        return gradient, hessian

    def lightgbm_metric(
        self, first: Any, second: Any, sample_weight: Any = None
    ) -> tuple[str, float, bool]:
        """``feval`` of LightGBM: (name, mean loss, higher is not better)."""
        return self.__name__, self.value(*_sorted(first, second, sample_weight)), False

    def xgboost_metric(self, scores: Any, data: Any) -> tuple[str, float]:
        """``custom_metric`` of XGBoost: (name, mean loss)."""
        return self.__name__, self.value(*_sorted(scores, data, None))

    # -- the numbers --------------------------------------------------------------------------

    def value(self, target: Any, raw: Any, sample_weight: Any = None) -> float:
        """The mean loss of raw scores."""
        target, raw, weight = self._arrays(target, raw, sample_weight)
        values = self.loss(self._prediction(raw), target)
        weight = np.broadcast_to(weight.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        return float(np.sum(values * weight) / np.sum(weight))

    def derivatives(
        self, target: Any, raw: Any, sample_weight: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """First and (diagonal) second derivatives of the weighted loss by the raw scores."""
        target, raw, weight = self._arrays(target, raw, sample_weight)
        factor = weight.reshape(-1, *[1] * (raw.ndim - 1))
        gradient, curvature = _engine()(self._summed, raw, target, self.by_class)
        curvature = np.abs(curvature)
        if self.space.name == "real":
            residual = np.abs(raw - target)
            least = 0.1 * np.mean(residual) + np.finfo(np.float64).tiny
            curvature = np.maximum(curvature, np.abs(gradient) / np.maximum(residual, least))
        return gradient * factor, np.maximum(curvature, self.floor) * factor

    def initial(self, target: Any, sample_weight: Any = None) -> Any:
        """The constant raw score of the least mean loss: one number, or one per class."""
        from scipy.optimize import brentq, minimize

        target = np.asarray(target)
        if not self.by_class:
            low, high = (-30.0, 30.0)
            if self.space.name == "real":
                low, high = float(np.min(target)), float(np.max(target))

            def slope(score: float) -> float:
                raw = np.full(len(target), score)
                return float(np.sum(self.derivatives(target, raw, sample_weight)[0]))

            if slope(low) >= 0:
                return low
            return high if slope(high) <= 0 else float(brentq(slope, low, high, xtol=1e-12))
        classes = int(np.max(target)) + 1

        def function(scores: np.ndarray) -> tuple[float, np.ndarray]:
            raw = np.tile(scores, (len(target), 1))
            gradient, _ = self.derivatives(target, raw, sample_weight)
            behind = len(target) if sample_weight is None else np.sum(sample_weight)
            return self.value(target, raw, sample_weight), np.sum(gradient, axis=0) / behind

        start = np.zeros(classes)
        found = minimize(function, start, jac=True, method="BFGS", options={"gtol": 1e-10}).x
        return found - np.mean(found)

    def init_score(self, target: Any, sample_weight: Any = None) -> np.ndarray:
        """``initial`` for every row: the ``init_score`` or ``base_margin`` of a dataset."""
        score = np.asarray(self.initial(target, sample_weight))
        return np.broadcast_to(score, (len(target), *score.shape)).copy()

    def link(self, raw: Any) -> np.ndarray:
        """Raw scores as people read them: probabilities, rates or plain numbers."""
        name = _LINKS.get(self.space.name, self.space.activation)
        return _ACTIVATIONS[name](np.asarray(raw, dtype=np.float64))

    # -- the steps ----------------------------------------------------------------------------

    def _prediction(self, raw: Array) -> Array:
        return _ACTIVATIONS[self.space.activation](raw)

    def _summed(self, raw: Array, target: Array) -> Array:
        return namespace(raw).sum(self.loss(self._prediction(raw), target))

    def _arrays(
        self, target: Any, raw: Any, sample_weight: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raw, target = np.asarray(raw, dtype=np.float64), np.asarray(target)
        if self.by_class and raw.ndim == 1:  # LightGBM's flat scores: class after class
            raw = raw.reshape(-1, len(target)).T
        target = target.astype(np.int64 if self.by_class else np.float64)
        weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight)
        if len(weight) != len(target):
            raise LossError(
                f"{self.__name__}: {len(weight)} sample weights came for {len(target)} targets"
            )
        return target, raw, weight.astype(np.float64)


def _sorted(first: Any, second: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """(target, raw scores, weights) of (scores, dataset) or of (target, scores)."""
    if not hasattr(second, "get_label"):
        return first, second, sample_weight
    weight = second.get_weight()
    return second.get_label(), first, weight if weight is not None and len(weight) else None


def _engine() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    for name, engine in {"torch": _by_torch, "jax": _by_jax}.items():
        if importlib.util.find_spec(name):
            return engine
    raise LossError("second derivatives need an engine: pip install lossary[torch] or lossary[jax]")


def _by_torch(
    function: Callable[..., Any], raw: np.ndarray, target: np.ndarray, by_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    scores = torch.from_numpy(raw.copy()).requires_grad_()
    summed = function(scores, torch.from_numpy(target))
    (gradient,) = torch.autograd.grad(summed, scores, create_graph=True)
    if not gradient.requires_grad:  # the loss is straight
        return gradient.numpy(), np.zeros_like(raw)
    if not by_class:
        (second,) = torch.autograd.grad(gradient.sum(), scores)
        return gradient.detach().numpy(), second.numpy(force=True)
    columns = [
        torch.autograd.grad(gradient[:, k].sum(), scores, retain_graph=True)[0][:, k]
        for k in range(raw.shape[1])
    ]
    return gradient.detach().numpy(), torch.stack(columns, dim=1).numpy(force=True)


def _by_jax(
    function: Callable[..., Any], raw: np.ndarray, target: np.ndarray, by_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    import jax

    with jax.enable_x64(True):
        known = jax.numpy.asarray(target)
        slope = jax.grad(lambda scores: function(scores, known))
        gradient = np.asarray(slope(raw))
        if not by_class:
            return gradient, np.asarray(jax.jvp(slope, (raw,), (np.ones_like(raw),))[1])
        columns = []
        for k in range(raw.shape[1]):
            along = np.zeros_like(raw)
            along[:, k] = 1.0
            columns.append(np.asarray(jax.jvp(slope, (raw,), (along,))[1])[:, k])
        return gradient, np.stack(columns, axis=1)


def scorer(loss: str, **parameters: Any) -> Callable[..., float]:
    """A scikit-learn scorer: minus the mean loss of an estimator's predictions.

    Losses of probabilities score ``predict_proba``, losses of margins ``decision_function``, others
    ``predict``. Use it as ``scoring=`` of ``cross_val_score`` or ``GridSearchCV``.
    """
    contract, presets = resolve(loss)
    given = {key: value for key, value in presets.items() if key != "predictions"} | parameters
    space = contract.inputs[contract.predictions[0]]
    probabilistic = "probabilities" in arrivals(contract) and contract.family != "margin"
    made = Loss(contract, predictions="probabilities" if probabilistic else None, **given)

    def score(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        target = np.asarray(y)
        if probabilistic:
            prediction = np.asarray(estimator.predict_proba(X), dtype=np.float64)
            target = np.searchsorted(estimator.classes_, target)
            if space.layout != "class axis":
                prediction, target = prediction[:, 1], target.astype(np.float64)
        elif contract.family == "margin":
            prediction = np.asarray(estimator.decision_function(X), dtype=np.float64)
            target = np.searchsorted(estimator.classes_, target)
            if space.layout != "class axis":
                target = 2.0 * target - 1.0
        else:
            prediction = np.asarray(estimator.predict(X), dtype=np.float64)
            target = target.astype(np.float64)
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        return -float(made(prediction, target, weights=weights))

    score.__name__ = f"negative_{contract.name}"
    return score
