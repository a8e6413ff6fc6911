"""Objectives: a weighted sum of losses trained on one output layer, each term's share visible."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lossary.advice.calls import calls
from lossary.advice.target import Target
from lossary.contract import LossError
from lossary.cost import Objective
from lossary.evaluate import Loss
from lossary.lab.heads import Head, estimates, head_for, output_of

Tensor = torch.Tensor
Minimised = Loss | Objective

# A plus before a term: a name, or a factor, a star and a name. (Not the plus of 1e+5.)
_PLUS = re.compile(r"\+(?=\s*(?:[\d.][\d.eE+-]*\s*\*\s*)?[A-Za-z_])")
_FACTOR = re.compile(r"\s*([\d.][\d.eE+-]*)\s*\*(.*)", re.DOTALL)


def terms_of(text: str) -> list[tuple[float, str]]:
    """``a+0.5*b`` as factors and losses; one loss alone has the factor 1."""
    found = []
    for piece in _PLUS.split(text):
        weighed = _FACTOR.fullmatch(piece)
        factor, name = (weighed[1], weighed[2]) if weighed else ("1", piece)
        try:
            found.append((float(factor), name.strip()))
        except ValueError:
            raise LossError(f"{text}: {factor} is no number; write a+0.5*b") from None
    return found


def text_of(loss: Minimised) -> str:
    """As the command line takes it: ``huber:delta=2.0``, ``cross_entropy+0.5*squared_error``."""
    if isinstance(loss, Objective):
        return "+".join(
            f"{factor:g}*" * (factor != 1) + text_of(term)
            for factor, term in checked_terms(loss).values()
        )
    given = {
        key: value
        for key, value in loss.parameters.items()
        if loss.contract.parameters[key].required or value != loss.contract.parameters[key].default
    }
    return loss.contract.name + ":" * bool(given) + ",".join(f"{k}={v}" for k, v in given.items())


def checked_terms(objective: Objective) -> dict[str, tuple[float, Loss]]:
    """The terms, or a LossError where one is no Loss or its factor no positive number."""
    found: dict[str, tuple[float, Loss]] = {}
    for name, (factor, loss) in objective.terms.items():
        if not isinstance(loss, Loss):
            raise LossError(
                f"objective: {name} is a {type(loss).__name__}; the lab trains terms "
                "(factor, lossary.Loss(...))"
            )
        if not (factor > 0 and np.isfinite(factor)):
            raise LossError(f"objective: {name} has the factor {factor:g}; expected one above 0")
        found[name] = (float(factor), loss)
    return found


def objective_of(names: list[str], terms: list[tuple[float, Loss]]) -> Objective:
    """Terms as an Objective, each named by its loss; by its place too where a name comes twice."""
    labels = [
        name if names.count(name) == 1 else f"{name} ({place})"
        for place, name in enumerate(names, 1)
    ]
    made = Objective(**dict(zip(labels, terms, strict=True)))
    checked_terms(made)
    return made


def config_of(loss: Minimised) -> dict[str, Any]:
    """A plain dictionary from which ``from_config`` makes the same."""
    if isinstance(loss, Loss):
        return loss.config
    terms = checked_terms(loss)
    return {"terms": {name: [factor, term.config] for name, (factor, term) in terms.items()}}


def from_config(config: Mapping[str, Any]) -> Minimised:
    """The loss or objective of a ``config_of``."""
    if "terms" not in config:
        return Loss.from_config(config)
    return Objective(
        **{name: (factor, Loss.from_config(c)) for name, (factor, c) in config["terms"].items()}
    )


def change(loss: Minimised, how: Callable[[Loss], Loss]) -> Minimised:
    """The loss, or every term, as ``how`` makes it."""
    if isinstance(loss, Loss):
        return how(loss)
    terms = checked_terms(loss)
    return Objective(**{name: (factor, how(term)) for name, (factor, term) in terms.items()})


# -- heads ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Follower(Head):
    """The head of a term that shares the outputs of ``base``.

    Losses of logits, probabilities and margins read the same linear outputs by their own
    activation. A loss of plain numbers takes what the base's outputs mean: a probability or a
    quantity.
    """

    base: Head | None = None

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The term's prediction from the base's outputs (..., base.width)."""
        assert self.base is not None
        two_for_one = self.base.width == 2 and self.width == 1 and self.encoding != "quantity"
        if self.spaces[0].name == "real" and self.encoding != "sign":
            meant = self.base.meant(outputs)
            return (meant[..., 1] if two_for_one else meant,)
        # Of two logits the difference is the logit of yes.
        return super().predictions(outputs[..., 1:] - outputs[..., :1] if two_for_one else outputs)


