"""Triton's kernels: their meaning in its interpreter, and that they compile for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from lossary import Loss, kernels

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Triton lies apart from the other packages, for it aborts in one process with TensorFlow.
TRITON = Path(sys.prefix) / "triton"


def _run(*command, **environment):
    assert TRITON.is_dir(), "make .venv/triton installs it"
    run = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(TRITON)} | environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_in_the_interpreter():
    """In a process of its own: the interpreter is switched on when Triton is imported."""
    file = str(HERE / "triton_interpreted.py")
    output = _run("-m", "pytest", "-q", "-W", "ignore::RuntimeWarning", file, TRITON_INTERPRET="1")
    assert " passed" in output and "failed" not in output and "skipped" not in output


def test_kernels_compile_for_a_gpu():
    """To machine code of an H100, without one: what the interpreter cannot tell."""
    _run(str(HERE / "compile_triton.py"))


def test_without_a_gpu_triton_declines():
    p, t = torch.randn(1000, requires_grad=True), torch.randn(1000)
    (kernel,) = kernels.find("huber", "torch", "triton")
    assert kernel.supports(p, t, delta=1.0) == "the prediction is on cpu"
    assert "not triton: the prediction is on cpu" in Loss("huber").explain(p, t)
