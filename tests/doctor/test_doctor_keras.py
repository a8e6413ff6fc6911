"""The Keras callback on Keras' three backends, each in a process of its own."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "keras_trainings.py"


@pytest.mark.parametrize(("backend", "step"), [("tensorflow", 2), ("torch", 1), ("jax", 7)])
def test_quiet_on_right_trainings_and_true_on_broken_ones(backend: str, step: int) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(step)]
    out = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert out.returncode == 0, out.stderr[-2000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert len(found) == math.ceil(26 / step)
    for name, checks in found.items():
        if name.startswith("right"):
            assert checks == [], name
        else:
            assert name.partition(" ")[0] in checks, (name, checks)
