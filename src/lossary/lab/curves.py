"""Value and slope of each loss over what the user's own data showed: residuals or probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.evaluate import Loss
from lossary.inputs import outside
from lossary.lab.heads import Head, head_for
from lossary.lab.objective import Minimised

POINTS = 81


def curve(loss: Loss, target: Target, low: float, high: float) -> dict[str, Any] | None:
    """Positions, values and slopes; None where the loss has no such one-dimensional picture.

    Quantities: by the residual in standard deviations, at the mean target. Decisions: by the
    probability given to the true class, the rest shared evenly by the others.
    """
    head = head_for(loss, target)
    unit = loss.contract.unit
    if target.task == "multi-label" or (unit and unit.name not in ("element", "sample")):
        return None
    if target.task in ("real", "count"):
        drawn = _by_residual(head, low, high)
    else:
        drawn = _by_probability(head)
    if drawn is None:
        return None
    positions, leaf, arguments, truth = drawn
    values = head.unreduced(arguments, truth)
    (slope,) = torch.autograd.grad(values.sum(), leaf)
    size = slope.abs() if slope.ndim == 1 else slope.norm(dim=-1)
    values = values if values.ndim == 1 else values.mean(-1)
    return {
        "positions": positions.tolist(),
        "values": values.detach().tolist(),
        "slopes": size.tolist(),
    }


def _by_residual(head: Head, low: float, high: float) -> Any:
    spread = head.target.facts["standard deviation"] / head.scale
    positions = torch.linspace(low, high, POINTS, dtype=torch.float64)
    truth = torch.full((POINTS,), head.target.facts["mean"] / head.scale, dtype=torch.float64)
    if head.loss.contract.target is not None and head.loss.contract.target.integral:
        truth = torch.round(truth)
    leaf = truth + positions * spread
    if head.spaces[0].name == "log rate":
        keep = leaf > 0.02 * float(truth[0])
        positions, truth, leaf = positions[keep], truth[keep], torch.log(leaf[keep])
    elif head.spaces[0].name == "logit":
        keep = (leaf > 0.001) & (leaf < 0.999)
        positions, truth, leaf = positions[keep], truth[keep], torch.logit(leaf[keep])
    else:
        keep = ~outside(leaf, head.spaces[0])
        positions, truth, leaf = positions[keep], truth[keep], leaf[keep]
    leaf = leaf.requires_grad_()
    others = [torch.ones_like(truth) for _ in head.spaces[1:]]
    return positions, leaf, (leaf, *others), truth


def _by_probability(head: Head) -> Any:
    positions = torch.linspace(0.01, 0.99, POINTS, dtype=torch.float64)
    name, units = head.spaces[0].name, head.units[0]
    odds = torch.log(positions) - torch.log1p(-positions)
    if name in ("class logits", "simplex"):
        rest = ((1 - positions) / (units - 1))[:, None].expand(-1, units - 1)
        shares = torch.cat([positions[:, None], rest], dim=1)
        leaf = (torch.log(shares) if name == "class logits" else shares).requires_grad_()
        truth = torch.zeros(POINTS, dtype=torch.int64)
        if head.encoding == "one-hot":
            truth = torch.nn.functional.one_hot(truth, units).double()
        return positions, leaf, (leaf,), truth
    if head.spaces[0].layout != "element" or name == "margin":
        return None
    leaf = (odds if name == "logit" else positions.clone()).requires_grad_()
    return positions, leaf, (leaf,), torch.ones(POINTS, dtype=torch.float64)


def curves(losses: dict[str, Minimised], target: Target, rows: dict[str, Any]) -> dict[str, Any]:
    """Curves of every loss over one common range, and the histogram of the first that has one."""
    histograms = [rows[name]["margins"] for name in losses if rows[name].get("margins")]
    if not histograms:
        return {}
    first = histograms[0]
    reach = max(abs(first["low"]), abs(first["high"]), 1.0)
    found = {
        name: curve(loss, target, -reach, reach)
        for name, loss in losses.items()
        if isinstance(loss, Loss)
    }
    counts = np.array(first["counts"], dtype=float)
    return {
        "kind": first["kind"],
        "histogram": {
            "low": first["low"],
            "high": first["high"],
            "shares": (counts / counts.sum()).tolist(),
        },
        "losses": {name: item for name, item in found.items() if item},
    }
