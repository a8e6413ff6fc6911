"""Losses by the text that names them: ``huber:delta=2``, fitted to a target."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from lossary.advice.fit import meet
from lossary.advice.target import Target
from lossary.contract import Contract, LossError, resolve
from lossary.cost import Objective
from lossary.evaluate import Loss
from lossary.lab.objective import Minimised, change, objective_of, terms_of, text_of


def split_names(text: str) -> list[str]:
    """``a,huber:delta=2,reduction=sum,b`` as three texts: a setting goes with the name before."""
    names: list[str] = []
    depth, piece = 0, ""
    for letter in text + ",":
        depth += (letter in "([") - (letter in ")]")
        if letter != "," or depth > 0:
            piece += letter
            continue
        if names and re.match(r"\s*\w+\s*=", piece):
            names[-1] += "," + piece
        elif piece.strip():
            names.append(piece.strip())
        piece = ""
    return names


def parse(text: str) -> tuple[Contract, dict[str, Any]]:
    """The contract and the settings of ``name:parameter=value,...``; nothing is evaluated."""
    name, _, settings = text.partition(":")
    contract, presets = resolve(name)
    try:
        call = ast.parse(f"f({settings})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError
        given = {str(word.arg): _literal(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        raise LossError(
            f"{text}: not understood; write {name}:parameter=value,parameter=value"
        ) from None
    return contract, {k: v for k, v in presets.items() if k != "predictions"} | given


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def fitted(text: str, target: Target) -> Loss:
    """The loss of ``text``, its data-given parameters filled in.

    Errors: LossError for an objective, an unknown loss, one that does not fit the target, and for a
    setting that training would ignore.
    """
    if terms_of(text) != [(1.0, text.strip())]:
        raise LossError(f"{text}: is an objective of several terms; give one loss here")
    contract, given = parse(text)
    meet(contract, target)  # before its parameters are asked for
    return as_trained(Loss(contract, **fill(contract, given, target)), text)


def as_trained(loss: Loss, text: str = "") -> Loss:
    """The loss as the lab trains it: the mean over every row of what its definition takes.

    How predictions arrive is the head's business: a loss of probabilities gets logits too.
    """
    for name, trained in (("reduction", "mean"), ("ignore", None)):
        if (value := getattr(loss, name)) != trained:
            raise LossError(
                f"{text or text_of(loss)}: {name}={value} would be ignored, since the lab takes "
                "the mean over every row; leave it out"
            )
    if loss.predictions is None:
        return loss
    kept = {name: getattr(loss, name) for name in ("empty", "validate", "implementation")}
    return Loss(loss.contract, **kept, **loss.parameters)


def fitted_all(losses: Iterable[str | Minimised], target: Target) -> dict[str, Minimised]:
    """Losses and objectives by their texts; ``a+0.5*b`` is an objective of two terms."""
    found: dict[str, Minimised] = {}
    for item in losses:
        if isinstance(item, Loss | Objective):
            found[text_of(item)] = change(item, as_trained)
            continue
        if not isinstance(item, str):
            raise LossError(
                f"losses: {item!r} is a {type(item).__name__}; expected a name, a Loss or an "
                "Objective"
            )
        terms = terms_of(item)
        if len(terms) == 1 and terms[0][0] == 1:
            found[item] = fitted(item, target)
            continue
        made = [(factor, fitted(name, target)) for factor, name in terms]
        found[item] = objective_of([name for _, name in terms], made)
    return found


def fill(contract: Contract, given: dict[str, Any], target: Target) -> dict[str, Any]:
    """Required parameters that the data decide (class counts or priors); an error for any other."""
    filled = dict(given)
    for name, parameter in contract.parameters.items():
        if name in filled or not parameter.required:
            continue
        if not target.labels or target.task == "multi-label":
            value = None
        else:
            value = of_counts(name, target.class_counts.tolist())
        if value is None:
            raise LossError(
                f"{contract.name}: parameter {name!r} is required; give it after a colon: "
                f"{contract.name}:{name}=VALUE"
            )
        filled[name] = value
    return filled


def of_counts(name: str, counts: list[int]) -> tuple[float, ...] | None:
    """What a parameter of this name means in class counts: the counts, their shares, or None."""
    if name.endswith("counts"):
        return tuple(max(1, count) for count in counts)
    if name.endswith(("prior", "priors", "frequencies", "shares")):
        return tuple(max(1, count) / sum(counts) for count in counts)
    return None
