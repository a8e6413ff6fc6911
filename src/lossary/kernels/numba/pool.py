"""Threads for kernels that release the interpreter's lock: fork-safe, callable from any thread."""

from __future__ import annotations

import _thread
import os
import queue
import sys
import threading
from typing import Any

from lossary.kernels.numba import openmp, worker
from lossary.kernels.numba.memory import address

SHARE = 1 << 17  # numbers with logits' work that take as long as waking a thread of the pool's


def parts(numbers: int) -> int:
    """On how many threads to work on so many ``numbers``."""
    if numbers <= SHARE // 4:
        return 1
    share = SHARE // 4 if openmp.ready() else SHARE  # torch's threads are awake
    return min(threads(), -(-numbers // share))


def threads() -> int:
    """How many threads a kernel may use: torch's setting where torch is loaded, else the CPUs."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    def __init__(self) -> None:
        self.shares: queue.SimpleQueue[tuple[worker.Share, int, Any]] = queue.SimpleQueue()
        self.workers = 0
        self.growing = threading.Lock()

    def _work(self) -> None:
        while True:
            share, at, done = self.shares.get()
            share(at)
            done.release()

    def run(self, share: worker.Share, at: int, parts: int) -> None:
        """``share(at)`` on as many threads as there are parts, this one among them."""
        if self.workers < parts - 1:
            with self.growing:
                while self.workers < parts - 1:
                    threading.Thread(target=self._work, daemon=True, name="lossary").start()
                    self.workers += 1
        waiting = [_thread.allocate_lock() for _ in range(parts - 1)]
        for done in waiting:
            done.acquire()
            self.shares.put((share, at, done))
        share(at)
        for done in waiting:  # all of them, for they write into the caller's buffers
            done.acquire()


_pool = _Pool()


def _after_fork() -> None:
    # Threads do not survive a fork, and a lock may be held by one that is gone.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(function: Any, blocks: int, parts: int, *rest: Any) -> None:
    """Run a kernel's ``function(first, last, *rest)`` over all blocks on ``parts`` threads."""
    if parts <= 1 or blocks <= 1:
        function(0, blocks, *rest)
        return
    parts = min(parts, blocks)
    work = worker.of(function)
    # Several steps per thread: a thread whose CPU is busy elsewhere takes fewer of them.
    given = work.arguments(blocks, -(-blocks // (4 * parts)), rest)
    (openmp if openmp.ready() else _pool).run(work.share, address(given), parts)
    worker.check(given)
