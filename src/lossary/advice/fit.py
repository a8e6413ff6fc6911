"""Whether a loss fits a target, and the shape of the output layer where they meet."""

from __future__ import annotations

from dataclasses import dataclass

from lossary.advice.target import Target
from lossary.contract import Contract, LossError, Space

QUANTITIES = ("real", "positive", "nonnegative", "count")
CERTAINTIES = ("logit", "margin", "probability", "mask", "real", "binary", "sign", "image")
TRUTHS = ("binary", "sign", "probability", "mask", "real", "pair labels")


@dataclass(frozen=True)
class Meeting:
    """How a loss takes a target: units of each prediction, and the target's encoding.

    ``encoding``: quantity, index, one-hot, binary or sign. ``natural``: the loss is made for such
    targets; a regression loss on one-hot classes works, but is not.
    """

    units: tuple[int, ...]
    encoding: str
    natural: bool


def meet(contract: Contract, target: Target) -> Meeting:
    """The meeting of a loss and a target, or a LossError that says why there is none."""
    wanted = contract.target
    spaces = [contract.inputs[name] for name in contract.predictions]
    if wanted is None or not spaces:
        raise LossError(
            f"{contract.name}: takes no target, so it cannot be trained alone on {target.name}; "
            "compare losses of (prediction, target)"
        )
    if target.task in ("real", "count"):
        found = _quantity(contract, target, spaces, wanted)
    else:
        found = _decision(contract, target, spaces, wanted)
    if found is None:
        raise LossError(
            f"{contract.name}: compares {spaces[0].name} with {wanted.name}, which does not fit "
            f"the {target.task} target {target.name}; `lossary advise` names losses that do"
        )
    return found


def _quantity(
    contract: Contract, target: Target, spaces: list[Space], wanted: Space
) -> Meeting | None:
    first = spaces[0]
    share = first.name == "logit" and wanted.name == "binary"
    if first.layout != "element" or not (share or first.name in (*QUANTITIES, "log rate")):
        return None
    if not (share or wanted.name in QUANTITIES):
        return None
    for value in (target.facts["minimum"], target.facts["maximum"]):
        if value not in wanted.interval:
            raise LossError(
                f"{contract.name}: target {target.name} holds {value:g}, outside {wanted.name} "
                f"{wanted.interval}; choose a loss for real targets, or shift the target"
            )
    natural = not wanted.integral or target.task == "count"
    return Meeting((1,) * len(spaces), "quantity", natural)


def _decision(
    contract: Contract, target: Target, spaces: list[Space], wanted: Space
) -> Meeting | None:
    first, classes = spaces[0], len(target.labels)
    several = target.task == "multi-label"
    if len(spaces) > 1:
        return None
    if first.layout == "class axis" and contract.unit and contract.unit.name == "region":
        return None  # made for the classes of an image's pixels, not for one class per row
    if first.layout == "class axis" and wanted.layout in ("class", "class axis"):
        if several and wanted.layout == "class":
            return None
        encoding = "index" if wanted.layout == "class" else "one-hot"
        return Meeting((classes,), encoding, several or wanted.name != "multi-hot")
    if first.layout == wanted.layout == "row":
        return Meeting((classes,), "one-hot", False) if target.task == "classes" else None
    if first.name not in CERTAINTIES or wanted.name not in TRUTHS:
        return None
    units = 1 if target.task == "binary" else classes
    encoding = "sign" if wanted.name == "sign" else ("binary" if units == 1 else "one-hot")
    yes_or_no = wanted.name in ("binary", "sign") and first.name != "real"
    natural = yes_or_no and target.task != "classes"
    return Meeting((units,), encoding, natural)
