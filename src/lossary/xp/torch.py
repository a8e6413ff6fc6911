# mypy: disable-error-code="name-defined"
"""PyTorch by the array API standard, through array-api-compat."""

from typing import Any

from array_api_compat.torch import *  # noqa: F403
from torch import Tensor, clamp, clone, cumsum, gather, lgamma, library, nn, ops
from torch import expm1 as _expm1
from torch import sign as _sign
from torch import squeeze as _squeeze
from torch._C import _are_functorch_transforms_active as _transforming
from torch.compiler import is_compiling

_PLAIN = (Tensor, nn.Parameter)
_DENSE = Tensor().layout


def signature(
    arrays: tuple[Any, ...], same: Any = None, beside: tuple[Any, ...] = ()
) -> tuple[Any, ...] | None:
    """As ``xp.signature``, for arrays of which the first is a plain tensor: every call asks."""
    if is_compiling() or _transforming():
        return None
    key: tuple[Any, ...] = ()
    for array in arrays:
        if type(array) not in _PLAIN or array.layout is not _DENSE or array.is_nested:
            return None
        key += (array.dtype, array.shape, array.is_cpu, array.is_contiguous())
    if same is not None:
        if type(same) not in _PLAIN or same.requires_grad:
            return None
        try:
            key += (id(same), same._version)
        except RuntimeError:  # made in inference mode, where changes are not counted
            return None
    for place, array in enumerate(beside):
        if array is not None:
            if type(array) not in _PLAIN or array.layout is not _DENSE or array.requires_grad:
                return None
            key += (place, array.dtype, array.shape, array.is_cpu, array.is_nested)
    return key


def stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


# Opaque to the compiler, which would write the expression out again wherever it is used.
_OPERATIONS = library.Library("lossary", "FRAGMENT")  # type: ignore[no-untyped-call]
_OPERATIONS.define("computed_once(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
_OPERATIONS.impl("computed_once", clone, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
library.register_autograd("lossary::computed_once", lambda context, slope: computed_once(slope))


def computed_once(x: Tensor) -> Tensor:
    if is_compiling() and not _transforming():
        return ops.lossary.computed_once(x)
    return x


def cumulative_sum(x: Tensor, *, axis: int = -1) -> Tensor:
    """Not array-api-compat's, at whose caches torch.compile warns."""
    return cumsum(x, dim=axis)


def log_gamma(x: Tensor) -> Tensor:
    return lgamma(x)


def expm1(x: Tensor) -> Tensor:
    """With its digits near 0 in compiled code too, where torch's becomes exp(x) - 1.

    There (e^x - 1) x / log(e^x) (Kahan), whose roundings of e^x cancel, with the derivative e^x.
    """
    if not is_compiling():
        return _expm1(x)
    power = exp(x)
    rounded = power.detach()
    gap = rounded - 1.0
    inside = (gap != 0) & (abs(x.detach()) < 1.0)
    ratio = where(inside, x.detach(), 1.0) / log(where(inside, rounded, 2.718281828459045))
    value = where(gap == 0, x.detach(), gap * ratio)
    return value + (power - where(isfinite(rounded), rounded, 0.0))


def squeeze(x: Tensor, axis: Any) -> Tensor:
    """Without the compatibility layer's sorting of axes, which torch.compile cannot trace."""
    return _squeeze(x, axis)


def clip(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """Without the compatibility layer's test for NaN bounds: a dynamic number cannot be asked."""
    return x if low is None and high is None else clamp(x, low, high)


def sign(x: Tensor) -> Tensor:
    """Without boolean indexing, which vmap refuses and which makes a GPU wait; NaN stays NaN."""
    return where(isnan(x), x, _sign(x))


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """torch gathers by int64 indices only; and take_along_dim would fix the sizes of a graph."""
    sizes = list(x.shape)
    sizes[axis] = indices.shape[axis]
    return gather(x, axis, indices.long().expand(sizes))


def isdtype(dtype: Any, kind: Any) -> Any:
    """The standard's test of a dtype's kind, in a form that torch.compile can trace."""
    if isinstance(kind, tuple):
        return True in [isdtype(dtype, item) for item in kind]
    if kind == "real floating":
        return dtype.is_floating_point
    if kind == "complex floating":
        return dtype.is_complex
    if kind == "bool":
        return str(dtype) == "torch.bool"
    if kind == "integral":
        return not (dtype.is_floating_point or dtype.is_complex or str(dtype) == "torch.bool")
    return dtype == kind
