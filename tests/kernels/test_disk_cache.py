"""Kernels from Numba's disk cache: each keeps to its own code, whichever process compiled it."""

import os
import subprocess
import sys

# One process imports what is the same for all; each forked from it compiles as a fresh one does.
PROGRAM = """
import os
import sys
import numpy as np
import numba
from lossary import kernels
from lossary.contract import contract_of
from numba.core import event

class Compiled(event.Listener):
    def on_start(self, started):
        # Numba's own functions (slices, copies with the text of their errors) once cost seconds.
        home = str(started.data["dispatcher"].py_func.__module__)
        assert not home.startswith("numba."), started.data

    def on_end(self, ended):
        pass

event.register("numba:compile", Compiled())
generator = np.random.default_rng(0)
logits, classes = generator.normal(size=(5, 60)), generator.integers(0, 60, 5)
spread = generator.dirichlet(np.ones(60), 5)
data = {
    "hinge": (logits[0], np.sign(logits[1]), {"margin": 4.0}),
    "tukey_biweight": (logits[0], logits[1], {"scale": 4.0}),
    "cross_entropy": (logits, classes, {"axis": -1}),
    "kl_divergence": (logits, spread, {"axis": -1}),
    "jensen_shannon": (logits, spread, {"axis": -1, "beta": 0.5}),
}

def check(call):
    loss, method = call.split(":")
    prediction, target, given = data[loss]
    expected = contract_of(loss).compute(prediction, target, **given)
    kernel = kernels.find(loss, "numpy")[0]
    if method == "values":
        found = kernel.values(prediction, target, **given)
    else:
        found = kernel.value_and_grad(prediction, target, factor=1.0, **given)[0]
        expected = expected.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=call)

numba.njit(lambda x: x + 1)(1.0)  # Numba and LLVM wake
assert not any(name.startswith("lossary.kernels.numba.") for name in sys.modules)
for run in sys.argv[1:]:
    cache, *calls = run.split()
    child = os.fork()
    if child == 0:
        os.environ["NUMBA_CACHE_DIR"] = cache
        numba.config.reload_config()
        for call in calls:
            check(call)
        break
    assert os.waitpid(child, 0)[1] == 0, run
"""


def test_kernels_of_two_processes_meet_in_a_third(tmp_path):
    """Equal symbols of two kernels once gave the second one the first one's loop."""
    pairs = [
        ("hinge:values", "tukey_biweight:values"),
        ("cross_entropy:values", "cross_entropy:gradient"),
        ("kl_divergence:values", "jensen_shannon:values"),
    ]
    runs = []
    for number, pair in enumerate(pairs):
        cache = tmp_path / str(number)
        # Each compiled as the first of its process; then both, either way round.
        for calls in (pair[:1], pair[1:], pair, pair[::-1]):
            runs += [" ".join([str(cache), *calls])]
    # Symbols depend on the order of sets: one order for all, so that equal ones would meet.
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *runs], capture_output=True, text=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    made = [len(list((tmp_path / str(k)).rglob("*.nbi"))) for k in range(len(pairs))]
    assert all(made), made
