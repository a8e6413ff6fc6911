"""The demands on a loss that a target and a use make: each with its reason and the numbers seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lossary.advice.target import Target
from lossary.advice.use import Use
from lossary.contract import Contract

IMBALANCED = 4.0  # commonest over rarest class
FAR_OUT = 0.002  # share of targets beyond three interquartile ranges
MEANS = ("mean", "log mean")


@dataclass(frozen=True)
class Role:
    """A demand on a contract and the reason to want it, with the numbers seen."""

    why: str
    wants: Callable[[Contract], bool]
    likes: Callable[[Contract], float] = lambda contract: 0.0
    parameters: Callable[[Contract], dict[str, Any]] = lambda contract: {}


def elicits(contract: Contract, statistics: tuple[str, ...]) -> bool:
    """Whether the loss's best prediction is one of these statistics."""
    fact = contract.fact("elicits")
    return fact is not None and fact.value in statistics


def roles(target: Target, use: Use) -> list[Role]:
    """What losses for this target and use must fill, the most wanted first."""
    return (
        _quantity_roles(target, use)
        if target.task in ("real", "count")
        else _class_roles(target, use)
    )


# -- quantities ---------------------------------------------------------------------------------


def _quantity_roles(target: Target, use: Use) -> list[Role]:
    facts = target.facts
    if use.name == "quantile":
        return [_quantile_role(use.level)]
    far = facts["share far out"]
    spread = facts["variance over mean"]
    robust = Role(
        f"{far:.1%} of targets lie far out (excess kurtosis {facts['excess kurtosis']:.3g}): "
        "its slope is bounded, so that no single row decides, wrong ones included",
        lambda c: (
            c.has("lipschitz") and c.has("convex") and c.has("zero at target") and c.has("smooth")
        ),
        lambda c: 0.5 * c.has("elicits"),
    )
    median = Role(
        f"the median ({facts['median']:.4g}) is what half of the targets exceed"
        + (
            f"; the skewness of {facts['skewness']:.3g} sets it apart from the mean"
            if abs(facts["skewness"]) > 1
            else ""
        ),
        lambda c: elicits(c, ("median",)),
    )
    mean = Role(
        _mean_reason(target),
        # A proper loss of a probability is one of a share: its best prediction is the mean share.
        lambda c: elicits(c, MEANS) or (target.is_share and c.has("strictly proper")),
        lambda c: _closeness(c, target),
    )
    plain = Role(
        "the usual default: it estimates the mean and nothing else",
        lambda c: elicits(c, MEANS) and c.has("even") and len(c.predictions) == 1,
    )
    if use.name == "median":
        return [median, robust]
    if target.task == "count" and spread > 1.5:
        spreading = Role(
            f"the variance is {spread:.3g} times the mean, more than Poisson's: it learns the "
            "spread as well",
            lambda c: elicits(c, MEANS) and len(c.predictions) > 1 and _closeness(c, target) > 0,
        )
        return [mean, spreading, plain]
    if far > FAR_OUT:
        return [mean, robust, median]
    return [mean, plain, robust]


def _mean_reason(target: Target) -> str:
    facts = target.facts
    zeros = facts["share of zeros"]
    if target.task == "count":
        expected = math.exp(-facts["mean"])
        many = (
            f" ({zeros:.1%} are 0, where Poisson's law expects {expected:.1%})"
            if zeros > 1.5 * expected
            else ""
        )
        return (
            f"counts from {facts['minimum']:g} to {facts['maximum']:g} with mean "
            f"{facts['mean']:.4g}{many}: its variance grows with the mean, as theirs does"
        )
    if target.is_share:
        return (
            f"every target lies between {facts['minimum']:g} and {facts['maximum']:g}, as a share "
            "does: its predictions cannot leave 0 to 1"
        )
    if _spreading(target):
        return (
            f"no target is below 0, {zeros:.1%} are 0 and the skewness is "
            f"{facts['skewness']:.3g}: errors count relative to the size of the target"
        )
    return (
        f"the mean is asked for ({facts['mean']:.4g} ± {facts['standard deviation']:.4g}), "
        f"with a skewness of {facts['skewness']:.3g}"
    )


