"""``python -m lossary.lab.evidence``: what papers report about losses, re-run in miniature.

Each claim compares losses on real data over 20 paired seeds and prints the published sign, the
difference here with its bootstrap interval, and the probability: the share of bootstrap means of
the published sign (with its slack, where a claim allows one). Training goes through the same cells
as ``lossary compare``, kept in studies, so that a stopped run goes on. A claim that does not hold
here is printed as such.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossary.lab.advised import ALLOWED, SEEDS, WEATHER, Row, rows
from lossary.lab.cell import Cell, Plan, build_stack
from lossary.lab.choose import fitted
from lossary.lab.data import Data, read
from lossary.lab.finding import Finding, against, show
from lossary.lab.heads import head_for
from lossary.lab.metrics import View, fast_score, find_metric, views
from lossary.lab.run import do_cells
from lossary.lab.split import Corruption, split
from lossary.lab.study import key_of
from lossary.lab.train import train


class Bench:
    """Runs losses in one setting and hands out their scores, one number per seed."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage

    def scores(
        self,
        data: Data,
        losses: list[str],
        plan: Plan,
        metric: str,
        harm: Corruption | None = None,
        when: str = "best",
    ) -> dict[str, np.ndarray]:
        """The metric of each loss over ``SEEDS``."""
        rows = self.rows(data, losses, plan, harm)
        return {
            name: np.array([np.nan if x is None else x for x in row[when][metric]], dtype=float)
            for name, row in rows.items()
        }

    def rows(
        self,
        data: Data,
        losses: list[str],
        plan: Plan,
        harm: Corruption | None = None,
        seeds: tuple[int, ...] = SEEDS,
    ) -> dict[str, dict[str, Any]]:
        """The whole account of each loss."""
        cells = [
            Cell(name, fitted(name, data.target).config, seeds, harm or Corruption())
            for name in losses
        ]
        results = do_cells(cells, plan, data, self.storage, None, False)
        return {cell.name: results[key_of(cell)] for cell in cells}


def label_noise(bench: Bench) -> Iterator[Finding]:
    """Zhang and Sabuncu 2018, Menon et al. 2020: bounded losses under wrong labels, last epoch."""
    data = read("digits")
    plan = Plan("accuracy", 150, 64, (256,), (0.003,))
    robust = ["generalized_cross_entropy", "partially_huberised_cross_entropy:tau=2"]
    for share in (0.0, 0.4, 0.6):
        harm = Corruption("label noise", share) if share else Corruption()
        scores = bench.scores(data, ["cross_entropy", *robust], plan, "accuracy", harm, "last")
        for name in robust:
            words = (
                "not below cross-entropy by more than a point"
                if not share
                else "above cross-entropy"
            )
            yield against(
                f"label noise {share:.0%}, digits",
                f"{name.partition(':')[0]} {words} in accuracy",
                "doi:10.48550/arXiv.1805.07836, Menon et al. ICLR 2020",
                scores[name],
                scores["cross_entropy"],
                slack=0.0 if share else 0.01,
            )


def outliers(bench: Bench) -> Iterator[Finding]:
    """Huber 1964, Beaton and Tukey 1974, Barron 2019: robust regression."""
    data = read("diabetes")
    plan = Plan("MAE", 60, 16, (64,), (0.003,))
    robust = ["huber", "tukey_biweight", "barron:alpha=0"]
    for share in (0.1, 0.3):
        harm = Corruption("outliers", share)
        scores = bench.scores(data, ["squared_error", *robust], plan, "MAE", harm, "last")
        for name in robust:
            yield against(
                f"{share:.0%} outliers, diabetes",
                f"{name.partition(':')[0]} below squared error in MAE",
                "doi:10.1214/aoms/1177703732, doi:10.1109/CVPR.2019.00446",
                scores[name],
                scores["squared_error"],
                sign=-1,
            )


def long_tail(bench: Bench) -> Iterator[Finding]:
    """Cui et al. 2019, Cao et al. 2019, Menon et al. 2021: classes from 115 rows down to 2."""
    data = read("digits")
    plan = Plan("balanced accuracy", 100, 32, (128,), (0.003,))
    harm = Corruption("imbalance", 0.02)
    made = ["class_balanced", "ldam", "logit_adjustment"]
    scores = bench.scores(data, ["cross_entropy", *made], plan, "balanced accuracy", harm, "last")
    for name in made:
        yield against(
            "long tail 50:1, digits",
            f"{name} above cross-entropy in balanced accuracy",
            "Cui et al. CVPR 2019, Cao et al. NeurIPS 2019, Menon et al. ICLR 2021",
            scores[name],
            scores["cross_entropy"],
        )


