"""Large buffers are used again, but never while anything can still see them."""

import concurrent.futures
import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lossary import Loss
from lossary.kernels.numba import memory

SIZE = 1 << 20  # numbers: 4 MiB

pytestmark = pytest.mark.skipif(not memory._KEEPS, reason="only Linux lends huge pages")


@pytest.fixture(autouse=True, scope="module")
def only_new_objects_are_collected():
    """The millions of objects of the frameworks would be gone through at every collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_idle(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", SIZE)  # bytes; larger buffers would only take longer
    gc.collect()
    memory._after_fork()
    yield
    memory._after_fork()


def _span(array):
    start = memory.address(array) if isinstance(array, np.ndarray) else array.data_ptr()
    return start, start + array.nbytes


def test_a_dropped_buffer_is_used_again_and_aligned():
    first = memory.buffer((SIZE,), np.float32)
    place = memory.address(first)
    assert place % (1 << 21) == 0
    first[:] = 1  # it can be written
    second = memory.buffer((SIZE,), np.float32)
    assert memory.address(second) != place
    del first
    nearly = memory.buffer((1024, 1000), np.float32)  # another shape of nearly this size
    assert memory.address(nearly) == place and nearly.flags.c_contiguous
    assert memory.address(memory.buffer((SIZE, 8), np.float32)) != place


VIEWS = {
    "a slice": lambda a: a[1000:1001],
    "a slice of a slice": lambda a: a[::2][3:].reshape(1, -1).T[::-1],
    "another dtype": lambda a: a.view(np.uint8)[5:],
    "a memoryview": lambda a: memoryview(a)[7:9],
    "a NumPy array of the memoryview": lambda a: np.asarray(memoryview(a))[7:9],
    "a tensor": lambda a: torch.from_numpy(a),
    "a view of a tensor": lambda a: torch.from_numpy(a)[10:20].view(2, 5).detach(),
    "a storage": lambda a: torch.from_numpy(a).untyped_storage(),
    "NumPy of a tensor": lambda a: torch.from_numpy(a)[3:].numpy(),
    "NumPy through DLPack": lambda a: np.from_dlpack(torch.from_numpy(a)),
    "torch through DLPack": lambda a: torch.from_dlpack(a)[1:2],
    "a graph": lambda a: (torch.from_numpy(a).requires_grad_() ** 2).sum().grad_fn,
}


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_no_buffer_is_used_again_while_a_view_lives(name):
    array = memory.buffer((SIZE,), np.float32)
    start, end = _span(array)
    view = VIEWS[name](array)
    del array
    gc.collect()
    others = [memory.buffer((SIZE,), np.float32) for _ in range(3)]
    assert all(other_end <= start or end <= at for at, other_end in map(_span, others))
    del view
    gc.collect()
    assert memory.address(memory.buffer((SIZE,), np.float32)) == start


def test_gradients_that_are_kept_stay_what_they_were():
    loss = Loss("squared_error")
    target = torch.zeros(SIZE)
    kept = []
    for turn in range(1, 5):
        leaf = torch.full((SIZE,), float(turn), requires_grad=True)
        value = loss(leaf, target)
        value.backward(retain_graph=True)
        kept.append(leaf.grad if turn % 2 else leaf.grad[5:].view(-1))
        value.backward()  # adds to the gradient that is kept
    for turn, gradient in enumerate(kept, 1):
        assert torch.equal(gradient, torch.full_like(gradient, 4 * turn / SIZE))
    assert len({gradient.untyped_storage().data_ptr() for gradient in kept}) == 4


def test_idle_memory_has_an_end(monkeypatch):
    monkeypatch.setattr(memory, "MOST_IDLE", 20 << 20)
    buffers = [memory.buffer((SIZE,), np.float32) for _ in range(9)]
    places = [memory.address(buffer) for buffer in buffers]
    while buffers:
        buffers.pop(0)
        assert sum(region.size for region in memory._idle) <= 20 << 20
    assert [region.address for region in memory._idle] == places[-5:]  # the oldest went
    memory.buffer((8 * SIZE,), np.float32)  # larger than all that may be kept: not kept
    assert len(memory._idle) == 5


def test_idle_memory_is_the_systems():
    """Nothing counts as the process's own any longer: Linux may take the pages at once."""
    array = memory.buffer((16 * SIZE,), np.float32)
    array[:] = 1
    place, whole = memory.address(array), array.nbytes

    def lazily_free():
        maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
        for part in maps:
            lines = part.splitlines()
            head = next(line for line in lines if "-" in line.split(" ")[0] and ":" not in line[:9])
            start, end = (int(edge, 16) for edge in head.split(" ")[0].split("-"))
            if start <= place < end:
                return next(int(x.split()[1]) << 10 for x in lines if x.startswith("LazyFree:"))
        raise AssertionError("the buffer is mapped nowhere")

    assert lazily_free() == 0
    del array
    assert lazily_free() >= whole // 2


def test_four_threads_never_share_a_buffer():
    def work(number):
        for turn in range(60):
            mine = memory.buffer((SIZE // 2,), np.float32)
            mine[::4096] = number * 1000 + turn
            held = torch.from_numpy(mine)[::4096]
            del mine
            other = memory.buffer((SIZE // 2,), np.float32)
            other[::4096] = -1
            del other
            if not bool((held == number * 1000 + turn).all()):
                return f"thread {number}, turn {turn}"
        return None

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as executor:
            assert list(executor.map(work, range(4))) == [None] * 4
    finally:
        sys.setswitchinterval(interval)
    assert len(memory._idle) <= 8


def test_a_finalizer_that_runs_inside_the_lock_does_not_wait_for_it():
    array = memory.buffer((SIZE,), np.float32)
    place = memory.address(array)
    with memory._lock:
        del array  # as a collection of garbage would
        assert not memory._idle
    assert memory.address(memory.buffer((SIZE,), np.float32)) == place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_have_buffers_of_their_own():
    held = memory.buffer((SIZE,), np.float32)
    held[:] = 7
    place = memory.address(memory.buffer((SIZE,), np.float32))  # idle from here on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with memory._lock:  # held by a thread that the child does not have
            child = os.fork()
    if child == 0:
        status = 1
        try:
            mine = memory.buffer((SIZE,), np.float32)
            mine[:] = 1
            right = bool((held == 7).all())
            held[:] = 2
            del mine
            status = 0 if right and len(memory._idle) == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (held == 7).all()
    assert memory.address(memory.buffer((SIZE,), np.float32)) == place


def test_without_memory_numpys_error_comes(monkeypatch):
    def refuse(*arguments):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    assert memory.buffer((SIZE,), np.float32).shape == (SIZE,)
    with pytest.raises(MemoryError):
        memory.buffer((1 << 60,), np.float32)


def test_a_process_ends_quietly_with_buffers_in_use():
    program = (
        "import numpy as np, torch\n"
        "from lossary.kernels.numba import memory\n"
        "held = [memory.buffer((1 << 20,), np.float32) for _ in range(3)]\n"
        "class Cycle: pass\n"
        "cycle = Cycle(); cycle.itself = cycle; cycle.tensor = torch.from_numpy(held.pop())\n"
        "memory.buffer((1 << 20,), np.float32)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_jax_array_keeps_its_buffer():
    import jax

    array = memory.buffer((SIZE,), np.float32)
    array[:] = 3
    place = memory.address(array)
    shared = jax.dlpack.from_dlpack(array)
    assert shared.unsafe_buffer_pointer() == place  # not copied
    del array
    other = memory.buffer((SIZE,), np.float32)
    other[:] = 5
    assert float(shared.min()) == 3 and memory.address(other) != place
