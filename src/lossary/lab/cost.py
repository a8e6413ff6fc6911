"""What a loss costs: time of its value and gradient, and the memory of the process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from lossary.lab.heads import Head
from lossary.lab.split import Split

REPEATS = 15


def seconds_of_loss(head: Head, outputs: torch.Tensor, parts: Split, batch: int) -> float:
    """Median time of value and gradient of one batch per replica, without the network's."""
    rows = min(batch, outputs.shape[1])
    leaf = outputs[:, :rows].contiguous()
    target = head.encode(parts.test.target[:, :rows])
    durations = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        head.values_and_slopes(leaf, target)
        durations.append(time.perf_counter() - began)
    return float(np.median(durations))


def forget_peak() -> None:
    """Begin a new peak of the process's memory, where the system can (Linux)."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def peak_bytes() -> int | None:
    """The largest memory of the process since ``forget_peak``; elsewhere, since it began."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(1024 * int(x.split()[1]) for x in lines if x.startswith("VmHWM"))
    if sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