@dataclass(frozen=True)
class Joint(Head):
    """The head of an objective: that of its leading term, and every term's own reading of it."""

    terms: Mapping[str, tuple[float, Head]] = field(default_factory=dict)

    def encode(self, values: Tensor) -> Tensor:
        """The target as it is: every term encodes its own."""
        return values

    def contributions(self, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each term's mean per replica, (replicas,), factor included."""
        return {
            name: factor * head.values(outputs, head.encode(target))
            for name, (factor, head) in self.terms.items()
        }

    def values(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Their sum."""
        return torch.stack([*self.contributions(outputs, target).values()]).sum(0)


def head_of(loss: Minimised, target: Target) -> Head:
    """The head of a loss or an objective, or a LossError that says why there is none."""
    if isinstance(loss, Loss):
        return head_for(loss, target)
    terms = checked_terms(loss)
    heads = {name: head_for(term, target) for name, (_, term) in terms.items()}
    lead = max(heads, key=lambda name: (_leads(heads[name]), -list(heads).index(name)))
    base = heads[lead]
    readings = {
        name: (terms[name][0], base if name == lead else _follow(head, base, name, lead))
        for name, head in heads.items()
    }
    return Joint(
        base.loss, target, base.spaces, base.units, base.encoding, base.scale, base.offset, readings
    )


def _leads(head: Head) -> int:
    """Whose outputs all terms share: rather those with a meaning, rather not plain numbers."""
    plain = head.spaces[0].name == "real"
    return 0 if plain else 2 if head.is_probability else 1


def _follow(head: Head, base: Head, name: str, lead: str) -> Follower:
    """A term's head on the outputs of another, or a LossError where they cannot be shared."""
    plain = head.spaces[0].name == "real" and head.encoding != "sign"
    single = len(head.units) == 1
    if head.encoding == "quantity":
        same = plain or (head.spaces, head.scale) == (base.spaces, base.scale)
    else:
        same = head.width == base.width or (base.width == 2 and head.width == 1)
    if not (single and same):
        raise LossError(
            f"objective: {name} takes {_output(head)} and {lead} {_output(base)}; terms share one "
            "output layer: choose losses of one kind"
        )
    copied = {key: getattr(head, key) for key in ("loss", "target", "spaces", "units", "encoding")}
    return Follower(**copied, scale=base.scale, offset=base.offset, base=base)


def _output(head: Head) -> str:
    return " and ".join(
        f"{units} × {space.name}" for units, space in zip(head.units, head.spaces, strict=True)
    )


# -- accounts -------------------------------------------------------------------------------------


def term_shares(head: Head, outputs: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """Each term's share of the value and of the gradient, mean over replicas; {} of one loss.

    A share of the gradient: the mean size of the term's gradient per row, of the sum over terms;
    terms that pull against each other both count. ``outputs`` (replicas, n, width).
    """
    if not isinstance(head, Joint):
        return {}
    leaf = outputs.detach().clone().requires_grad_()
    found = head.contributions(leaf, target)
    sizes, pulls = [], []
    for value in found.values():
        (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
        pulls.append(slope.norm(dim=-1).mean(dim=-1))
        sizes.append(value.detach().abs())
    return {
        name: {"value": value, "gradient": pull}
        for name, value, pull in zip(found, _parts(sizes), _parts(pulls), strict=True)
    }


def _parts(sizes: list[Tensor]) -> list[float]:
    """Shares of the whole, mean over replicas; NaN where the whole is 0."""
    whole = torch.stack(sizes).double()
    return [float(part) for part in (whole / whole.sum(0)).mean(1)]


def meaning(loss: Minimised) -> str:
    """What the outputs estimate: of an objective, what all terms agree on."""
    if isinstance(loss, Loss):
        return estimates(loss)
    found = {estimates(term) for _, term in checked_terms(loss).values()}
    if found == {"mean", "calibrated probabilities"}:  # the mean of 0 and 1 is the probability
        return "calibrated probabilities"
    return found.pop() if len(found) == 1 else "not a named statistic"


def head_in_words(loss: Minimised, head: Head) -> dict[str, Any]:
    """Units and activation of each prediction; of an objective, those of its leading term."""
    return output_of(loss if isinstance(loss, Loss) else head.loss, head)


def lines(loss: Minimised) -> dict[str, str]:
    """The lines to paste, by framework; of an objective, for each term."""
    if isinstance(loss, Loss):
        return calls(loss)
    return {
        f"{framework}, {factor:g} × {name}": line
        for name, (factor, term) in checked_terms(loss).items()
        for framework, line in calls(term).items()
    }
