"""One cell of a comparison: one loss, one setting, one block of seeds, from search to numbers.

A cell depends on nothing but its description and the data, so any worker can run it at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lossary.advice.target import Target
from lossary.contract import LossError
from lossary.evaluate import Loss
from lossary.lab import cost, inspect
from lossary.lab.choose import of_counts
from lossary.lab.data import Data
from lossary.lab.heads import Head
from lossary.lab.metrics import (
    Metric,
    fast_score,
    find_metric,
    metrics_for,
    rounded,
    selection_metric,
    table,
    views,
)
from lossary.lab.model import load_model
from lossary.lab.network import Modules, Perceptrons, Stack, small_convolution
from lossary.lab.objective import (
    Joint,
    change,
    from_config,
    head_in_words,
    head_of,
    meaning,
    term_shares,
)
from lossary.lab.split import Corruption, Split, split
from lossary.lab.train import Budget, train

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
SEARCH_SEEDS = 4
CLEAN = Corruption()


@dataclass(frozen=True)
class Plan:
    """What every cell of a study shares: equal means for every loss."""

    metric: str
    epochs: int
    batch: int
    hidden: tuple[int, ...] = (128,)
    rates: tuple[float, ...] = RATES
    model: str | None = None

    @property
    def budget(self) -> Budget:
        """Epochs and batch."""
        return Budget(self.epochs, self.batch)


@dataclass(frozen=True)
class Cell:
    """One loss with its parameters, a block of seeds, and what is done to the training part."""

    name: str
    config: dict[str, Any] = field(hash=False)
    seeds: tuple[int, ...] = ()
    corruption: Corruption = CLEAN
    purpose: str = "compare"

    @property
    def key(self) -> str:
        """What tells cells apart."""
        block = f"{self.seeds[0]}-{self.seeds[-1]}"
        return f"{self.purpose} | {self.name} | {self.corruption} | seeds {block}"

    def plain(self) -> dict[str, Any]:
        """The cell as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Cell:
        """The cell of a ``plain`` dictionary."""
        harm = Corruption(**plain["corruption"])
        return cls(plain["name"], plain["config"], tuple(plain["seeds"]), harm, plain["purpose"])


def build_stack(plan: Plan, data: Data, width: int, seeds: Sequence[int]) -> Stack:
    """Replicas of the plan's network."""
    shape = data.features.shape[1:]
    if plan.model:
        inputs = shape[0] if len(shape) == 1 else tuple(shape)
        return Modules(load_model(plan.model), inputs, width, seeds)
    if len(shape) == 3:
        return Modules(small_convolution, tuple(shape), width, seeds)
    return Perceptrons(shape[0], plan.hidden, width, seeds)


def run_cell(
    cell: Cell,
    plan: Plan,
    data: Data,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Search a learning rate, train every seed, judge; a JSON-able account of it all."""
    cost.forget_peak()
    loss = from_config(cell.config)
    parts = split(data, cell.seeds, cell.corruption)
    target = data.target
    head = head_of(change(loss, lambda term: _with_training_counts(term, parts, target)), target)
    metric = find_metric(plan.metric, target)
    chooser = selection_metric(metric, head)
    rate, tried = best_rate(plan, data, head, parts, chooser, progress)
    stack = build_stack(plan, data, head.width, parts.seeds)
    score = fast_score(chooser, head, parts.validation.target)
    done = train(
        stack, head, parts, plan.budget, [rate] * len(parts.seeds), score, progress=progress
    )
    metrics = metrics_for(target) | {metric.name: metric}
    seen = views(head, done.outputs_best, parts.test.target)
    last = views(head, done.outputs_last, parts.test.target)
    start = stack_start(plan, data, head, parts)
    return rounded(
        {
            "cell": cell.plain(),
            "estimates": meaning(loss),
            "head": head_in_words(loss, head),
            "rate": rate,
            "search": {"rates": list(plan.rates), "scores": tried, "metric": chooser.name},
            "seeds": list(cell.seeds),
            "best": table(metrics, seen),
            "last": table(metrics, last),
            "best_epoch": done.best,
            "loss": done.loss,
            "score": done.score,
            "nonfinite": done.nonfinite,
            "seconds_per_step": done.seconds_per_step,
            "seconds_of_loss": cost.seconds_of_loss(head, done.outputs_last, parts, plan.batch),
            "process_bytes": cost.peak_bytes(),
            "steps": plan.epochs * max(1, parts.train.features.shape[1] // plan.batch),
            "training_rows": parts.train.features.shape[1],
            "per_group": inspect.per_group(target, seen),
            "reliability": inspect.pooled_reliability(seen),
            "side_effects": inspect.side_effects(target, seen),
            "gradient": inspect.gradient_shares(head, done.train_outputs, parts),
            "gradient_scale": inspect.gradient_scale(head, start, parts),
            "terms": {
                "at the start": term_shares(head, start, parts.train.target[:1]),
                "at the end": term_shares(head, done.train_outputs, parts.train.target),
            }
            if isinstance(head, Joint)
            else {},
            "margins": inspect.margins(head, seen),
            "errors": inspect.errors_by_row(target, seen, parts.test.rows, len(data.features)),
            "saved_bytes": inspect.saved_bytes(head, done.outputs_last, parts),
        }
    )


def stack_start(plan: Plan, data: Data, head: Head, parts: Split) -> torch.Tensor:
    """Outputs of the untrained first network on its training rows, (1, n, width)."""
    with torch.no_grad():
        return build_stack(plan, data, head.width, parts.seeds[:1]).forward(
            parts.train.features[:1]
        )


def _with_training_counts(loss: Loss, parts: Split, target: Target) -> Loss:
    """Class counts are the training part's, which an injected imbalance changes."""
    if not target.labels or target.task == "multi-label":
        return loss
    whole = target.class_counts.tolist()
    trained = torch.bincount(parts.train.target[0].long(), minlength=len(whole)).tolist()
    changed = {
        name: of_counts(name, trained)
        for name, value in loss.parameters.items()
        if value is not None and value == of_counts(name, whole)
    }
    return Loss.from_config(loss.config | {"parameters": dict(loss.parameters) | changed})


def best_rate(
    plan: Plan,
    data: Data,
    head: Head,
    parts: Split,
    metric: Metric,
    progress: Callable[[int], None] | None = None,
) -> tuple[float, list[float | None]]:
    """The rate of the best mean validation score; all rates and seeds train in one batched pass."""
    if len(plan.rates) == 1:
        return plan.rates[0], []
    count = min(SEARCH_SEEDS, len(parts.seeds))
    which = np.tile(np.arange(count), len(plan.rates))
    rates = np.repeat(plan.rates, count)
    few = replace(
        parts,
        seeds=parts.seeds[:count],
        **{
            name: replace(
                getattr(parts, name),
                features=getattr(parts, name).features[:count],
                target=getattr(parts, name).target[:count],
            )
            for name in ("train", "validation", "test")
        },
    )
    stack = build_stack(plan, data, head.width, [parts.seeds[i] for i in which])
    score = fast_score(metric, head, few.validation.target[torch.from_numpy(which)])
    done = train(stack, head, few, plan.budget, rates.tolist(), score, which.tolist(), progress)
    reached = done.score.max(axis=0).reshape(len(plan.rates), count).mean(axis=1)
    if not np.isfinite(reached).any():
        raise LossError(
            f"{head.loss.contract.name}: no learning rate of {plan.rates} gave a finite score; "
            "`lossary doctor` may find out why"
        )
    return float(plan.rates[int(np.argmax(reached))]), reached.tolist()
