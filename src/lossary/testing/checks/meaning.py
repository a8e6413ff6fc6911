"""What a loss asks for: the statistic it elicits, the distribution it is honest about."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lossary.testing.checks.base import check
from lossary.testing.everyday import plain_batch
from lossary.testing.exploration import Probe
from lossary.testing.libraries import Library
from lossary.testing.subject import CheckFailed, Subject, parameters_text

Statistic = Callable[[np.ndarray, dict[str, Any]], float]


def _quantile_of(targets: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(targets)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(targets[order][np.searchsorted(reached, level)])


def _huber_location(targets: np.ndarray, parameters: dict[str, Any]) -> float:
    """The root of the clipped residuals' sum (Huber 1964), by bisection."""
    width = float(parameters.get("delta") or parameters["beta"])
    low, high = float(targets.min()), float(targets.max())
    for _ in range(200):
        middle = 0.5 * (low + high)
        pull = np.clip(targets - middle, -width, width).sum()
        low, high = (middle, high) if pull > 0 else (low, middle)
    return 0.5 * (low + high)


def _even(targets: np.ndarray) -> np.ndarray:
    return np.ones(len(targets))


# What each name means, computed without any loss.
STATISTICS: dict[str, Statistic] = {
    "mean": lambda targets, _: float(targets.mean()),
    "log mean": lambda targets, _: math.log(targets.mean()),
    "median": lambda targets, _: _quantile_of(targets, _even(targets), 0.5),
    "quantile": lambda targets, given: _quantile_of(targets, _even(targets), given["quantile"]),
    "median weighted by 1/|target|": lambda targets, _: _quantile_of(
        targets, 1 / np.abs(targets), 0.5
    ),
    "geometric mean of 1 + target, less 1": lambda targets, _: math.expm1(np.log1p(targets).mean()),
    "huber location": _huber_location,
    "log odds of the mean": lambda targets, _: math.log(targets.mean() / (1 - targets.mean())),
}


def _element(subject: Subject) -> bool:
    return any(fact.name == "elicits" for fact in subject.contract.properties)


def _targets(subject: Subject, rng: Any) -> np.ndarray:
    """Nine targets, an odd number, so that medians are unique."""
    space = subject.contract.target
    assert space is not None
    if space.integral:
        return np.array([0.0, 1, 1, 2, 3, 3, 5, 8, 13])
    if space.name == "binary":
        return np.array([0.0, 1, 1, 0, 1, 0, 0, 1, 1])
    targets = rng.gamma(1.5, 2.0, 9)
    return targets if space.interval.low == 0 else targets - 2.2


@check("meaning", "once", _element)
def check_elicits(subject: Subject, library: Library) -> None:
    """The constant prediction of least mean loss is the statistic that the loss claims."""
    rng = np.random.default_rng(11)
    for parameters in subject.settings:
        fact = subject.contract.fact("elicits", parameters)
        if fact is None:
            continue
        if fact.value not in STATISTICS:
            known = ", ".join(STATISTICS)
            raise CheckFailed(
                f"{subject.name} elicits {fact.value!r}, of which no definition is known; "
                f"it can be {known}"
            )
        targets = _targets(subject, rng)
        statistic = STATISTICS[fact.value](targets, parameters)
        probe = Probe(subject, parameters)
        found = _minimiser(probe, targets)
        spread = float(np.ptp(targets))
        if abs(found - statistic) > 1e-5 * (1 + spread):
            raise CheckFailed(
                f"{subject.name} ({parameters_text(parameters)}): the constant of least "
                f"mean loss is "
                f"{found:.9g}, but the {fact.value} of the targets is {statistic:.9g}"
            )


def _minimiser(probe: Probe, targets: np.ndarray) -> float:
    """The constant prediction of the least mean loss: a grid, refined around its best point."""
    space = probe.contract.inputs[probe.predictions[0]]
    span = float(np.ptp(targets)) + 1
    low, high = float(targets.min()) - span, float(targets.max()) + span
    if space.interval.low == 0:
        low = max(low, 1e-6)
    others = {
        name: np.ones((1, len(targets)))
        for name in probe.contract.inputs
        if name not in (probe.predictions[0], "target")
    }
    for _ in range(14):
        grid = np.linspace(low, high, 201)
        shape = (len(grid), len(targets))
        batch = {
            probe.predictions[0]: np.broadcast_to(grid[:, None], shape).ravel(),
            "target": np.broadcast_to(targets, shape).ravel(),
            **{name: np.broadcast_to(one, shape).ravel() for name, one in others.items()},
        }
        means = probe.values(batch).reshape(shape).mean(axis=1)
        best = int(np.argmin(means))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(0.5 * (low + high))


def _probabilistic(subject: Subject) -> bool:
    """Losses of a class or of yes and no, whose logits stand for a distribution."""
    target = subject.contract.target
    names = [subject.contract.inputs[name].name for name in subject.contract.predictions]
    return target is not None and (
        (names == ["class logits"] and target.layout == "class")
        or (names == ["logit"] and target.name == "binary")
    )


@check("meaning", "once", _probabilistic)
def check_proper(subject: Subject, library: Library) -> None:
    """The expected loss is least at the true distribution, if and only if that is declared."""
    for parameters in subject.settings:
        contract = subject.contract
        strict = contract.has("strictly proper", parameters)
        proper = strict or contract.has("proper", parameters)
        main = parameters == subject.main
        if not (proper or (main and contract.properties)):
            continue
        # How much better than the truth the best other prediction is; and the nearest miss.
        gain, tie = _best_lie(Probe(subject, parameters))
        at = f"{subject.name} ({parameters_text(parameters)})"
        if proper and gain > 1e-9:
            raise CheckFailed(f"{at} is not proper: a wrong distribution costs {gain:.3g} less")
        if strict and tie > -1e-9:
            raise CheckFailed(f"{at} is not strictly proper: a wrong distribution costs the same")
        if not proper and gain <= 1e-9:
            raise CheckFailed(
                f"{at} seems to be proper: no distribution beats the true one; declare it"
            )


def _best_lie(probe: Probe) -> tuple[float, float]:
    rng = np.random.default_rng(2)
    gains = []
    binary = probe.contract.inputs[probe.predictions[0]].name == "logit"
    classes = 2 if binary else _class_count(probe)
    for _ in range(12):
        truth = rng.dirichlet(1.5 * np.ones(classes))
        lies = np.concatenate(
            [rng.dirichlet(np.ones(classes), 60), truth ** rng.uniform(0.2, 12.0, (20, 1))]
        )
        lies = lies / lies.sum(axis=1, keepdims=True)
        lies = lies[np.abs(lies - truth).max(axis=1) > 0.02]
        costs = _expected(probe, truth, np.concatenate([truth[None], lies]), binary)
        gains.append(costs[0] - costs[1:].min())
    return max(gains), max(gains)


def _class_count(probe: Probe) -> int:
    batch = plain_batch(probe.contract, probe.parameters, rows=1)
    return int(batch[probe.predictions[0]].shape[-1])


def _expected(probe: Probe, truth: np.ndarray, guesses: np.ndarray, binary: bool) -> np.ndarray:
    """The expected loss of each guessed distribution under the true one."""
    name = probe.predictions[0]
    cost = np.zeros(len(guesses))
    for label, share in enumerate(truth):
        if binary:
            logits = np.log(guesses[:, 1]) - np.log(guesses[:, 0])
            target = np.full(len(guesses), float(label))
        else:
            logits = np.log(guesses)
            target = np.full(len(guesses), label)
        cost += share * probe.values({name: logits, "target": target})
    return cost