def coverage(bench: Bench) -> Iterator[Finding]:
    """Koenker and Bassett 1978: the share of targets below a predicted quantile is its level."""
    data = read(WEATHER, "temp_max")
    for level in (0.1, 0.5, 0.9):
        plan = Plan(f"pinball loss at {level:g}", 60, 64, (32,), (0.003,))
        seen = _judged(data, f"pinball:quantile={level}", plan, SEEDS)
        shares = np.array([(view.truth <= view.point).mean() for view in seen])
        means = shares[_draws(len(shares))].mean(axis=1)
        low, high = np.quantile(means - level, [0.025, 0.975])
        yield Finding(
            "pinball coverage, Seattle's warmest hour",
            f"{level:.0%} of targets lie below the predicted {level:g} quantile, within 3 points",
            "doi:10.2307/1913643",
            "-0.03 to 0.03",
            float(shares.mean() - level),
            float(low),
            float(high),
            float((np.abs(means - level) <= 0.03).mean()),
            f"{shares.mean():.1%} over {len(SEEDS)} test parts",
        )


def square_loss(bench: Bench) -> Iterator[Finding]:
    """Hui and Belkin 2021: square loss is as accurate, and less moved by the initial weights."""
    for name in ("digits", "wine", "breast-cancer"):
        data = read(name)
        other = "binary_cross_entropy" if data.target.task == "binary" else "cross_entropy"
        batch = 64 if name == "digits" else 16
        plan = Plan("accuracy", 60, batch, (128,), (0.001, 0.003, 0.01))
        scores = bench.scores(data, ["squared_error", other], plan, "accuracy")
        yield against(
            f"square loss, {name}",
            "not below cross-entropy by more than a point in accuracy",
            "doi:10.48550/arXiv.2006.07322",
            scores["squared_error"],
            scores[other],
            slack=0.01,
        )
        still = replace(plan, rates=(0.003,))
        square, cross = (_over_starts(data, text, still) for text in ("squared_error", other))
        draws = _draws(len(SEEDS))
        steadier = _spread(square[:, draws]) - _spread(cross[:, draws])
        low, high = np.quantile(steadier, [0.025, 0.975])
        yield Finding(
            f"square loss, {name}",
            "spread of the accuracy over initial weights below cross-entropy's",
            "doi:10.48550/arXiv.2006.07322",
            "below 0",
            float(_spread(square) - _spread(cross)),
            float(low),
            float(high),
            float((steadier < 0).mean() + (steadier == 0).mean() / 2),
            f"{_spread(square):.4f} against {_spread(cross):.4f}, at one rate",
        )


def _over_starts(data: Data, text: str, plan: Plan) -> np.ndarray:
    """Test accuracy after the last epoch, (splits, starts): two splits, each from 20 weights."""
    splits = (0, 1)
    which = np.repeat(range(len(splits)), len(SEEDS))
    seen = _judged(data, text, plan, splits, [*SEEDS] * len(splits), which, last=True)
    metric = find_metric("accuracy", data.target)
    return np.array([metric(view) for view in seen]).reshape(len(splits), len(SEEDS))


def _judged(
    data: Data,
    text: str,
    plan: Plan,
    splits: Sequence[int],
    starts: Sequence[int] | None = None,
    which: np.ndarray | None = None,
    *,
    last: bool = False,
) -> list[View]:
    """Test parts after training network r from weights ``starts[r]`` on split number
    ``which[r]``, at the best epoch or the last.
    """
    which = np.arange(len(splits)) if which is None else which
    head = head_for(fitted(text, data.target), data.target)
    parts = split(data, splits)
    replicas = torch.from_numpy(which)
    metric = find_metric(plan.metric, data.target)
    score = fast_score(metric, head, parts.validation.target[replicas])
    stack = build_stack(plan, data, head.width, starts or splits)
    rates = [plan.rates[0]] * len(which)
    done = train(stack, head, parts, plan.budget, rates, score, which.tolist())
    reached = done.outputs_last if last else done.outputs_best
    return views(head, reached, parts.test.target[replicas])


def _draws(size: int) -> np.ndarray:
    """Bootstrap samples of so many seeds, (4999, size)."""
    return np.random.default_rng(0).integers(0, size, (4999, size))


