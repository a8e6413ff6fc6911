"""Every kernel of torch under every reduction, with weights and masks, against the definition."""

import numpy as np
import pytest
import torch

from lossary import Loss, kernels
from lossary.contract import contract_of
from lossary.testing.everyday import plain_batch

ROWS = 120
NAMES = sorted(
    name
    for name, library in kernels.manifest()
    if library == "torch" and "numba.on_torch" in kernels.manifest()[name, library]
)


@pytest.mark.parametrize("beside", ["nothing", "weights", "mask"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "mean_over_batch", "batch_mean"])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_reduces_as_its_definition(name, reduction, beside):
    loss, _, form = name.partition("_of_")
    contract = contract_of(loss)
    batch = plain_batch(contract, {}, rows=ROWS, soft=contract.family == "divergence")
    if contract.unit.name == "region":  # of four places each
        batch = {name: np.repeat(array[..., None], 4, -1) for name, array in batch.items()}
    if form in ("rates", "probabilities"):
        batch["prediction"] = np.abs(np.tanh(batch["prediction"])) + 1e-3
    if form == "log_probabilities":
        batch["prediction"] = torch.tensor(batch["prediction"]).log_softmax(-1).numpy()
    companions = {}
    if beside == "weights":
        companions["weights"] = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64)
    if beside == "mask":
        companions["mask"] = torch.arange(ROWS) % 3 > 0
    found = []
    for implementation in ("numba", "definition"):
        chosen = Loss(
            contract, reduction=reduction, predictions=form or None, implementation=implementation
        )
        arrays = [torch.tensor(array) for array in batch.values()]
        leaves = [arrays[place].requires_grad_() for place in kernels.differentiated(name)]
        for _ in range(2):  # the second call takes the shortcut
            value = chosen(*arrays, **companions)
        value.sum().backward()
        found.append([value.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-13)
