"""One workload in this process: its contenders' times interleaved, or one's peak memory."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path

from benchmarks.steps import MissingError, Step
from benchmarks.workloads import RATES, WORKLOADS

LONGEST = 60.0  # seconds of rounds of one workload


def times(name: str) -> dict[str, object]:
    """Seconds per step of every contender; in each round all of them run, in random order.

    Per contender: median, lowest, and the quartiles. Rounds end early when they take too long, but
    not before the third. Where it is told how many bytes are moved, the machine's own rates are
    measured in the same rounds: with the caches as others left them, as a loss finds them.
    """
    work = WORKLOADS[name]
    steps: dict[str, Step] = {}
    left_out: dict[str, str] = {}
    rates = RATES if work.bytes_moved else {}
    for contender, make in (work.contenders | rates).items():
        try:
            step = make()
            step()
        except MissingError as missing:
            left_out[contender] = f"{missing} is not installed"
            continue
        steps[contender] = step
    found: dict[str, list[float]] = {contender: [] for contender in steps}
    order = list(steps)
    shuffle = random.Random(0).shuffle
    begin = time.perf_counter()
    for turn in range(work.repeats):
        if turn >= 3 and time.perf_counter() - begin > LONGEST:
            break
        shuffle(order)
        for contender in order:
            step = steps[contender]
            start = time.perf_counter()
            for _ in range(work.block):
                step()
            found[contender].append((time.perf_counter() - start) / work.block)
    return {
        "seconds": {
            contender: {
                "median": statistics.median(series),
                "lowest": min(series),
                "quartiles": statistics.quantiles(series, n=4)[::2],
            }
            for contender, series in found.items()
        },
        "left_out": left_out,
    }


def memory(name: str, contender: str) -> dict[str, object]:
    """Bytes by which the peak of a step exceeds the inputs, gradients included.

    A step on small inputs goes before, so that the code that is loaded and compiled is not in it.
    """
    work = WORKLOADS[name]
    assert work.small is not None
    work.small[contender]()()
    step = work.contenders[contender]()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return {"bytes": _status("VmHWM") - before}


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    json.dump({"times": times, "memory": memory}[what](*arguments), sys.stdout)
