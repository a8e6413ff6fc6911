"""Each declared property holds on every sample; each undeclared one has a counterexample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

from lossary.contract import Property
from lossary.testing.checks.base import Check, check
from lossary.testing.exploration import NEAR, SLACK, Probe, number_of, where
from lossary.testing.libraries import Library
from lossary.testing.samples import Batch
from lossary.testing.strategies import batches
from lossary.testing.subject import CheckFailed, Subject, parameters_text

Violation = Callable[[Probe, Batch, Property | None], np.ndarray]  # how far each unit violates it
EXAMPLES = 20


def _law(
    name: str, to: Callable[[Subject], bool], also: Callable[[Subject], bool] | None = None
) -> Callable[[Violation], Check]:
    """Make a check of a property from a function that measures its violation.

    ``to`` says for which losses the property has a meaning; ``also`` for which of them a property
    that is not declared must have a counterexample (default: all).
    """

    def register(violation: Violation) -> Check:
        def run(subject: Subject, library: Library) -> None:
            for parameters in subject.settings:
                _prove(subject, Probe(subject, parameters), name, violation, also or to)

        run.__name__ = "check_" + name.replace(" ", "_")
        run.__doc__ = violation.__doc__
        # A user's function that declares nothing has promised nothing.
        return check(
            "properties", "once", lambda subject: bool(subject.contract.properties) and to(subject)
        )(run)

    return register


def _prove(
    subject: Subject,
    probe: Probe,
    name: str,
    violation: Violation,
    also: Callable[[Subject], bool],
) -> None:
    fact = subject.contract.fact(name, probe.parameters)
    at = f"{subject.name} ({parameters_text(probe.parameters)})"
    if fact is None:
        main = probe.parameters == subject.main
        if not (main and also(subject)):
            return
        if not any(np.any(violation(probe, batch, None) > 0) for batch in probe.explore()):
            raise CheckFailed(
                f"{at} seems to be {name}: no counterexample was found; declare the property"
            )
        return

    def holds(batch: Batch) -> None:
        excess = np.atleast_1d(violation(probe, batch, fact))
        if np.any(excess > 0):
            unit = int(np.argmax(excess.reshape(len(excess), -1).max(axis=1)))
            raise CheckFailed(
                f"{at} is not {fact}: violated by {np.max(excess):.3g} at "
                f"{where(batch, probe, unit)}"
            )

    for batch in probe.explore():
        holds(batch)
    main = probe.parameters == subject.main
    few = EXAMPLES if main and not probe.large else EXAMPLES // 4
    settings(
        max_examples=few, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )(given(batches(subject.contract, probe.parameters))(holds))()  # fmt: skip


def _scale(*values: np.ndarray) -> Any:
    return SLACK * (1 + sum(np.abs(value) for value in values))


def _with_target(subject: Subject) -> bool:
    return subject.contract.target is not None and bool(subject.contract.predictions)


def _comparable(subject: Subject) -> bool:
    """Prediction and target live in one space, or nearly: a prediction can equal the target."""
    if not _with_target(subject):
        return False
    target = subject.contract.target
    first = subject.contract.inputs[subject.contract.predictions[0]]
    assert target is not None
    return first.layout == target.layout and first.name not in (
        "logit", "margin", "log rate", "log variance", "class logits",
    )  # fmt: skip


def _real(subject: Subject) -> bool:
    return (
        _comparable(subject)
        and subject.layouts == {"element"}
        and all(
            subject.contract.inputs[name].name == "real"
            for name in (subject.contract.predictions[0], "target")
        )
    )


@_law("nonnegative", lambda subject: True)
def check_nonnegative(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """No value is negative."""
    values = probe.values(batch)
    return -values - 1e-12


@_law("zero at target", _comparable)
def check_zero_at_target(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """A prediction that equals the target costs nothing."""
    hit = {**batch, probe.predictions[0]: batch["target"].astype(np.float64)}
    return np.where(probe.inside(hit), np.abs(probe.values(hit)) - SLACK, 0.0)


def _flips(subject: Subject) -> bool:
    return _real(subject) or (subject.contract.target is None and len(subject.contract.inputs) == 1)


@_law("even", _flips)
def check_even(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """As far above the target costs what as far below costs."""
    name = probe.predictions[0]
    center = np.asarray(batch.get("target", 0.0))
    if "target" in batch:  # residuals that float64 can mirror exactly
        center = np.round(center * 16) / 16
    residual = np.round((batch[name] - center) * 2**20) / 2**20
    one, other = (
        probe.values({**batch, name: center + sign * residual}
                     | ({"target": center} if "target" in batch else {}))
        for sign in (1, -1)
    )  # fmt: skip
    return np.abs(one - other) - _scale(one, other)


def _exchangeable(subject: Subject) -> bool:
    spaces = list(subject.contract.inputs.values())
    return len(spaces) > 1 and spaces[0].name == spaces[1].name


@_law("symmetric", _exchangeable)
def check_symmetric(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """Exchanging the first two arguments changes nothing."""
    one, other = list(probe.contract.inputs)[:2]
    straight = probe.values(batch)
    crossed = probe.values({**batch, one: batch[other], other: batch[one]})
    return np.abs(straight - crossed) - _scale(straight, crossed)


@_law("shift invariant", lambda subject: "class axis" in subject.layouts)
def check_shift_invariant(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """A constant added to every logit changes nothing."""
    name = probe.predictions[0]
    straight = probe.values(batch)
    moved = probe.values({**batch, name: batch[name] + 3.5})
    return np.abs(straight - moved) - 1e3 * _scale(straight, moved)


def _scalable(subject: Subject) -> bool:
    return bool(subject.contract.predictions) and all(
        subject.contract.inputs[name].interval.high == np.inf
        for name in subject.contract.predictions
    )


@_law("scale free", _scalable)
def check_scale_free(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """A positive factor on the predictions changes nothing."""
    moved = {**batch, **{name: 2.5 * batch[name] for name in probe.predictions}}
    straight, scaled = probe.values(batch), probe.values(moved)
    return np.abs(straight - scaled) - 1e3 * _scale(straight, scaled)


@_law("order free", lambda subject: subject.unit == "anchor")
def check_order_free(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """Reordering the batch reorders the values."""
    order = np.arange(len(next(iter(batch.values()))))[::-1]
    straight = probe.values(batch)
    moved = probe.values({name: array[order] for name, array in batch.items()})
    return np.abs(straight[order] - moved) - 1e3 * _scale(straight[order], moved)


def _margined(subject: Subject) -> bool:
    target = subject.contract.target
    first = next(iter(subject.contract.inputs.values()))
    if target is None or first.layout not in ("element", "class axis"):
        return False
    return target.name in ("binary", "sign") or target.layout == "class"


@_law("monotone", _margined)
def check_monotone(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """A larger margin (a larger logit of the true class) never costs more."""
    name, target = probe.predictions[0], batch["target"]
    if target.dtype.kind in "iu":
        way = np.eye(batch[name].shape[-1])[target]
    elif probe.contract.target is not None and probe.contract.target.layout == "class":
        return np.zeros(1)  # a distribution has no single true class
    else:
        low = -1.0 if probe.contract.target and probe.contract.target.name == "sign" else 0.0
        way = np.where(target == 1, 1.0, np.where(target == low, -1.0, 0.0))
    worst = np.asarray(-np.inf)
    before = probe.values(batch)
    for step in (1e-3, 0.5, 4.0):
        after = probe.values({**batch, name: batch[name] + step * way})
        worst = np.maximum(worst, after - before - _scale(before))
    return worst


@_law("convex", lambda subject: bool(subject.contract.predictions))
def check_convex(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """Between two predictions the loss lies below the chord."""
    names = probe.predictions
    worst = np.asarray(-np.inf)
    for turn in (1, 3):
        other = {name: np.roll(batch[name], turn, axis=0) for name in names}
        if not probe.subject.independent:
            other = {name: batch[name][::-1] * (-0.5 if turn == 1 else 1.25) for name in names}
        ends = [probe.values(batch), probe.values({**batch, **other})]
        for share in (0.5, 0.125):
            between = {name: (1 - share) * batch[name] + share * other[name] for name in names}
            chord = (1 - share) * ends[0] + share * ends[1]
            above = probe.values({**batch, **between}) - chord - _scale(*ends)
            worst = np.maximum(worst, np.where(np.isfinite(chord), above, -np.inf))
    return worst


def _free(subject: Subject) -> bool:
    """Predictions may be anything: a kink cannot hide at the end of the space."""
    return all(
        subject.contract.inputs[name].interval.low == -np.inf
        for name in subject.contract.predictions
    )


def _graspable(probe: Probe, batch: Batch) -> np.ndarray:
    """Units whose numbers are 0 or large beside the steps that look for kinks."""
    if not probe.subject.independent:
        return np.ones(probe.values(batch).shape, dtype=bool)
    held = np.ones(probe.values(batch).shape, dtype=bool)
    for name, array in batch.items():
        if array.dtype.kind == "f" and not probe.contract.inputs[name].integral:
            space = probe.contract.inputs[name]
            zero = array == 0 if space.interval.low < 0 or space.layout == "label" else False
            held &= probe.by_unit(zero | (np.abs(array) >= 0.05), np.all)
    return held


@_law("smooth", lambda subject: bool(subject.contract.predictions), _free)
def check_smooth(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """The slope does not jump: the second difference fades with the step."""
    worst = np.asarray(-np.inf)
    here = probe.values(batch)
    rng = np.random.default_rng(0)
    for name in probe.predictions:
        array = batch[name]
        whole = not probe.subject.independent
        inner = array.shape if whole else array.shape[1:]
        count = int(np.prod(inner, dtype=int))
        places = range(count) if count <= 6 else rng.choice(count, 6, replace=False)
        for place in places:
            way = (np.arange(count) == place).astype(float).reshape(inner)
            jumps = []
            for step in (2.0**-12, 2.0**-20):
                ends = [{**batch, name: array + sign * step * way} for sign in (1, -1)]
                held = probe.inside(ends[0]) & probe.inside(ends[1])
                second = sum(probe.values(end) for end in ends) - 2 * here
                jumps.append(np.where(held, np.abs(second) / step, 0.0))
            noise = 1e-4 * (1 + np.abs(here))
            jump = np.where(jumps[1] > 0.1 * jumps[0], jumps[1] - noise, -np.inf)
            worst = np.maximum(worst, jump)
    return np.where(_graspable(probe, batch), worst, -np.inf)


def _one_slope(subject: Subject) -> bool:
    """Distances and margins; on the scale of logits nearly every slope has a bound."""
    spaces = [subject.contract.inputs[name].name for name in subject.contract.predictions]
    return spaces in (["real"], ["margin"])


@_law("lipschitz", lambda subject: bool(subject.contract.predictions), _one_slope)
def check_lipschitz(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """No slope is steeper than declared; what is not declared has no bound."""
    squares = sum(
        probe.by_unit(np.square(gradient), np.sum) for gradient in probe.gradients(batch).values()
    )
    steepest = np.sqrt(squares)
    if fact is None:
        far = max(np.max(np.abs(array), initial=0.0) for array in batch.values())
        # A slope beyond any constant shows where inputs are large (or, in ratios, small).
        return steepest - 0.5 * NEAR if far >= 0.5 * NEAR else steepest - NEAR
    return steepest - number_of(fact.value, probe.parameters) * (1 + SLACK)


def _spans(subject: Subject) -> bool:
    """A price on one array alone is bounded by the array's size, which no contract knows."""
    return subject.unit in ("element", "sample", "region") and len(subject.contract.inputs) > 1


@_law("bounded", _spans)
def check_bounded(probe: Probe, batch: Batch, fact: Property | None) -> np.ndarray:
    """No value exceeds the declared bound; what is not declared grows without end."""
    values = probe.values(batch)
    if fact is None:
        samples = probe.subject.samples
        hard = [each.arrays for each in samples if each.parameters == samples[0].parameters]
        return np.asarray(max(np.nanmax(np.abs(probe.values(each))) for each in hard) - 40.0)
    return values - number_of(fact.value, probe.parameters) * (1 + SLACK) - SLACK
