"""What the predicted number is for: ``mean``, ``quantile=0.9``, ``cost=[[0, 5], [1, 0]]``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lossary.advice.target import Target
from lossary.contract import LossError

USES = ("mean", "median", "quantile", "probability", "ranking", "cost")


@dataclass(frozen=True)
class Use:
    """One of ``USES``; ``level`` of a quantile, ``costs[truth][decision]`` of a cost matrix."""

    name: str
    level: float = 0.5
    costs: tuple[tuple[float, ...], ...] = ()

    def metric(self, target: Target) -> str | None:
        """The common metric that this use is judged by; None: the task's default."""
        if self.name == "cost":
            return f"mean cost {json.dumps([list(row) for row in self.costs])}"
        several = target.task == "multi-label"
        if self.name == "ranking":
            return "macro AP" if several else "ROC AUC" if target.task == "binary" else None
        if self.name == "probability" and several:
            return "Brier"
        return {
            "mean": "RMSE",
            "median": "MAE",
            "quantile": f"pinball loss at {self.level:g}",
            "probability": "log loss",
        }[self.name]


def parse_use(text: str | None, target: Target) -> Use:
    """The use in ``text``, or what the task suggests; a LossError for one that does not fit."""
    quantity = target.task in ("real", "count")
    if text is None:
        return Use("mean" if quantity else "probability")
    name, _, value = text.partition("=")
    if name not in USES:
        raise LossError(
            f"--for {text}: it can be mean, median, quantile=0.9, probability, ranking or "
            "cost=MATRIX"
        )
    if quantity != (name in ("mean", "median", "quantile")):
        fits = "mean, median or quantile=0.9" if quantity else "probability, ranking or cost=MATRIX"
        raise LossError(f"--for {text}: the target {target.name} is {target.task}; choose {fits}")
    if name == "quantile":
        try:
            level = float(value)
        except ValueError:
            level = float("nan")
        if not 0 < level < 1:
            raise LossError(f"--for {text}: give a level between 0 and 1, such as quantile=0.9")
        return Use(name, level)
    if name == "cost" and target.task == "multi-label":
        raise LossError(
            f"--for {text}: {target.name} has several labels per row; costs[truth][decision] are "
            "for one class per row: choose probability or ranking, or one label"
        )
    if name == "cost":
        return Use(name, costs=_matrix(text, value, len(target.labels)))
    return Use(name)


def _matrix(text: str, value: str, classes: int) -> tuple[tuple[float, ...], ...]:
    try:
        rows = tuple(tuple(float(x) for x in row) for row in json.loads(value))
    except (ValueError, TypeError):
        rows = ()
    square = len(rows) == classes and all(len(row) == classes for row in rows)
    if not square or any(x < 0 for row in rows for x in row):
        raise LossError(
            f"--for {text}: expected a JSON matrix of {classes} x {classes} costs from 0 up, "
            "costs[truth][decision], such as cost=[[0,1],[5,0]]"
        )
    return rows
