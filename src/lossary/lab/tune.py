"""Search a loss's own parameters with Optuna, then test the best setting against the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import LossError, Parameter
from lossary.evaluate import Loss
from lossary.lab.cell import SEARCH_SEEDS, Cell, best_rate, run_cell
from lossary.lab.choose import fitted
from lossary.lab.data import Data
from lossary.lab.heads import head_for
from lossary.lab.metrics import find_metric
from lossary.lab.need import need
from lossary.lab.run import Settings, make_plan
from lossary.lab.split import split
from lossary.lab.study import open_storage, storage_error, study_digest
from lossary.lab.sweep import tunable, values_around
from lossary.lab.verdict import judge

Note = Callable[[int, int, str], None]


def tune(
    data: Data,
    text: str,
    settings: Settings,
    trials: int,
    storage: str | Path,
    note: Note | None = None,
) -> dict[str, Any]:
    """Try ``trials`` settings by validation score; the start is the first, earlier runs count."""
    optuna = need("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = make_plan(data, settings)
    start = fitted(text, data.target)
    free = tunable(start)
    if not free:
        raise LossError(f"{text}: has no parameter that is one number, so there is nothing to tune")
    metric = find_metric(plan.metric, data.target)
    parts = split(data, tuple(range(SEARCH_SEEDS)))
    spans = {name: span(parameter, start.parameters[name]) for name, parameter in free.items()}

    def objective(trial: Any) -> float:
        chosen = {}
        for name, (low, high, by_log) in spans.items():
            if free[name].type is int:
                chosen[name] = trial.suggest_int(name, int(low), int(high), log=by_log)
            else:
                chosen[name] = trial.suggest_float(name, low, high, log=by_log)
        head = head_for(with_parameters(start, chosen), data.target)
        rate, tried = best_rate(plan, data, head, parts, metric)
        trial.set_user_attr("rate", rate)
        return max(score for score in tried if score is not None and np.isfinite(score))

    try:
        study = optuna.create_study(
            storage=open_storage(optuna, storage),
            study_name=f"tune {start!r} {data.name} {study_digest(data, plan)}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=6),
        )
    except Exception as error:  # SQLAlchemy, a driver, the file system: whatever opened it
        raise storage_error(storage, error) from error
    states = optuna.trial.TrialState
    if not study.trials:
        study.enqueue_trial({name: start.parameters[name] for name in free})
    while (done := len(study.get_trials(deepcopy=False, states=(states.COMPLETE,)))) < trials:
        if note:
            note(done, trials + 2, f"tune | {text}")
        study.optimize(objective, n_trials=1)
    return _account(study, start, text, data, plan, settings, note, trials)


def span(parameter: Parameter, value: float) -> tuple[float, float, bool]:
    """Where to search: the whole of a finite interval, else a factor of 8 around the value."""
    low, high = parameter.interval.low, parameter.interval.high
    if np.isfinite(low) and np.isfinite(high):
        edge = 0.01 * (high - low)
        return low + edge, high - edge, False
    if parameter.type is int:
        return max(low, 1), max(8 * value, 8), True
    around = [x for x in values_around(parameter, value) if x > low]
    if value > 0 and low >= 0:
        return max(value / 8, min(around)), value * 8, True
    return min(around), max(around), False


def with_parameters(loss: Loss, chosen: dict[str, Any]) -> Loss:
    """The loss with some of its parameters replaced."""
    return Loss.from_config(loss.config | {"parameters": dict(loss.parameters) | chosen})


def _account(
    study: Any,
    start: Loss,
    text: str,
    data: Data,
    plan: Any,
    settings: Settings,
    note: Note | None,
    trials: int,
) -> dict[str, Any]:
    """The tried settings, best first; the best against the start on test rows, by seed."""
    metric = find_metric(plan.metric, data.target)
    ranked = sorted(
        (trial for trial in study.trials if trial.value is not None), key=lambda t: -t.value
    )
    best = with_parameters(start, ranked[0].params)
    seeds = tuple(range(settings.seeds))
    scores = {}
    for place, (name, loss) in enumerate({"start": start, "tuned": best}.items()):
        if note:
            note(trials + place, trials + 2, f"test | {name}")
        values = run_cell(Cell(name, loss.config, seeds), plan, data)["best"][metric.name]
        scores[name] = np.array([np.nan if x is None else x for x in values], dtype=float)
    given = ",".join(
        f"{key}={json.dumps(round(value, 6))}" for key, value in ranked[0].params.items()
    )
    sentences = [
        f"best of {len(ranked)} settings on validation: {text.partition(':')[0]}:{given}",
        f"on test rows, {settings.seeds} seeds: {metric.name} {scores['tuned'].mean():.4g} tuned, "
        f"{scores['start'].mean():.4g} at the start",
        *judge(metric, scores, {})["sentences"],
    ]
    return {
        "loss": text,
        "best": best.config,
        "metric": metric.name,
        "trials": [(trial.params, metric.sign * trial.value) for trial in ranked],
        "test": {name: values.tolist() for name, values in scores.items()},
        "sentences": sentences,
    }
