"""Losses that are wrong in exactly one way: each check must reject its own.

A check that no mutant makes fail proves nothing. The list is public, so that a new check is
written together with the fault it is meant to find. Faulty machines are in ``faulty_machines``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np

from lossary.contract import (
    CONVEX,
    EVEN,
    MONOTONE,
    NONNEGATIVE,
    ORDER_FREE,
    PROPER,
    SCALE_FREE,
    SHIFT_INVARIANT,
    SMOOTH,
    SYMMETRIC,
    ZERO_AT_TARGET,
    Array,
    Binary,
    Classes,
    ClassLogits,
    Contract,
    Embeddings,
    Labels,
    Logit,
    Margin,
    PerAnchor,
    PerElement,
    PerSample,
    Property,
    Real,
    Signs,
    bounded,
    contract_of,
    elicits,
    lipschitz,
)
from lossary.evaluate import Loss
from lossary.numerics import is_index, log_softmax, pick, softplus, stop_gradient
from lossary.testing import faulty_machines as machines
from lossary.testing.subject import Subject
from lossary.xp import library, namespace


@dataclass(frozen=True)
class Mutant:
    """A subject that ``check`` must reject on ``library``."""

    check: str
    subject: Subject
    library: str = "numpy"


MUTANTS: list[Mutant] = []


def _mutant(
    check: str, *facts: Property, library: str = "numpy", oracle: Callable[..., Any] | None = None,
    forms: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Register a definition as the mutant of a check, declaring ``facts``."""

    def register(definition: Callable[..., Any]) -> Callable[..., Any]:
        contract = Contract(definition, frozenset(facts), paper="none", forms=forms or {})
        MUTANTS.append(Mutant(check, Subject(contract, oracle), library))
        return definition

    return register


def _log_cosh(prediction: Any, target: Any) -> Any:
    return mp.log(mp.cosh(prediction - target))


def _square(prediction: Any, target: Any) -> Any:
    return (prediction - target) ** 2


@_mutant("values", CONVEX, oracle=_log_cosh)
def log_cosh_that_cancels(prediction: Real, target: Real) -> PerElement:
    """log(2) is subtracted from something near it."""
    xp = namespace(prediction)
    distance = xp.abs(prediction - target)
    return distance + xp.log1p(xp.exp(-2.0 * distance)) - 0.6931471805599453


@_mutant("gradients", CONVEX, library="torch", oracle=_square)
def square_with_half_its_slope(prediction: Real, target: Real) -> PerElement:
    """One factor is a constant to the derivative."""
    residual = prediction - target
    return residual * stop_gradient(residual)


@_mutant("derivative_at_absent_target", library="torch")
def cross_entropy_blind_to_absent_classes(
    prediction: ClassLogits, target: Classes, *, axis: int = -1
) -> PerSample:
    """A share of 0 is a constant to the derivative."""
    xp = namespace(prediction)
    if is_index(target, prediction):
        return -pick(log_softmax(prediction, axis=axis), target, axis=axis)
    surprise = xp.where(target == 0, 0.0, -log_softmax(prediction, axis=axis))
    return xp.sum(target * surprise, axis=axis)


@_mutant("target_derivative", library="torch")
def square_of_a_fixed_target(prediction: Real, target: Real) -> PerElement:
    """The target is a constant to the derivative."""
    return namespace(prediction).square(prediction - stop_gradient(target))


def _surprise_at_yes(prediction: Any, target: Any) -> Any:
    return target * mp.log1p(mp.exp(-prediction))


def _clipped_surprise(prediction: Any, target: Any) -> Any:
    """An epsilon keeps the logarithm finite, and takes the slope of a wrong certain answer."""
    xp = namespace(prediction)
    return -target * xp.log(xp.clip(prediction, 1e-7, 1.0))


@_mutant("forms", oracle=_surprise_at_yes, forms={"probabilities": _clipped_surprise})
def surprise_that_clips_probabilities(prediction: Logit, target: Binary) -> PerElement:
    """Right for logits."""
    return target * softplus(-prediction)


@_mutant("forms", oracle=lambda prediction, target: mp.cosh(prediction) * target)
def cost_of_being_sure(prediction: Logit, target: Binary) -> PerElement:
    """Where the logit is large: infinity less infinity."""
    square = prediction * (prediction * 1e306)
    return target * (square - square)


@_mutant("order_of_the_batch")
def square_by_position(prediction: Real, target: Real) -> PerElement:
    """Later rows weigh more."""
    xp = namespace(prediction)
    place = xp.astype(xp.arange(prediction.shape[0]), prediction.dtype)
    return xp.square(prediction - target) * xp.reshape(place, (-1,))


