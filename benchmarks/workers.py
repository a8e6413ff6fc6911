"""``python -m benchmarks.workers``: what a second worker brings to one study.

One round is a comparison of a few losses on digits, by ``lossary compare``, once by one worker and
once by two, in alternating order. The rate is cells per second over the part of the run in which
cells are trained: from the first claim to the last result, as the study itself recorded them. The
whole command's ratio, with imports and the report, is printed beside it. Each worker has one
thread. Where other work keeps the cores busy, the CPU seconds per cell tell how far the two slow
each other down, and the ratio tells how much of the machine was left.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LOSSES = (
    "cross_entropy,squared_error,categorical_hinge,categorical_focal,generalized_cross_entropy,"
    "absolute_error,poly,dice"
)


def run(folder: Path, workers: int, seeds: int, epochs: int) -> dict[str, float]:
    """One comparison: seconds of the whole, seconds and number of its cells, seconds of CPU."""
    command = [sys.executable, "-c", "from lossary.cli import main; main()", "compare", "digits"]
    command += ["--losses", LOSSES, "--seeds", str(seeds), "--epochs", str(epochs)]
    command += ["--workers", str(workers), "--output", str(folder)]
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    whole, after = time.perf_counter() - began, os.times()
    cells, seconds = trained(folder / "study.db")
    cpu = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return {"whole": whole, "cells": cells, "training": seconds, "cpu": cpu}


def trained(path: Path) -> tuple[int, float]:
    """Finished cells of a study, and the seconds from its first claim to its last result."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{path}"
    (name,) = optuna.get_all_study_names(storage)
    found: Any = optuna.load_study(study_name=name, storage=storage).get_trials(
        states=(optuna.trial.TrialState.COMPLETE,)
    )
    claimed = min(trial.user_attrs["worker"]["since"] for trial in found)
    ended = max(trial.datetime_complete.timestamp() for trial in found)
    return len(found), ended - claimed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    rounds: list[dict[int, dict[str, float]]] = []
    for number in range(options.rounds):
        found = {}
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                found[workers] = run(Path(folder), workers, options.seeds, options.epochs)
            one = found[workers]
            print(
                f"{workers} workers: {one['cells']:.0f} cells in {one['training']:.1f} s, "
                f"{one['cells'] / one['training']:.3f} a second; whole command "
                f"{one['whole']:.1f} s, {one['cpu']:.1f} s of CPU",
                flush=True,
            )
        rounds.append(found)
    rate = [pair[1]["training"] / pair[2]["training"] for pair in rounds]
    whole = [pair[1]["whole"] / pair[2]["whole"] for pair in rounds]
    cpu = [pair[2]["cpu"] / pair[1]["cpu"] for pair in rounds]
    print(f"\n{options.rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores:")
    print(f"two workers reach {_spread(rate)} times one worker's rate of cells")
    print(f"the whole command, imports and report included, is {_spread(whole)} times as fast")
    print(f"two workers need {_spread(cpu)} times one worker's CPU")
    return 0


def _spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
