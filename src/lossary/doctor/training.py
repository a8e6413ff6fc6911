"""``python -m lossary.doctor.training``: the doctor must be quiet on correct training.

Six tasks; for each three fitting losses of Lossary and one of PyTorch's own. Every batch is
examined, and a ``Watch`` listens besides. Data are those that scikit-learn, vega_datasets and
Python itself ship.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lossary.doctor import Report, examine
from lossary.doctor.watch import Watch
from lossary.evaluate import Loss

BATCHES = 120


@dataclass(frozen=True)
class Task:
    """Data, a network for them, losses that fit, and how a batch is made."""

    name: str
    inputs: torch.Tensor
    target: torch.Tensor
    network: Callable[[], nn.Module]
    losses: tuple[tuple[Any, Callable[[torch.Tensor], torch.Tensor] | None], ...]
    rows: int = 64
    rate: float = 3e-3


@dataclass(frozen=True)
class Outcome:
    """What the doctor said over one whole training."""

    task: str
    loss: Any
    examined: int
    errors: dict[str, str]
    warnings: dict[str, str]
    notes: frozenset[str]
    first: float
    last: float


def _dense(features: int, outputs: int, width: int = 48) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs)]
    return nn.Sequential(*layers) if outputs > 1 else nn.Sequential(*layers, nn.Flatten(0))


def _scaled(table: np.ndarray) -> torch.Tensor:
    table = np.asarray(table, np.float64)
    return torch.tensor((table - table.mean(0)) / (table.std(0) + 1e-9), dtype=torch.float32)


def _digits() -> Task:
    from sklearn.datasets import load_digits

    data = load_digits()
    return Task(
        "digits",
        _scaled(data.data),
        torch.tensor(data.target),
        lambda: _dense(64, 10),
        (
            (Loss("cross_entropy"), None),
            (Loss("cross_entropy", label_smoothing=0.1), None),
            (Loss("multi_margin"), None),
            (nn.CrossEntropyLoss(), None),
        ),
    )


def _diabetes() -> Task:
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    return Task(
        "diabetes",
        _scaled(data.data),
        _scaled(data.target),
        lambda: _dense(10, 1),
        (
            (Loss("mse"), None),
            (Loss("mae"), None),
            (Loss("huber", delta=1.0), None),
            (nn.L1Loss(), None),
        ),
        rows=128,
    )


def _breast_cancer() -> Task:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return Task(
        "breast-cancer",
        _scaled(data.data),
        torch.tensor(data.target, dtype=torch.float32),
        lambda: _dense(30, 1),
        (
            (Loss("binary_cross_entropy"), None),
            (Loss("hinge"), lambda y: 2 * y - 1),
            (Loss("binary_focal"), None),
            (nn.BCEWithLogitsLoss(), None),
        ),
    )


def _weather() -> Task:
    from vega_datasets import local_data

    frame = local_data.seattle_weather()
    warmth = frame["temp_max"].to_numpy(float)
    day = frame["date"].dt.day_of_year.to_numpy() * 2 * np.pi / 365.25
    features = np.stack(
        [
            warmth[:-1],
            frame["wind"].to_numpy(float)[:-1],
            frame["precipitation"].to_numpy(float)[:-1],
            np.sin(day[1:]),
            np.cos(day[1:]),
        ],
        axis=1,
    )
    return Task(
        "weather",
        _scaled(features),
        _scaled(warmth[1:]),
        lambda: _dense(5, 1),
        (
            (Loss("mse"), None),
            (Loss("pinball", quantile=0.8), None),
            (Loss("log_cosh"), None),
            (nn.MSELoss(), None),
        ),
        rows=128,
    )


def _segmentation() -> Task:
    chance = np.random.default_rng(0)
    axis = np.arange(16)
    center, radius = chance.uniform(4, 12, (400, 2, 1, 1)), chance.uniform(2, 5, (400, 1, 1))
    masks = (
        (axis[:, None] - center[:, 0]) ** 2 + (axis[None, :] - center[:, 1]) ** 2 < radius**2
    ).astype(np.float32)
    images = masks + 0.7 * chance.normal(size=masks.shape)

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 12, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(12, 1, 5, padding=2),
            nn.Flatten(0, 1),
        )

    return Task(
        "segmentation",
        torch.tensor(images[:, None], dtype=torch.float32),
        torch.tensor(masks),
        network,
        (
            (Loss("dice", predictions="logits"), None),
            (Loss("binary_cross_entropy"), None),
            (Loss("tversky", predictions="logits", alpha=0.3, beta=0.7), None),
            (nn.BCEWithLogitsLoss(), None),
        ),
        rows=32,
    )


class _LanguageModel(nn.Module):
    """The next letter from all letters before it."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed, self.recall, self.head = (
            nn.Embedding(letters, 32),
            nn.GRU(32, 64, batch_first=True),
            nn.Linear(64, letters),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.recall(self.embed(tokens))[0])
        return scores


