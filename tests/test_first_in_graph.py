"""torch.compile traces a definition before anything else of Lossary has run in the process."""

from __future__ import annotations

import subprocess
import sys

# Every third family, in one process that has run none; and a Loss that is older
# than torch. Dynamo's tracing is what set-up would break, so no code needs to be generated.
PROGRAM = """
import lossary.losses
from lossary import Loss
from lossary.contract import contracts

older = Loss("huber")

import torch
from lossary.testing.everyday import plain_batch
from lossary.testing.settings import parameter_sets

first = {contract.family: contract for contract in contracts()}
for contract in list(first.values())[::3]:
    parameters = parameter_sets(contract)[0]
    batch = {name: torch.from_numpy(x) for name, x in plain_batch(contract, parameters).items()}
    run = torch.compile(contract.compute, fullgraph=True, backend="eager")
    assert torch.isfinite(run(**batch, **parameters)).all(), contract.name
x = torch.ones(3)
assert torch.compile(older, fullgraph=True, backend="eager")(x, x) == 0
print(len(first))
"""


def test_definitions_compile_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 10
