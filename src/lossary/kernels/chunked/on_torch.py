"""The manifest's objects for torch."""

from __future__ import annotations

from lossary.kernels import Kernel
from lossary.kernels.chunked.contrast_torch import INFO_NCE, SIGLIP, SUPERVISED
from lossary.kernels.chunked.linear_torch import LINEAR

_LOSSES = {each.loss: each for each in (LINEAR, INFO_NCE, SIGLIP, SUPERVISED)}


def kernel(loss: str) -> Kernel:
    """The sliced kernel of ``loss``."""
    return _LOSSES[loss].kernel()
