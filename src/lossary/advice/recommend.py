"""Two or three losses for a target, with reasons: derived from contracts, never from a list.

Each role is a demand on a contract (what it elicits, how its slope grows, which parameters it
takes). Among the losses that fill a role, the one whose spaces are closest to the data wins, then
the simpler, then the one that goes by more names. So a new loss is advised without new code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lossary.advice.calls import calls
from lossary.advice.fit import meet
from lossary.advice.roles import MEANS, Role, elicits, roles
from lossary.advice.target import Target, describe
from lossary.advice.use import parse_use
from lossary.contract import Contract, LossError, contract_of, contracts
from lossary.evaluate import Loss


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
    for role in roles(described, wanted):
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
        unbiased = elicits(contract, MEANS) or contract.has("strictly proper", parameters)
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