@_mutant("masked_anchor_is_absent")
def anchors_that_see_the_masked(
    prediction: Embeddings, target: Labels, *, mask: Array | None = None
) -> PerAnchor:
    """The mask is taken and forgotten."""
    xp = namespace(prediction)
    return xp.sum(xp.square(prediction - xp.mean(prediction, axis=0)), axis=-1)


@_mutant("axis_moves_with_the_array")
def surprise_normalised_elsewhere(
    prediction: ClassLogits, target: Classes, *, axis: int = -1
) -> PerSample:
    """Picks along ``axis``, normalises along the last."""
    return -pick(log_softmax(prediction, axis=-1), target, axis=axis)


@_mutant("index_is_one_hot")
def surprise_that_halves_one_hot(prediction: ClassLogits, target: Classes) -> PerSample:
    """One encoding of the target costs less."""
    factor = 1.0 if is_index(target, prediction) else 0.5
    return -factor * pick(log_softmax(prediction), target)


@_mutant("one_unit")
def square_over_one_less(prediction: Real, target: Real) -> PerElement:
    """Divided by n - 1."""
    return namespace(prediction).square(prediction - target) / (
        prediction * 0 + prediction.shape[0] - 1
    )


@_mutant("one_class")
def surprise_in_units_of_chance(prediction: ClassLogits, target: Classes) -> PerSample:
    """Divided by the logarithm of the number of classes."""
    xp = namespace(prediction)
    chance = xp.log(xp.ones_like(prediction[..., 0]) * prediction.shape[-1])
    return -pick(log_softmax(prediction), target) / chance


@_mutant("nan_is_contagious")
def square_that_hides_nan(prediction: Real, target: Real) -> PerElement:
    """A NaN costs nothing."""
    xp = namespace(prediction)
    return xp.where(xp.isnan(prediction), 0.0, xp.square(prediction - target))


@_mutant("infinite_predictions", oracle=_log_cosh)
def log_cosh_of_infinities(prediction: Real, target: Real) -> PerElement:
    """At minus infinity: infinity less infinity."""
    xp = namespace(prediction)
    residual = prediction - target
    return residual + xp.log1p(xp.exp(-2.0 * residual)) - 0.6931471805599453


@_mutant("odd_arrays")
def square_in_place(prediction: Real, target: Real) -> PerElement:
    """The residual is written over the prediction."""
    if library(prediction) == "numpy" and prediction.flags.writeable:
        prediction -= target
        return np.square(prediction)
    return namespace(prediction).square(prediction - target)


@_mutant("agrees_with_numpy", library="torch")
def square_that_differs_on_torch(prediction: Real, target: Real) -> PerElement:
    """One library gets another formula."""
    factor = 1.001 if library(prediction) == "torch" else 1.0
    return factor * namespace(prediction).square(prediction - target)


@_mutant("nonnegative", NONNEGATIVE)
def gap(prediction: Real, target: Real) -> PerElement:
    """Signed."""
    return prediction - target


@_mutant("zero_at_target", ZERO_AT_TARGET)
def square_that_starts_at_one(prediction: Real, target: Real) -> PerElement:
    """Never 0."""
    return 1.0 + namespace(prediction).square(prediction - target)


@_mutant("even", EVEN)
@_mutant("symmetric", SYMMETRIC)
def lopsided(prediction: Real, target: Real) -> PerElement:
    """Too much costs twice what too little costs."""
    xp = namespace(prediction)
    residual = prediction - target
    return xp.where(residual > 0, 2.0 * residual, -residual)


@_mutant("shift_invariant", SHIFT_INVARIANT)
def raw_score(prediction: ClassLogits, target: Classes) -> PerSample:
    """Depends on the level of the logits."""
    return -pick(prediction, target)


@_mutant("scale_free", SCALE_FREE)
@_mutant("bounded", bounded(10.0))
@_mutant("lipschitz", lipschitz(3.0))
def square(prediction: Real, target: Real) -> PerElement:
    """Neither flat nor bounded."""
    return namespace(prediction).square(prediction - target)


@_mutant("order_free", ORDER_FREE)
def chained(prediction: Embeddings, target: Labels) -> PerAnchor:
    """Each row meets the row before it."""
    xp = namespace(prediction)
    before = xp.concat([prediction[-1:, :], prediction[:-1, :]], axis=0)
    return xp.sum(xp.square(prediction - before), axis=-1)


@_mutant("monotone", MONOTONE)
def margin_both_ways(prediction: Margin, target: Signs) -> PerElement:
    """Too large a margin costs again."""
    return namespace(prediction).square(1.0 - prediction * target)


