"""Two or three losses for a target, with reasons: derived from contracts, never from a list.

Each role is a demand on a contract (what it elicits, how its slope grows, which parameters it
takes). Among the losses that fill a role, the one whose spaces are closest to the data wins, then
the simpler, then the one that goes by more names. So a new loss is advised without new code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lossary.advice.calls import calls
from lossary.advice.fit import meet
from lossary.advice.target import Target, describe
from lossary.advice.use import Use, parse_use
from lossary.contract import Contract, LossError, contract_of, contracts
from lossary.evaluate import Loss

IMBALANCED = 4.0  # commonest over rarest class
FAR_OUT = 0.002  # share of targets beyond three interquartile ranges
MEANS = ("mean", "log mean")


@dataclass(frozen=True)
class Candidate:
    """An advised loss: its name and parameters, why, and what it means for the network."""

    name: str
    parameters: dict[str, Any]
    why: str
    estimates: str
    head: str
    calibration: str
    calls: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As the command line takes it: ``pinball:quantile=0.9``."""
        given = ",".join(f"{key}={json.dumps(value)}" for key, value in self.parameters.items())
        return f"{self.name}:{given}" if given else self.name


@dataclass(frozen=True)
class Advice:
    """What was seen in a target and which losses fit it, the first one best."""

    target: str
    task: str
    use: str
    seen: dict[str, float]
    candidates: tuple[Candidate, ...]
    metric: str | None
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Role:
    """A demand on a contract and the reason to want it, with the numbers seen."""

    why: str
    wants: Callable[[Contract], bool]
    likes: Callable[[Contract], float] = lambda contract: 0.0
    parameters: Callable[[Contract], dict[str, Any]] = lambda contract: {}


def advise(target: Any, *, use: str | None = None, task: str | None = None) -> Advice:
    """Losses that fit ``target``: a Target, or values of shape (n,) or (n, labels).

    ``use`` is what the prediction is for: mean, median, quantile=0.9, probability, ranking, or
    cost=MATRIX with costs[truth][decision]. Errors: LossError for a target nothing can be learnt
    from, or a use that does not fit it.
    """
    described = target if isinstance(target, Target) else describe(target, task=task)
    wanted = parse_use(use, described)
    fitting = [contract for contract in contracts() if _natural(contract, described)]
    chosen: dict[str, Candidate] = {}
    for role in _roles(described, wanted):
        filling = [c for c in fitting if c.name not in chosen and role.wants(c)]
        if filling:
            best = max(
                filling, key=lambda c: (role.likes(c) + _simplicity(c), len(c.aliases), c.name)
            )
            chosen[best.name] = _candidate(best, role, described)
    if not chosen:
        raise LossError(
            f"target {described.name}: no registered loss fits a {described.task} target"
        )
    return Advice(
        described.name,
        described.task,
        use or wanted.name,
        described.facts,
        tuple(chosen.values())[:3],
        wanted.metric(described) if use else None,
        _notes(described, list(chosen)),
    )


def _notes(target: Target, chosen: list[str]) -> tuple[str, ...]:
    """What the reader may have to decide."""
    knows_order = any("order" in contract_of(name).target.name for name in chosen)  # type: ignore[union-attr]
    if target.ordered and not knows_order:
        return (
            f"the classes are whole numbers from {target.labels[0]} to {target.labels[-1]}, and "
            "these losses ignore their order: for steps of one quantity, such as a rating, say "
            "--task real",
        )
    return ()


def _natural(contract: Contract, target: Target) -> bool:
    try:
        return meet(contract, target).natural
    except LossError:
        return False


def _simplicity(contract: Contract) -> float:
    """Fewer predictions and no required parameter; convex and smooth train without surprises."""
    required = sum(p.required for p in contract.parameters.values())
    return (
        -1.0 * (len(contract.predictions) - 1)
        - 0.5 * required
        + 1.0 * contract.has("convex")
        + 0.5 * contract.has("smooth")
    )


def _elicits(contract: Contract, statistics: tuple[str, ...]) -> bool:
    fact = contract.fact("elicits")
    return fact is not None and fact.value in statistics


def _roles(target: Target, use: Use) -> list[Role]:
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
        "its slope is "
        "bounded, so that no single row decides, wrong ones included",
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
        lambda c: _elicits(c, ("median",)),
    )
    mean = Role(
        _mean_reason(target),
        # A proper loss of a probability is one of a share: its best prediction is the mean share.
        lambda c: _elicits(c, MEANS) or (target.is_share and c.has("strictly proper")),
        lambda c: _closeness(c, target),
    )
    plain = Role(
        "the usual default: it estimates the mean and nothing else",
        lambda c: _elicits(c, MEANS) and c.has("even") and len(c.predictions) == 1,
    )
    if use.name == "median":
        return [median, robust]
    if target.task == "count" and spread > 1.5:
        spreading = Role(
            f"the variance is {spread:.3g} times the mean, more than Poisson's: it learns the "
            "spread as well",
            lambda c: _elicits(c, MEANS) and len(c.predictions) > 1 and _closeness(c, target) > 0,
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
        "with a skewness "
        f"of {facts['skewness']:.3g}"
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
        lambda c: _elicits(c, ("quantile", "expectile")) and parameter(c) is not None,
        lambda c: float(_elicits(c, ("quantile",))),
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
        "rows): "
        "it makes rare classes count",
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


# -- the answer ---------------------------------------------------------------------------------


def _candidate(contract: Contract, role: Role, target: Target) -> Candidate:
    parameters = role.parameters(contract)
    filled = dict(parameters)
    for name, item in contract.parameters.items():
        if item.required and name not in filled and target.labels:
            filled[name] = target.class_counts.tolist()
    meeting = meet(contract, target)
    heads = [
        f"{units} {'unit' if units == 1 else 'units'}, {contract.inputs[name].activation} "
        f"({name}: {contract.inputs[name].name})"
        for name, units in zip(contract.predictions, meeting.units, strict=True)
    ]
    return Candidate(
        contract.name,
        parameters,
        role.why,
        _estimates(contract, parameters, target),
        "; ".join(heads) + ("; in Keras as equal parts of one output" if len(heads) > 1 else ""),
        _calibration(contract, parameters, target),
        calls(Loss(contract, **filled)),
    )


def _estimates(contract: Contract, parameters: dict[str, Any], target: Target) -> str:
    fact = contract.fact("elicits", parameters)
    if fact is not None:
        return f"the {fact.value}"
    if contract.has("strictly proper", parameters):
        return "the mean" if target.is_share else "calibrated probabilities"
    if (
        contract.target is not None and contract.target.layout in ("class", "class axis")
    ) or _binary(contract):
        return "a decision: its scores order the classes"
    return "a centre of the targets that has no name of its own"


def _binary(contract: Contract) -> bool:
    return contract.target is not None and contract.target.name in ("binary", "sign")


def _calibration(contract: Contract, parameters: dict[str, Any], target: Target) -> str:
    if target.task in ("real", "count"):
        unbiased = _elicits(contract, MEANS) or contract.has("strictly proper", parameters)
        return (
            "predictions average to the targets' mean"
            if unbiased
            else "predictions may be biased for the mean"
        )
    if contract.has("strictly proper", parameters):
        return "keeps probabilities calibrated"
    if any(name.endswith("counts") for name in contract.parameters):
        return (
            "shifts probabilities towards rare classes; correct them by the class shares before use"
        )
    return "distorts probabilities; calibrate them on held-out rows before use"
