"""Threads for kernels that release the interpreter's lock: fork-safe, callable from any thread."""

from __future__ import annotations

import _thread
import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from lossary.kernels.numba import openmp

SHARE = 1 << 16  # numbers with logits' work that take as long as waking a thread of the pool's


def parts(numbers: int) -> int:
    """On how many threads to work on so many ``numbers``."""
    if numbers <= SHARE // 2:
        return 1
    share = SHARE // 2 if openmp.ready() else SHARE  # torch's threads are awake
    return min(threads(), -(-numbers // share))


def threads() -> int:
    """How many threads a kernel may use: torch's setting where torch is loaded, else the CPUs."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    def __init__(self) -> None:
        self.shares: queue.SimpleQueue[tuple[Callable[[], None], Any]] = queue.SimpleQueue()
        self.workers = 0
        self.growing = threading.Lock()

    def _work(self) -> None:
        while True:
            share, done = self.shares.get()
            share()
            done.release()

    def run(self, share: Callable[[], None], parts: int) -> None:
        """``share()`` on as many threads as there are parts, this one among them."""
        if self.workers < parts - 1:
            with self.growing:
                while self.workers < parts - 1:
                    threading.Thread(target=self._work, daemon=True, name="lossary").start()
                    self.workers += 1
        waiting = [_thread.allocate_lock() for _ in range(parts - 1)]
        for done in waiting:
            done.acquire()
            self.shares.put((share, done))
        share()
        for done in waiting:  # all of them, for they write into the caller's buffers
            done.acquire()


_pool = _Pool()


def _after_fork() -> None:
    # Threads do not survive a fork, and a lock may be held by one that is gone.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def split(blocks: int, parts: int) -> list[tuple[int, int]]:
    """0..blocks in at most ``parts`` ranges of nearly equal length."""
    parts = min(parts, blocks)
    edges = [blocks * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def run(function: Callable[..., Any], blocks: int, parts: int, *rest: Any) -> None:
    """Run ``function(first, last, *rest)`` over all blocks on ``parts`` threads."""
    if parts <= 1 or blocks <= 1:
        function(0, blocks, *rest)
        return
    parts = min(parts, blocks)
    # Several ranges per thread: a thread whose CPU is busy elsewhere takes fewer of them.
    if openmp.ready():
        openmp.run(function, blocks, parts, -(-blocks // (4 * parts)), rest)
        return
    ranges = iter(split(blocks, 4 * parts))
    errors: list[BaseException] = []

    def share() -> None:
        try:
            # A list's iterator hands each range to exactly one thread.
            for first, last in ranges:
                function(first, last, *rest)
        except BaseException as error:  # raised again on the caller's thread
            errors.append(error)

    _pool.run(share, parts)
    if errors:
        raise errors[0]
