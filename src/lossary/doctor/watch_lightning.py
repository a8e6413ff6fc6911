"""The doctor as a Lightning callback: ``Trainer(callbacks=[LightningWatch()])``.

Lightning calls hooks by name, so this class needs no import of it where it is absent.
"""

from __future__ import annotations

from typing import Any

from lossary.contract import LossError
from lossary.doctor.report import Finding
from lossary.doctor.watch import Reading, Watch

try:
    from lightning.pytorch.callbacks import Callback as _Base
except ImportError:
    try:
        from pytorch_lightning.callbacks import Callback as _Base
    except ImportError:
        _Base = object

_NAMES = ("loss", "criterion", "objective")


class LightningWatch(_Base):  # type: ignore[misc]
    """Watch every loss module of a LightningModule: those without parameters whose name says so.

    ``loss="criterion"`` names the attribute instead. Further keywords go to :class:`Watch`.
    """

    def __init__(self, loss: str | None = None, **options: Any) -> None:
        super().__init__()
        self.loss, self.options = loss, options
        self.watches: dict[str, Watch] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the losses."""
        import torch

        found = {}
        for name, module in pl_module.named_modules():
            last = name.rpartition(".")[2]
            named = (
                last == self.loss
                if self.loss
                else (
                    any(word in last.lower() for word in _NAMES)
                    or module.__class__.__module__ == "torch.nn.modules.loss"
                )
            )
            if name and named and not any(True for _ in module.parameters()):
                found[name] = module
        if not found and self.loss and hasattr(pl_module, self.loss):
            watch = Watch(getattr(pl_module, self.loss), **self.options)
            if isinstance(watch.loss, torch.nn.Module):
                found[self.loss] = watch.loss
            else:  # a plain function: call it through the watch
                setattr(pl_module, self.loss, watch)
                self.watches[self.loss] = watch
                return
        if not found:
            raise LossError(
                f"LightningWatch: {type(pl_module).__name__} holds no loss module; keep the loss "
                "as an attribute, "
                'self.loss = nn.CrossEntropyLoss(), or name it: LightningWatch(loss="name")'
            )
        self.watches = {name: Watch(module, **self.options) for name, module in found.items()}

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the last batches and detach."""
        for name, watch in self.watches.items():
            watch.close()
            if getattr(pl_module, name, None) is watch:
                setattr(pl_module, name, watch.loss)

    @property
    def findings(self) -> dict[str, Finding]:
        """By check, over all losses."""
        return {
            check: finding
            for watch in self.watches.values()
            for check, finding in watch.findings.items()
        }

    @property
    def readings(self) -> dict[str, list[Reading]]:
        """By the name of the loss."""
        return {name: watch.readings for name, watch in self.watches.items()}