@_mutant("convex", CONVEX)
def saturating(prediction: Real, target: Real) -> PerElement:
    """Flat far out."""
    xp = namespace(prediction)
    squared = xp.square(prediction - target)
    return squared / (1.0 + squared)


@_mutant("smooth", SMOOTH)
def distance(prediction: Real, target: Real) -> PerElement:
    """A corner at the target."""
    return namespace(prediction).abs(prediction - target)


@_mutant("elicits", elicits("mean"))
def distance_that_claims_the_mean(prediction: Real, target: Real) -> PerElement:
    """Its best constant is the median."""
    return namespace(prediction).abs(prediction - target)


@_mutant("proper", PROPER)
def surprise_of_the_sharpened(prediction: ClassLogits, target: Classes) -> PerSample:
    """Honest at half the logits only."""
    return -pick(log_softmax(2.0 * prediction), target)


@_mutant("nonnegative", SMOOTH)
@_mutant("zero_at_target", SMOOTH)
@_mutant("even", SMOOTH)
@_mutant("symmetric", SMOOTH)
@_mutant("convex", SMOOTH)
@_mutant("smooth", CONVEX)
def square_that_says_little(prediction: Real, target: Real) -> PerElement:
    """Much is true of it."""
    return namespace(prediction).square(prediction - target)


@_mutant("lipschitz", SMOOTH)
@_mutant("bounded", SMOOTH)
def welsch_that_says_little(prediction: Real, target: Real) -> PerElement:
    """Bounded, and nowhere steep."""
    xp = namespace(prediction)
    return -xp.expm1(-0.5 * xp.square(prediction - target))


@_mutant("shift_invariant", SMOOTH)
@_mutant("monotone", SMOOTH)
@_mutant("proper", SMOOTH)
def surprise_that_says_little(prediction: ClassLogits, target: Classes) -> PerSample:
    """Invariant, monotone, proper."""
    return -pick(log_softmax(prediction), target)


@_mutant("scale_free", SMOOTH)
def direction_that_says_little(prediction: Real, target: Real) -> PerElement:
    """Only the sign counts."""
    xp = namespace(prediction)
    return xp.where(prediction > 0, 1.0 - target, 1.0 + target)


@_mutant("order_free", SMOOTH)
def lengths_that_say_little(prediction: Embeddings, target: Labels) -> PerAnchor:
    """Rows do not meet."""
    xp = namespace(prediction)
    return xp.sum(xp.square(prediction), axis=-1)


@_mutant("page", CONVEX)
def without_a_page(prediction: Real, target: Real) -> PerElement:
    """no sentence"""
    return namespace(prediction).abs(prediction - target)


@_mutant("parameters_have_intervals")
def without_an_interval(prediction: Real, target: Real, *, width: float = 1.0) -> PerElement:
    """Any width will do."""
    return namespace(prediction).abs(prediction - target) / width


def _machine(
    check: str, make: type[Loss], loss: str = "squared_error", library: str = "numpy",
    oracle: Callable[..., Any] | None = None,
) -> None:  # fmt: skip
    given = [{"half": False}] if loss == "squared_error" else []
    MUTANTS.append(Mutant(check, Subject(contract_of(loss), oracle, given, make), library))


def _square_or_half(prediction: Any, target: Any, *, half: bool) -> Any:
    return _square(prediction, target) / (2 if half else 1)


_machine("what_runs", machines.CoarseDefault, library="torch", oracle=_square_or_half)
_machine("reductions_follow_from_values", machines.MeanOverOneMore)
_machine("masked_is_absent", machines.MaskedUnitsCounted)
_machine("totals_add", machines.TotalOfMean)
_machine("nan_under_the_mask", machines.MaskByMultiplication)
_machine("ignored_is_masked", machines.IgnoreForgotten)
_machine("class_weights", machines.ClassWeightsForgotten, loss="kl_divergence")
_machine("value_and_grad", machines.GradientOfTheSum, library="torch")
_machine("all_masked", machines.MeanOfNothingIsNan)
_machine("empty_batch", machines.MeanOfNothingIsNan)
_machine("dtype_follows", machines.AlwaysDouble)
_machine("half_is_rounded_single", machines.ComputesInHalf)
_machine("repr", machines.ReprForgetsReduction)
_machine("config", machines.ConfigForgetsEmpty)
_machine("pickle", machines.PickleForgetsReduction)
_machine("hash", machines.HashOfIdentity)
_machine("bad_parameters", machines.AnyParameterGoes, loss="huber")
