"""Training: every replica in step, on its own batches, at its own learning rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from lossary.contract import LossError
from lossary.lab.heads import Head
from lossary.lab.network import Adam, Stack
from lossary.lab.split import Split

Tensor = torch.Tensor
Score = Callable[[Tensor], np.ndarray]  # outputs (replicas, n, width) on validation -> (replicas,)


@dataclass(frozen=True)
class Budget:
    """What every loss gets: epochs and rows per step."""

    epochs: int
    batch: int

    @classmethod
    def fitting(cls, rows: int, epochs: int | None = None, batch: int | None = None) -> Budget:
        """Batches of 64, fewer for little data; 60 epochs, fewer where that is over 20,000
        steps.
        """
        batch = min(batch or min(64, max(8, rows // 16)), rows)
        steps = max(1, rows // batch)
        return cls(epochs or max(1, min(60, -(-20_000 // steps))), batch)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left: curves (epochs, replicas), and outputs on the test part (replicas,
    n, width).

    ``best``: the epoch of the best validation score of each replica; ``score`` is higher-is-better.
    """

    loss: np.ndarray
    score: np.ndarray
    best: np.ndarray
    outputs_best: Tensor
    outputs_last: Tensor
    train_outputs: Tensor
    nonfinite: np.ndarray
    seconds_per_step: float


@contextmanager
def no_denormals() -> Iterator[None]:
    """Numbers under 1e-38 count as zero meanwhile.

    Adam's averages for a unit that is off fade through them, and a processor needs many times
    longer for each: late epochs at a high rate took four times as long.
    """
    before = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@no_denormals()
def train(
    stack: Stack,
    head: Head,
    parts: Split,
    budget: Budget,
    rates: Sequence[float],
    score: Score,
    seed_of: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Train replica r on the split of seed number ``seed_of[r]`` at ``rates[r]``."""
    which = torch.as_tensor(list(seed_of) if seed_of is not None else range(len(parts.seeds)))
    rows = parts.train.features.shape[1]
    flat = parts.train.features.flatten(0, 1)
    encoded = head.encode(parts.train.target)
    targets = encoded.flatten(0, 1)
    start = (which * rows)[:, None]
    validation, test = (part.features[which] for part in (parts.validation, parts.test))
    optimiser = Adam(stack.parameters, rates)
    draws = [torch.Generator().manual_seed(10_007 * seed + 1) for seed in parts.seeds]
    steps = max(1, rows // budget.batch)
    used = min(rows, steps * budget.batch)
    replicas = len(which)
    losses, scores = [], []
    nonfinite = np.zeros(replicas, dtype=np.int64)
    best = np.zeros(replicas, dtype=np.int64)
    best_state = [tensor.detach().clone() for tensor in stack.state]
    top = np.full(replicas, -np.inf)
    durations = []
    for epoch in range(budget.epochs):
        order = torch.stack([torch.randperm(rows, generator=draw) for draw in draws])[which] + start
        seen = torch.zeros(steps, replicas)
        began = time.perf_counter()
        # By step, then by replica: each step's rows lie together.
        chosen = order[:, :used].reshape(replicas, steps, -1).transpose(0, 1).reshape(steps, -1)
        wanted_by_step = targets[chosen].view(steps, replicas, -1, *targets.shape[1:])
        for step, (places, wanted) in enumerate(zip(chosen, wanted_by_step, strict=True)):
            batch = flat.index_select(0, places).view(replicas, -1, *flat.shape[1:])
            reached = stack.forward(batch)
            if reached.shape[2:] != (head.width,):
                raise LossError(
                    f"model: gives outputs of shape {tuple(reached.shape[1:])} for a batch of "
                    f"{batch.shape[1]}; expected {(batch.shape[1], head.width)}"
                )
            seen[step], slopes = head.values_and_slopes(reached, wanted)
            stack.backward(slopes)
            optimiser.step()
        durations.append(time.perf_counter() - began)
        nonfinite += (~torch.isfinite(seen)).sum(0).numpy()
        with torch.no_grad():
            found = score(stack.forward(validation))
        found = np.where(np.isfinite(found), found, -np.inf)
        better = found > top
        top, best = np.where(better, found, top), np.where(better, epoch, best)
        keep = torch.from_numpy(np.flatnonzero(better))
        for kept, tensor in zip(best_state, stack.state, strict=True):
            kept[keep] = tensor.detach()[keep]
        losses.append(seen.mean(0).numpy())
        scores.append(found)
        if progress:
            progress(replicas)
    with torch.no_grad():
        train_outputs, outputs = (
            stack.forward(rows) for rows in (parts.train.features[which], test)
        )
        for kept, tensor in zip(best_state, stack.state, strict=True):
            tensor.copy_(kept)
        best_outputs = stack.forward(test)
    return Trained(
        np.stack(losses),
        np.stack(scores),
        best,
        best_outputs,
        outputs,
        train_outputs,
        nonfinite,
        float(np.median(durations)) / steps,  # the median: other work on the machine comes and goes
    )
