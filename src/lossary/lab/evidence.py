"""``python -m lossary.lab.evidence``: what papers report about losses, re-run in miniature.

Each claim compares losses on real data over 20 paired seeds (advice: 5) and prints the published
sign, the difference here with its bootstrap interval, and the share of bootstrap means of the
published sign. Training goes through the same cells as ``lossary compare``, kept in a study, so
that a stopped run goes on. A claim that does not hold here is printed as such.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossary.advice import advise
from lossary.advice.fit import meet
from lossary.contract import LossError, contracts
from lossary.lab.cell import Cell, Plan
from lossary.lab.choose import fitted
from lossary.lab.data import Data, read
from lossary.lab.metrics import default_metric, find_metric
from lossary.lab.run import do_cells
from lossary.lab.split import Corruption
from lossary.lab.statistics import difference
from lossary.lab.study import key_of

SEEDS = tuple(range(20))
WEATHER = Path(__file__).parents[3] / "examples" / "seattle-weather.csv"


@dataclass(frozen=True)
class Finding:
    """One published sentence and what came of it: ``probability`` that its sign holds here."""

    topic: str
    claim: str
    source: str
    here: str
    probability: float

    @property
    def holds(self) -> bool:
        """Whether the published sign is the likelier one here."""
        return self.probability > 0.5


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


def _against(
    topic: str,
    claim: str,
    source: str,
    better: np.ndarray,
    worse: np.ndarray,
    *,
    sign: int = 1,
    slack: float = 0.0,
) -> Finding:
    """``better`` above ``worse`` (sign +1) or below it (-1), but for ``slack``."""
    found = difference(sign * better + slack, sign * worse)
    here = (
        f"{better.mean():.4g} against {worse.mean():.4g}; difference "
        f"{sign * (found.mean - slack):+.3g} "
        f"({min(sign * (found.low - slack), sign * (found.high - slack)):+.3g} to "
        f"{max(sign * (found.low - slack), sign * (found.high - slack)):+.3g})"
    )
    return Finding(topic, claim, source, here, found.positive)


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
            yield _against(
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
            yield _against(
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
        yield _against(
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
        row = bench.rows(data, [f"pinball:quantile={level}"], plan)[f"pinball:quantile={level}"]
        reached = row["side_effects"]["share of targets below the prediction"]
        yield Finding(
            "pinball coverage, Seattle's warmest hour",
            f"{level:.0%} of targets lie below the predicted {level:g} quantile, within 3 points",
            "doi:10.2307/1913643",
            f"{reached:.1%} over {len(SEEDS)} test parts",
            float(abs(reached - level) <= 0.03),
        )


def square_loss(bench: Bench) -> Iterator[Finding]:
    """Hui and Belkin 2021: square loss is as accurate as cross-entropy, and steadier."""
    for name in ("digits", "wine", "breast-cancer"):
        data = read(name)
        other = "binary_cross_entropy" if data.target.task == "binary" else "cross_entropy"
        batch = 64 if name == "digits" else 16
        plan = Plan("accuracy", 60, batch, (128,), (0.001, 0.003, 0.01))
        scores = bench.scores(data, ["squared_error", other], plan, "accuracy")
        yield _against(
            f"square loss, {name}",
            "not below cross-entropy by more than a point in accuracy",
            "doi:10.48550/arXiv.2006.07322",
            scores["squared_error"],
            scores[other],
            slack=0.01,
        )
        spreads = {key: values.std(ddof=1) for key, values in scores.items()}
        random = np.random.default_rng(0)
        draws = random.integers(0, len(SEEDS), (4999, len(SEEDS)))
        steadier = scores["squared_error"][draws].std(axis=1) < scores[other][draws].std(axis=1)
        yield Finding(
            f"square loss, {name}",
            "spread over seeds below cross-entropy's",
            "doi:10.48550/arXiv.2006.07322",
            f"{spreads['squared_error']:.4f} against {spreads[other]:.4f}",
            float(steadier.mean()),
        )


def mislabelling_cost(bench: Bench) -> Iterator[Finding]:
    """Ho and Wookey 2020: costs in the loss lower the cost of its mistakes."""
    data = read(WEATHER, "rain")
    for price in (5, 20):
        metric = f"mean cost [[0, 1], [{price}, 0]]"
        plan = Plan(metric, 60, 64, (128,), (0.003,))
        priced = f"real_world_weight_binary_cross_entropy:false_negative_cost={price}"
        scores = bench.scores(data, [priced, "binary_cross_entropy"], plan, metric)
        yield _against(
            f"a missed rain costs {price}, Seattle",
            "real-world-weight cross-entropy below cross-entropy in mean cost",
            "doi:10.1109/ACCESS.2019.2962617",
            scores[priced],
            scores["binary_cross_entropy"],
            sign=-1,
        )


def restoration(bench: Bench) -> Iterator[Finding]:
    """Zhao et al. 2017: networks trained with L1 restore images better than with L2."""
    from lossary.lab.restoration import denoise

    scores = {name: denoise(name, SEEDS) for name in ("absolute_error", "squared_error")}
    for measure in ("PSNR", "SSIM"):
        yield _against(
            "denoising two photographs",
            f"absolute above squared error in {measure}",
            "doi:10.1109/TCI.2016.2644865",
            scores["absolute_error"][measure],
            scores["squared_error"][measure],
        )


def advice(bench: Bench) -> Iterator[Finding]:
    """The first advised loss against the best of all that fit, on the metric of the stated use."""
    uses = {
        ("digits", None): ("probability",),
        ("wine", None): ("probability",),
        ("breast-cancer", None): ("probability", "ranking", "cost=[[0,5],[1,0]]"),
        ("diabetes", None): ("mean", "median", "quantile=0.9"),
        (str(WEATHER), "rain"): ("probability", "ranking", "cost=[[0,1],[5,0]]"),
        (str(WEATHER), "temp_max"): ("mean", "median", "quantile=0.9"),
    }
    for (source, target), wanted in uses.items():
        data = read(source, target)
        for use in wanted:
            found = advise(data.target, use=use)
            metric = find_metric(found.metric or default_metric(data.target), data.target)
            plan = Plan(
                metric.name, 40, 64 if len(data.features) > 1000 else 16, (64,), (0.001, 0.01)
            )
            names = [found.candidates[0].text, *_rivals(data, found.candidates[0].name)]
            rows = bench.rows(data, names, plan, seeds=SEEDS[:5])
            means = {
                name: float(np.mean([np.nan if x is None else x for x in row["best"][metric.name]]))
                for name, row in rows.items()
            }
            judged = {name: mean for name, mean in means.items() if np.isfinite(mean)}
            best = max(judged, key=lambda name: metric.sign * judged[name])
            ours = means[names[0]]
            behind = metric.sign * (judged[best] - ours) / abs(judged[best])
            yield Finding(
                f"advice, {data.name} {data.target.name} for {use}",
                f"{names[0]} within 2 % of the best of {len(judged)} losses in {metric.name}",
                "lossary advise",
                f"{ours:.4g}; best {best} {judged[best]:.4g}; {behind:.1%} behind",
                float(behind <= 0.02),
            )


def _rivals(data: Data, advised: str) -> list[str]:
    """Every other loss made for such targets that needs no parameter from the user."""
    found = []
    for contract in contracts():
        try:
            natural = meet(contract, data.target).natural
            fitted(contract.name, data.target)
        except LossError:
            continue
        if natural and contract.name != advised:
            found.append(contract.name)
    return found


TOPICS = {
    "advice": advice,
    "label-noise": label_noise,
    "outliers": outliers,
    "long-tail": long_tail,
    "coverage": coverage,
    "square-loss": square_loss,
    "cost": mislabelling_cost,
    "restoration": restoration,
}


def main() -> None:
    """Run the topics asked for (all by default); print each finding and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m lossary.lab.evidence", description=__doc__)
    parser.add_argument("topics", nargs="*", help=", ".join(TOPICS))
    parser.add_argument("--output", type=Path, default=Path("build/evidence"))
    given = parser.parse_args()
    unknown = set(given.topics) - set(TOPICS)
    if unknown:
        sys.exit(f"unknown topic {unknown.pop()!r}; there are {', '.join(TOPICS)}")
    given.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.output / "study.db")
    findings = []
    for name in given.topics or TOPICS:
        began = time.perf_counter()
        for item in TOPICS[name](bench):
            findings.append(item)
            mark = "holds" if item.holds else "DOES NOT HOLD HERE"
            print(
                f"{item.topic}: {item.claim}: {mark}, probability {item.probability:.3f}\n    "
                f"{item.here}",
                flush=True,
            )
        print(f"({name}: {time.perf_counter() - began:.0f} s)", file=sys.stderr)
    report = given.output / "evidence.json"
    report.write_text(json.dumps([asdict(item) for item in findings], indent=1))
    held = sum(item.holds for item in findings)
    print(f"{held} of {len(findings)} published signs hold here; {report}")


if __name__ == "__main__":
    main()