def _spread(accuracies: np.ndarray) -> Any:
    """Standard deviation over starts (the last axis), mean over splits (the first)."""
    return accuracies.std(axis=-1, ddof=1).mean(axis=0)


def mislabelling_cost(bench: Bench) -> Iterator[Finding]:
    """Ho and Wookey 2020: costs in the loss lower the cost of its mistakes.

    The rival that needs no special loss decides by the costs' threshold (Elkan 2001).
    """
    data = read(WEATHER, "rain")
    plain = "binary_cross_entropy"
    for price in (5, 20):
        metric = f"mean cost [[0, 1], [{price}, 0]]"
        plan = Plan(metric, 60, 64, (128,), (0.003,))
        priced = f"real_world_weight_binary_cross_entropy:false_negative_cost={price}"
        scores = bench.scores(data, [priced, plain], plan, metric)
        yield against(
            f"a missed rain costs {price}, Seattle",
            "real-world-weight cross-entropy below cross-entropy in mean cost",
            "doi:10.1109/ACCESS.2019.2962617",
            scores[priced],
            scores[plain],
            sign=-1,
        )
        by_threshold = f"{metric} by probability"
        other = bench.scores(data, [plain], replace(plan, metric=by_threshold), by_threshold)
        yield against(
            f"a missed rain costs {price}, Seattle",
            "cross-entropy that decides by the costs' threshold not above it by more than 0.05",
            "Elkan, IJCAI 2001",
            other[plain],
            scores[priced],
            sign=-1,
            slack=0.05,
        )


def restoration(bench: Bench) -> Iterator[Finding]:
    """Zhao et al. 2017: networks trained with L1 restore images better than with L2."""
    from lossary.lab.restoration import denoise

    scores = {name: denoise(name, SEEDS) for name in ("absolute_error", "squared_error")}
    for measure in ("PSNR", "SSIM"):
        yield against(
            "denoising two photographs",
            f"absolute above squared error in {measure}",
            "doi:10.1109/TCI.2016.2644865",
            scores["absolute_error"][measure],
            scores["squared_error"][measure],
        )


TOPICS = {
    "label-noise": label_noise,
    "outliers": outliers,
    "long-tail": long_tail,
    "coverage": coverage,
    "square-loss": square_loss,
    "cost": mislabelling_cost,
    "restoration": restoration,
}


def advice(row: Row) -> Finding:
    """The first advised loss against the best of all that fit."""
    return Finding(
        f"advice, {row.data} {row.target} for {row.use}",
        f"{row.advised} within 2 % of the best of {row.losses} losses in {row.metric}",
        "lossary advise",
        f"gap up to {ALLOWED:g}",
        row.gap,
        row.low,
        row.high,
        row.probability,
        f"{row.score:.4g}; best {row.best} {row.best_score:.4g}; the gap is "
        f"{100 * row.gap_of_range:+.1f} % of the way from the constant predictor",
    )


def _topic(job: tuple[str, Path]) -> tuple[str, list[Finding], float]:
    """One topic's findings and its seconds, in a process of its own."""
    name, folder = job
    torch.set_num_threads(1)
    began = time.perf_counter()
    found = list(TOPICS[name](Bench(folder / f"{name}.db")))
    return name, found, time.perf_counter() - began


def main() -> None:
    """Run the topics asked for (all by default); print each finding and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m lossary.lab.evidence", description=__doc__)
    parser.add_argument("topics", nargs="*", help=", ".join((*TOPICS, "advice")))
    parser.add_argument("--output", type=Path, default=Path("build/evidence"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    unknown = set(given.topics) - {*TOPICS, "advice"}
    if unknown:
        sys.exit(f"unknown topic {unknown.pop()!r}; there are {', '.join((*TOPICS, 'advice'))}")
    given.output.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in TOPICS if not given.topics or name in given.topics]
    findings = []
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        for name, found, seconds in pool.map(_topic, [(name, given.output) for name in wanted]):
            for item in found:
                show(item)
            findings += found
            print(f"({name}: {seconds:.0f} s)", file=sys.stderr)
    if not given.topics or "advice" in given.topics:
        for row in rows(given.workers):
            findings.append(advice(row))
            show(findings[-1])
    report = given.output / "evidence.json"
    report.write_text(json.dumps([asdict(item) for item in findings], indent=1))
    held = sum(item.holds for item in findings)
    print(f"{held} of {len(findings)} claims hold here; {report}")


if __name__ == "__main__":
    main()
