"""Lossary: every neural-network loss, defined once, on every array library.

>>> from lossary import Loss
>>> Loss("huber", delta=2.0)(prediction, target)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lossary.advice import advise as advise
    from lossary.contract import Contract as Contract
    from lossary.contract import LossError as LossError
    from lossary.contract import contract_of as contract_of
    from lossary.contract import contracts as contracts
    from lossary.contract import loss as loss
    from lossary.cost import Objective as Objective
    from lossary.cost import Total as Total
    from lossary.doctor import examine as examine
    from lossary.evaluate import Loss as Loss

_HOMES = {
    "Loss": "evaluate",
    "Total": "cost",
    "Objective": "cost",
    "loss": "contract",
    "Contract": "contract",
    "LossError": "contract",
    "contract_of": "contract",
    "contracts": "contract",
    "examine": "doctor",
    "advise": "advice",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lossary' has no attribute {name!r}")
    value = getattr(import_module(f"lossary.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
