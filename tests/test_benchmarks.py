"""What the benchmark says it measures is what its workloads do."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_a_workload_repeats_moves_and_measures_small(name):
    work = WORKLOADS[name]
    # A number of bytes taken for a number of steps would make a run that does not end.
    assert work.repeats * work.block <= 10_000
    assert work.bytes_moved == 0 or work.bytes_moved > 1 << 20
    if work.small is not None:
        assert set(work.small) == set(work.contenders)


def test_the_share_of_a_rate_is_that_of_the_same_rounds():
    times = {"lossary": 4.0, "copy": 2.0, "two reads, one write": 4.0}
    setting = {"seconds": {name: {"median": 9.0, "lowest": time} for name, time in times.items()}}
    elsewhere = {"seconds": {"copy": {"median": 1.0, "lowest": 1.0}}}
    results = {
        "limits": {"title": "the machine", "bytes": 0, "no page faults": elsewhere},
        "huber": {"title": "huber", "bytes": 12 << 24, "default": setting},
    }
    said = report._share("huber", results)
    assert said == "Share of the rate of: copy 75%; two reads, one write 100%."
    assert [row[0] for row in report._rows("huber", results)] == ["lossary"]