def _spreading(target: Target) -> bool:
    """Positive and skewed: the spread grows with the size."""
    return target.facts["minimum"] >= 0 and target.facts["skewness"] > 1.0


def _closeness(contract: Contract, target: Target) -> float:
    """How well the set that targets live in matches the data."""
    wanted = contract.target
    assert wanted is not None
    if target.task == "count":
        return 3.0 if wanted.integral else 0.0
    if target.is_share:
        return 3.0 if (wanted.interval.low, wanted.interval.high) == (0, 1) else 0.0
    if _spreading(target) and wanted.interval.low == 0:
        # Open at zero: made for strictly positive targets; closed: zeros are welcome.
        return 2.5 + (0.0 in wanted.interval) * (target.facts["share of zeros"] > 0)
    return 0.0


def _quantile_role(level: float) -> Role:
    def parameter(contract: Contract) -> str | None:
        for name, item in contract.parameters.items():
            if item.type is float and (item.interval.low, item.interval.high) == (0, 1):
                return name
        return None

    return Role(
        f"the {level:g} quantile is asked for: {level:.0%} of targets lie below it",
        lambda c: elicits(c, ("quantile", "expectile")) and parameter(c) is not None,
        lambda c: float(elicits(c, ("quantile",))),
        lambda c: {str(parameter(c)): level},
    )


# -- classes ------------------------------------------------------------------------------------


def _class_roles(target: Target, use: Use) -> list[Role]:
    facts = target.facts
    rows = int(facts["rows"])
    ratio = facts.get("commonest over rarest", 1.0)
    several = "labels" if target.task == "multi-label" else "classes"
    kinds = f"{len(target.labels)} {several} in {rows} rows"
    proper = Role(
        f"{kinds}: its best prediction is the true probability, which ranks, decides and can be "
        "weighed with any costs",
        lambda c: c.has("strictly proper"),
        lambda c: _own_kind(c, target),
    )
    balanced = Role(
        f"the commonest class is {ratio:.3g} times the rarest ({facts['rarest share']:.1%} of "
        "rows): it makes rare classes count",
        lambda c: any(p.required and name.endswith("counts") for name, p in c.parameters.items()),
        lambda c: 2.0 * any(p.name == "strictly proper" for p in c.properties),
    )
    robust = Role(
        "if some labels are wrong: its value is bounded, so a wrong label cannot outweigh the rest",
        lambda c: c.has("bounded") and c.has("monotone"),
        lambda c: _own_kind(c, target),
    )
    margin = Role(
        "only the decision counts: rows beyond the margin get no gradient or little",
        lambda c: "margin" in c.parameters and c.has("convex"),
        lambda c: _own_kind(c, target),
    )
    ordered = Role(
        "the classes have an order: a near miss costs less than a far one",
        lambda c: c.target is not None and "order" in c.target.name,
    )
    if use.name == "cost":
        priced = Role(
            "mistakes have different prices: they enter the loss as its costs",
            lambda c: any(name.endswith(("cost", "costs")) for name in c.parameters),
            lambda c: 2.0 * _own_kind(c, target),
            lambda c: _costs(c, use),
        )
        return [priced, proper]
    roles = [proper]
    if target.ordered:
        roles.append(ordered)
    if ratio > IMBALANCED and use.name == "probability":
        roles.append(balanced)
    return [*roles, margin] if use.name == "ranking" else [*roles, robust, margin]


def _own_kind(contract: Contract, target: Target) -> float:
    """A binary target prefers one logit to two; classes need an axis of them."""
    assert contract.target is not None
    one = contract.target.layout == "element"
    return 1.0 if one == (target.task != "classes") else 0.0


def _costs(contract: Contract, use: Use) -> dict[str, Any]:
    """The user's matrix as the loss's cost parameters."""
    costs = use.costs
    found: dict[str, Any] = {}
    for name in contract.parameters:
        if name == "false_negative_cost":
            found[name] = costs[1][0]
        elif name == "false_positive_cost":
            found[name] = costs[0][1]
        elif name == "false_positive_costs":
            found[name] = [
                [0.0 if i == j else x for j, x in enumerate(row)] for i, row in enumerate(costs)
            ]
    return found
