"""Every loss as a PyTorch module: ``lossary.torch.HuberLoss(delta=2.0)(input, target)``.

For each name of a loss there is an ``nn.Module``, generated from the loss's contract when it is
first asked for: ``HuberLoss``, ``FocalLoss``, ``KLDivLoss``, in any spelling of the field. Where
PyTorch has the loss, arguments and defaults are PyTorch's. Beside them: exact means over
micro-batches and ranks (``global_mean``), a loss function for the Hugging Face Trainer
(``compute_loss_func``), and the doctor in training (``Watch``, ``LightningWatch``).
"""

from importlib import import_module
from typing import Any

from lossary.contract import REGISTRY, contracts, key_of
from lossary.torch.module import LossModule, TorchLossError, class_name, module_class
from lossary.torch.training import compute_loss_func, global_mean

__all__ = ["LossModule", "TorchLossError", "compute_loss_func", "get", "global_mean"]

# By name: the doctor stands above the adapters and is loaded when it is asked for.
_DOCTOR = {"Watch": "lossary.doctor.watch", "LightningWatch": "lossary.doctor.watch_lightning"}


def get(name: str) -> type[LossModule]:
    """The module class of a loss, by any of its names. Errors: TorchLossError, with near names."""
    return module_class(name)


def __getattr__(name: str) -> Any:
    if name in _DOCTOR:
        return getattr(import_module(_DOCTOR[name]), name)
    contracts()
    if name.startswith("_") or name == name.lower() or key_of(name) not in REGISTRY:
        raise AttributeError(f"module 'lossary.torch' has no attribute {name!r}")
    return module_class(name)


def __dir__() -> list[str]:
    contracts()
    return sorted([*__all__, *(class_name(key) for key in REGISTRY)])
