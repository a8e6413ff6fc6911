"""The comparison: cells from losses and settings, done in a study, gathered into one account."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import LossError
from lossary.lab.baseline import baselines
from lossary.lab.cell import RATES, Cell, Plan, build_stack, run_cell
from lossary.lab.choose import fitted_all
from lossary.lab.curves import curves
from lossary.lab.data import Data
from lossary.lab.metrics import default_metric, find_metric, metrics_for, rounded
from lossary.lab.objective import Minimised, config_of, head_of, lines
from lossary.lab.samples import pictures_of
from lossary.lab.split import Corruption, split
from lossary.lab.study import Study, key_of
from lossary.lab.sweep import sensitivity, sweep_cells
from lossary.lab.train import Budget
from lossary.lab.verdict import judge

SEED_BLOCK = 20
Note = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """What a user may choose; everything else follows from data and contracts."""

    seeds: int = 5
    metric: str | None = None
    epochs: int | None = None
    batch: int | None = None
    hidden: tuple[int, ...] = (128,)
    rate: float | None = None
    model: str | None = None
    noise: tuple[float, ...] = ()
    outliers: tuple[float, ...] = ()
    imbalance: tuple[float, ...] = ()
    sweep: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "batch"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise LossError(f"{name}={value!r}: give a whole number from 1 up")
        if any(not (isinstance(units, int) and units >= 1) for units in self.hidden):
            raise LossError(f"hidden={self.hidden!r}: give units per layer, such as (128,)")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise LossError(f"rate={self.rate!r}: give a learning rate above 0, such as 0.003")
        for name in ("noise", "outliers", "imbalance"):
            if any(not 0 < share < 1 for share in getattr(self, name)):
                raise LossError(f"{name}={getattr(self, name)!r}: each share lies between 0 and 1")

    def corruptions(self) -> list[Corruption]:
        """Clean data first, then each harm asked for."""
        kinds = {"label noise": self.noise, "outliers": self.outliers, "imbalance": self.imbalance}
        return [
            Corruption(),
            *(Corruption(k, share) for k, shares in kinds.items() for share in shares),
        ]


def make_plan(data: Data, settings: Settings) -> Plan:
    """What all cells share."""
    metric = settings.metric or default_metric(data.target)
    whole = len(data.features) - data.held_out
    rows = int(whole * (0.8 if data.held_out else 0.64))
    budget = Budget.fitting(rows, settings.epochs, settings.batch)
    rates = (settings.rate,) if settings.rate else RATES
    name = find_metric(metric, data.target).name
    return Plan(name, budget.epochs, budget.batch, settings.hidden, rates, settings.model)


def make_cells(losses: dict[str, Minimised], settings: Settings) -> list[Cell]:
    """Every loss under every harm, in blocks of seeds; then the sweeps."""
    blocks = [
        tuple(range(first, min(first + SEED_BLOCK, settings.seeds)))
        for first in range(0, settings.seeds, SEED_BLOCK)
    ]
    cells = [
        Cell(name, config_of(loss), block, harm)
        for harm in settings.corruptions()
        for name, loss in losses.items()
        for block in blocks
    ]
    if settings.sweep:
        cells += sweep_cells(losses, blocks[0])
    return cells


def run(
    data: Data,
    losses: Sequence[str | Minimised],
    settings: Settings | None = None,
    *,
    storage: str | Path | None = None,
    note: Note | None = None,
    join: bool = False,
) -> dict[str, Any]:
    """Train networks on ``data`` under each loss and account for what each did.

    Without ``storage`` the study lives in memory. ``join`` works on cells and returns nothing.
    """
    settings = settings or Settings()
    # Whatever can be refused is refused before anything is trained.
    plan = make_plan(data, settings)
    parsed = fitted_all(losses, data.target)
    if not parsed:
        raise LossError("losses: none is named; give names with commas between, or leave them out")
    heads = [head_of(loss, data.target) for loss in parsed.values()]
    build_stack(plan, data, heads[0].width, (0,))
    for harm in settings.corruptions():
        harm.check(data.target)
    cells = make_cells(parsed, settings)
    results = do_cells(cells, plan, data, storage, note, join)
    if join:
        return {}
    return gather(data, plan, settings, parsed, cells, results)


def do_cells(
    cells: list[Cell],
    plan: Plan,
    data: Data,
    storage: str | Path | None,
    note: Note | None,
    join: bool,
) -> dict[str, dict[str, Any]]:
    """Results by cell key, from the study or by running what is missing."""
    done = 0

    def do(cell: Cell) -> dict[str, Any]:
        per_epoch = len(cell.seeds) + (len(plan.rates) > 1) * len(plan.rates) * min(
            4, len(cell.seeds)
        )
        total, seen = per_epoch * plan.epochs, 0

        def progress(replicas: int) -> None:
            nonlocal seen
            seen += replicas
            if note:
                note(1000 * done + min(999, 1000 * seen // total), 1000 * len(cells), cell.key)

        return run_cell(cell, plan, data, progress)

    def finished(count: int, _: str) -> None:
        nonlocal done
        done = count
        if note:
            note(1000 * done, 1000 * len(cells), "")

    if storage is None:
        results = {}
        for cell in cells:
            results[key_of(cell)] = do(cell)
            finished(len(results), "")
        return results
    study = Study(storage, data, plan, join=join)
    study.work(cells, do, wait=not join, note=finished)
    return {} if join else study.finished()


def gather(
    data: Data,
    plan: Plan,
    settings: Settings,
    losses: dict[str, Minimised],
    cells: list[Cell],
    results: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """One account: the table per setting, baselines, differences and verdict."""
    metric = find_metric(plan.metric, data.target)
    metrics = metrics_for(data.target) | {metric.name: metric}
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        if cell.purpose == "compare":
            blocks.setdefault((str(cell.corruption), cell.name), []).append(results[key_of(cell)])
    parts = split(data, tuple(range(min(settings.seeds, SEED_BLOCK))))
    constant = baselines(data, parts, metrics)
    tables = {}
    for harm in settings.corruptions():
        scores = {name: _scores(blocks[str(harm), name], metric.name) for name in losses}
        flat = {
            name: np.array([np.nan if x is None else x for x in row[metric.name]], dtype=float)
            for name, row in constant.items()
        }
        tables[str(harm)] = judge(metric, scores, flat) | {
            "losses": {name: _merge(blocks[str(harm), name]) for name in losses}
        }
    account = {
        "data": {
            "name": data.name,
            "rows": len(data.features),
            "columns": list(data.columns),
            "target": data.target.name,
            "task": data.target.task,
            "labels": list(data.target.labels),
            "facts": data.target.facts,
            "notes": list(data.notes),
            "digest": data.digest,
        },
        "plan": plan.__dict__,
        "seeds": settings.seeds,
        "metric": {"name": metric.name, "higher is better": metric.higher_is_better},
        "metrics": {name: m.higher_is_better for name, m in metrics.items()},
        "baselines": constant,
        "tables": tables,
        "configs": {name: config_of(loss) for name, loss in losses.items()},
        "versions": versions(),
    }
    clean = tables[str(Corruption())]
    account["curves"] = rounded(curves(losses, data.target, clean["losses"]))
    account["pictures"] = pictures_of(data, clean)
    if clean["reference"]:
        account["calls"] = {
            "name": clean["reference"],
            "calls": lines(losses[clean["reference"]]),
        }
    if settings.sweep:
        account["sweep"] = sensitivity(cells, results, metric, key_of)
    return account


def _scores(blocks: list[dict[str, Any]], metric: str) -> np.ndarray:
    values = [x for block in blocks for x in block["best"][metric]]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _merge(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Seed blocks of one loss as one: per-seed lists are joined, the rest is the first block's."""
    merged = dict(blocks[0])
    for block in blocks[1:]:
        for when in ("best", "last"):
            merged[when] = {key: merged[when][key] + block[when][key] for key in merged[when]}
        for key in ("seeds", "best_epoch", "nonfinite"):
            merged[key] = merged[key] + block[key]
        for key in ("loss", "score"):
            merged[key] = [a + b for a, b in zip(merged[key], block[key], strict=True)]
    return merged


def versions() -> dict[str, str]:
    """Versions that a reader needs to reproduce the numbers."""
    found = {"python": platform.python_version()}
    for package in ("lossary", "numpy", "torch", "scikit-learn", "scipy", "optuna", "polars"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