def _language() -> Task:
    from pydoc_data.topics import topics

    text = " ".join(topics.values())[:60_000]
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(letter) for letter in text])
    rows = codes[: len(codes) // 33 * 33].reshape(-1, 33)
    return Task(
        "language model",
        rows[:, :-1],
        rows[:, 1:].contiguous(),
        lambda: _LanguageModel(len(letters)),
        (
            (Loss("cross_entropy"), None),
            (Loss("cross_entropy", label_smoothing=0.05), None),
            (Loss("poly"), None),
            (nn.CrossEntropyLoss(), None),
        ),
        rows=32,
        rate=1e-2,
    )


TASKS = (_digits, _diabetes, _breast_cancer, _weather, _segmentation, _language)


def _batches(task: Task, count: int) -> Iterator[torch.Tensor]:
    order = torch.Generator().manual_seed(0)
    made = 0
    while True:
        for rows in torch.split(torch.randperm(len(task.inputs), generator=order), task.rows):
            if len(rows) == task.rows:
                yield rows
                made += 1
            if made == count:
                return


def train(
    task: Task,
    loss: Any,
    encode: Callable[[torch.Tensor], torch.Tensor] | None,
    count: int = BATCHES,
) -> Outcome:
    """Train for ``count`` batches; examine every one of them."""
    torch.manual_seed(0)
    network = task.network()
    optimizer = torch.optim.Adam(network.parameters(), lr=task.rate)
    watch = Watch(loss, tell=lambda text: None, batch_size=task.rows)
    target = task.target if encode is None else encode(task.target)
    serious: dict[str, dict[str, str]] = {"error": {}, "warning": {}}
    notes: set[str] = set()
    history: list[float] = []

    def collect(report: Report) -> None:
        for finding in report.findings:
            if finding.severity == "note":
                notes.add(finding.check)
            else:
                serious[str(finding.severity)].setdefault(
                    finding.check, f"batch {len(history)}: {finding.seen}"
                )
        for name, reason in report.failed.items():
            serious["error"].setdefault(name, f"batch {len(history)}: could not run: {reason}")

    for step, rows in enumerate(_batches(task, count)):
        prediction = network(task.inputs[rows])
        if isinstance(loss, nn.CrossEntropyLoss) and prediction.ndim > 2:
            prediction = prediction.movedim(-1, 1)  # PyTorch's own loss wants the classes there
        value = watch(prediction, target[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
        # In the first sixty batches an answer that is constant is a stage, not a fault.
        collect(
            examine(
                prediction.detach(),
                target[rows],
                loss=loss,
                batch_size=task.rows,
                history=history,
                trained=None if step > BATCHES // 2 else False,
            )
        )
    watch.close()
    for finding in watch.findings.values():
        if finding.severity != "note":
            serious[str(finding.severity)].setdefault(finding.check, f"watch: {finding.seen}")
    return Outcome(
        task.name,
        loss,
        len(history),
        serious["error"],
        serious["warning"],
        frozenset(notes),
        history[0],
        history[-1],
    )


def main() -> int:
    """Print the table; 1 when there is an error or a warning."""
    torch.set_num_threads(1)
    print(f"{'task':15} {'loss':64} {'batches':>7} {'errors':>6} {'warnings':>8}  loss from to")
    outcomes = []
    for make in TASKS:
        task = make()
        for loss, encode in task.losses:
            out = train(task, loss, encode)
            outcomes.append(out)
            print(
                f"{out.task:15} {out.loss!r:64} {out.examined:>7} {len(out.errors):>6} "
                f"{len(out.warnings):>8}  "
                f"{out.first:.3g} {out.last:.3g}  notes: {', '.join(sorted(out.notes)) or 'none'}",
                flush=True,
            )
            for check, text in (out.errors | out.warnings).items():
                print(f"    {check}: {text}")
    print(
        f"{len(outcomes)} trainings, {sum(out.examined for out in outcomes)} batches examined, "
        f"{sum(len(out.errors) for out in outcomes)} errors, "
        f"{sum(len(out.warnings) for out in outcomes)} warnings"
    )
    return 1 if any(out.errors or out.warnings for out in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
