# mypy: disable-error-code="no-untyped-call"
"""Losses made slice by slice, as torch's autograd and the manifest see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from lossary.kernels import Kernel
from lossary.kernels.numba import memory
from lossary.kernels.transforms_torch import transformed

Tensor = torch.Tensor
BUDGET = 64 * 2**20  # bytes of scores that exist at a time, unless told otherwise
FROM_SCORES = 1 << 20  # 1M to 16M scores: 1.2 to 10 times as quick, 1/3 to 1/19 of the memory
_BLOCK = 1 << 20  # numbers
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def fresh(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised memory; on the CPU from huge pages, which are quicker to touch first."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    return torch.from_numpy(memory.buffer(shape, str(dtype).removeprefix("torch.")))


def slices(rows: int, columns: int, width: int, budget: int, most: int = 512) -> list[slice]:
    """Slices of rows: 128 to ``most``, as the budget allows; products are slow with fewer."""
    step = max(128, min(most, budget // max(1, columns * width)))
    return [slice(low, min(low + step, rows)) for low in range(0, rows, step)]


def blocks_of(scores: Tensor) -> tuple[Tensor, ...]:
    """A slice in parts that stay in the cache from one operation to the next."""
    rows = max(1, _BLOCK // max(1, scores.shape[1])) if scores.is_cpu else len(scores)
    return scores.split(rows)


class Wanted(NamedTuple):
    """What a run shall make: ``factor * sum(weights * values)`` always, and these."""

    gradients: tuple[bool, ...]  # one per array
    values: bool = False


class Found(NamedTuple):
    """What a run made."""

    total: Tensor
    gradients: tuple[Tensor | None, ...]
    values: Tensor | None


class Sliced:
    """One loss; ``run`` and ``definition`` say how it is made.

    ``weights`` has one number per unit, in the precision of the sums; a unit of weight 0 is not
    read. Parameters are the definition's, and ``budget``.
    """

    loss: str

    def run(
        self, arrays: tuple[Any, ...], weights: Tensor | None, factor: float, wanted: Wanted,
        parameters: Mapping[str, Any],
    ) -> Found:  # fmt: skip
        raise NotImplementedError

    def definition(self, arrays: tuple[Any, ...], parameters: Mapping[str, Any]) -> Tensor:
        """The values by operations that torch differentiates any number of times."""
        raise NotImplementedError

    def decline(self, arrays: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> str | None:
        """Why these shapes or parameters need the definition."""
        return None

    def scores(self, *arrays: Any) -> int:
        """How many scores there are."""
        raise NotImplementedError

    # -- what a kernel offers -------------------------------------------------------------------

    def kernel(self) -> Kernel:
        """The manifest's object."""
        return Kernel(
            "chunked", self.loss, "torch", self.supports, self.values, self.scaled_sum,
            from_size=FROM_SCORES, size=self.scores, counted="scores",
        )  # fmt: skip

    def supports(self, *arrays: Tensor, **parameters: Any) -> str | None:
        strange = [type(array).__name__ for array in arrays if type(array) not in _PLAIN]
        if strange:
            return f"an input is a {strange[0]}"
        if len({array.device for array in arrays}) > 1:
            return "the inputs are on several devices"
        return transformed() or self.decline(arrays, parameters)

    def values(self, *arrays: Tensor, **parameters: Any) -> Tensor:
        return _Values.apply(self, parameters, *arrays)  # type: ignore[no-any-return]

    def scaled_sum(
        self, *arrays: Tensor, factor: float, weights: Tensor | None = None, **parameters: Any
    ) -> Tensor:
        if weights is not None:
            weights = weights.reshape(-1)
            if weights.requires_grad:  # a gradient by the weights needs the values themselves
                values = self.values(*arrays, **parameters).reshape(-1)
                return factor * torch.where(weights == 0, 0.0, weights * values).sum()
        return _ScaledSum.apply(  # type: ignore[no-any-return]
            self, factor, weights, parameters, *arrays
        )


def _wanted(ctx: Any, before: int) -> Wanted:
    return Wanted(tuple(ctx.needs_input_grad[before:]))


def _through_definition(
    ctx: Any, arrays: tuple[Any, ...], upstream: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients as functions that can be differentiated again."""
    values = ctx.bound.definition(arrays, ctx.parameters)
    # A unit without weight is absent: a NaN there must not reach the sum.
    used = upstream.reshape(values.shape) if upstream.ndim else upstream
    total = torch.where(used == 0, 0.0, used * values).sum()
    wanted = [x for x, needed in zip(arrays, ctx.wanted.gradients, strict=True) if needed]
    found = iter(torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True))
    return tuple(next(found) if needed else None for needed in ctx.wanted.gradients)


class _ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bound: Sliced, factor: float, weights: Tensor | None, parameters: Any,
        *arrays: Any,
    ) -> Tensor:  # fmt: skip
        ctx.bound, ctx.factor, ctx.parameters = bound, factor, parameters
        ctx.wanted = _wanted(ctx, 4)
        # The scores of a slice are at hand: gradients now save a product of matrices later.
        found = bound.run(arrays, weights, factor, ctx.wanted, parameters)
        ctx.gradients = found.gradients
        ctx.save_for_backward(weights, *arrays)
        return found.total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        weights, *arrays = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull = upstream * ctx.factor if weights is None else upstream * ctx.factor * weights
            return (*(None,) * 4, *_through_definition(ctx, tuple(arrays), pull))
        # Handed out once, so that autograd may keep them without a copy; then computed again.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = ctx.bound.run(
                tuple(arrays), weights, ctx.factor, ctx.wanted, ctx.parameters
            ).gradients
        if not (upstream.device.type == "cpu" and upstream.item() == 1.0):
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(upstream)
        return (*(None,) * 4, *gradients)


class _Values(torch.autograd.Function):
    """Unreduced; the scores are computed again when the upstream gradient is known."""

    @staticmethod
    def forward(ctx: Any, bound: Sliced, parameters: Any, *arrays: Any) -> Tensor:
        ctx.bound, ctx.parameters, ctx.wanted = bound, parameters, _wanted(ctx, 2)
        ctx.save_for_backward(*arrays)
        nothing = Wanted((False,) * len(arrays), values=True)
        values = bound.run(arrays, None, 1.0, nothing, parameters).values
        assert values is not None
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        arrays = tuple(ctx.saved_tensors)
        if torch.is_grad_enabled():
            return None, None, *_through_definition(ctx, arrays, upstream)
        weights = upstream.reshape(-1)
        found = ctx.bound.run(arrays, weights, 1.0, ctx.wanted, ctx.parameters)
        return None, None, *found.gradients
