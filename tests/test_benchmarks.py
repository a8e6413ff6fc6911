"""What the benchmark says it measures is what its workloads do."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_a_workload_repeats_moves_and_measures_small(name):
    work = WORKLOADS[name]
    # A number of bytes taken for a number of steps would make a run that does not end.
    assert work.repeats * work.block <= 10_000
    assert work.bytes_moved == 0 or work.bytes_moved > 1 << 20
    if work.small is not None:
        assert set(work.small) == set(work.contenders)
