"""Right denominators in training: means over micro-batches and ranks, and the Trainer's hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from lossary.cost import Total, divide
from lossary.torch.module import LossModule, module_class


def global_mean(total: Total, group: Any = None, *, weight: Tensor | float | None = None) -> Tensor:
    """The mean over all ranks of ``group``, right in value and, behind DDP, in gradient.

    Each rank gives the ``Total`` of its own share, however uneven. The value is the mean over all
    of them on every rank; its gradient is this rank's part times the number of ranks, because DDP
    divides by that number when it averages gradients. One all-reduce of two numbers; none without
    a process group.

    With gradient accumulation, ``weight`` is the weight of all micro-batches of this step on this
    rank (0 is fine): call ``backward`` on each micro-batch's ``global_mean``; they add to the mean.
    """
    here = total.weight if weight is None else torch.as_tensor(weight)
    here = here.detach().to(total.sum)
    if not (distributed.is_available() and distributed.is_initialized()):
        return divide(total.sum, here)
    ranks = distributed.get_world_size(group)
    everywhere = torch.stack([total.sum.detach(), here])
    distributed.all_reduce(everywhere, group=group)
    mean = divide(everywhere[0], everywhere[1])
    part = divide(total.sum * ranks, everywhere[1])
    return mean + (part - part.detach())  # the value of the mean, the gradient of the part


def compute_loss_func(
    loss: str | LossModule = "cross_entropy", *, shift: bool = False, **options: Any
) -> Callable[..., Tensor]:
    """A loss function for the Hugging Face Trainer: ``Trainer(compute_loss_func=...)``.

    ``loss`` is a module of ``lossary.torch`` or a name, built with ``options``; it reads
    ``outputs.logits`` of shape (..., classes) and labels of shape (...). ``shift=True`` predicts
    each next token, for language models. Where the Trainer counts the items of all micro-batches of
    a step (``num_items_in_batch``), the sum is divided by that count, so that gradient accumulation
    gives the mean over the step; else it is this batch's mean.
    """
    module = loss if isinstance(loss, LossModule) else module_class(loss)(**options)

    def compute(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        if shift:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if logits.ndim == labels.ndim + 1:
            logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        total = module.to(logits.device).total(logits, labels)
        if num_items_in_batch is None:
            return total.mean
        count = torch.as_tensor(num_items_in_batch, device=total.sum.device)
        return divide(total.sum, count.to(total.sum.dtype))

    return compute
