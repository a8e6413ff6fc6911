"""A loss of your own: running out costs more than having some left over.

Any function of (prediction, target) that returns unreduced values is a loss. With annotations and
``@lossary.loss`` it gets what Lossary's own get: a name, checked parameters, heads, adapters, and

    cd examples && lossary check custom_loss:shortage

which proves the properties that it claims.
"""

import numpy as np
import torch

from lossary import Loss, contract_of, loss
from lossary.contract import (
    CONVEX,
    NONNEGATIVE,
    SMOOTH,
    ZERO_AT_TARGET,
    PerElement,
    Positive,
    Real,
)
from lossary.xp import namespace


def plain(prediction, target):
    """Nothing but a function: it works, on every array library whose operators it uses."""
    return (prediction - target) ** 4


@loss(
    properties={CONVEX, SMOOTH, NONNEGATIVE, ZERO_AT_TARGET},
    paper="doi:10.2307/1911031",  # Newey and Powell 1987: the same up to scale, for expectiles
)
def shortage(prediction: Real, target: Real, *, price: Positive = 4.0) -> PerElement:
    r"""Squared error, ``price`` times as dear where too little was predicted.

    .. math:: \ell(r) = \begin{cases} \rho\, r^2 & r < 0 \\ r^2 & r \ge 0 \end{cases}

    Use it when demand is forecast and running out costs more than having some left over.
    """
    xp = namespace(prediction, target)
    residual = prediction - target
    return xp.where(residual < 0, price, 1.0) * xp.square(residual)


def best_constant(chosen: Loss, demand: torch.Tensor) -> float:
    """The single number that costs least, found by gradient descent."""
    stock = torch.zeros((), dtype=demand.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([stock], lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        chosen(stock.expand(len(demand)), demand).backward()
        optimizer.step()
    return stock.item()


def main() -> None:
    demand = torch.tensor(np.random.default_rng(0).gamma(4.0, 3.0, 500))
    print(f"mean demand                    {demand.mean():.2f}")
    print(f"stock by squared_error         {best_constant(Loss('squared_error'), demand):.2f}")
    print(f"stock by shortage              {best_constant(Loss(shortage), demand):.2f}")
    print(
        f"stock by shortage, price=20    {best_constant(Loss('shortage', price=20.0), demand):.2f}"
    )

    one, two = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    print(f"plain function on NumPy        {Loss(plain)(one, two):.2f}")
    print(contract_of(shortage).summary)


if __name__ == "__main__":
    main()
