"""``Loss`` itself, wrong in exactly one way: the mutants of the checks of its laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossary.contract import Array, Contract
from lossary.cost import Total
from lossary.evaluate import Loss
from lossary.xp import namespace, to_numpy


class CoarseDefault(Loss):
    """What runs by default keeps six digits."""

    def values(self, *arrays: Array, mask: Array | None = None, **named: Array) -> Array:
        factor = 1.0 if self.implementation == "definition" else 1.0 + 1e-6
        return super().values(*arrays, mask=mask, **named) * factor


class MeanOverOneMore(Loss):
    """Divides by n + 1."""

    def __call__(self, *arrays: Array, **named: Any) -> Array:
        total = self.total(*arrays, **named)
        return total.sum / (total.weight + 1.0)


class MaskedUnitsCounted(Loss):
    """Masked units add nothing, but count."""

    def __call__(self, *arrays: Array, mask: Array | None = None, **named: Any) -> Array:
        if mask is None:
            return super().__call__(*arrays, **named)
        values = self.values(*arrays, mask=mask, **named)
        return namespace(values).mean(values)


class TotalOfMean(Loss):
    """The total of a batch is its mean, with weight 1: means of means."""

    def total(self, *arrays: Array, **named: Any) -> Total:
        total = super().total(*arrays, **named)
        return Total(total.sum / total.weight, total.weight / total.weight)


class MaskByMultiplication(Loss):
    """0 times NaN is NaN."""

    def __call__(self, *arrays: Array, mask: Array | None = None, **named: Any) -> Array:
        if mask is None:
            return super().__call__(*arrays, **named)
        values = self.values(*arrays, **named)
        kept = namespace(values).astype(mask, values.dtype)
        return namespace(values).sum(values * kept) / namespace(values).sum(kept)


class IgnoreForgotten(Loss):
    """``ignore`` is taken and forgotten."""

    def __init__(self, loss: Any, *, ignore: float | None = None, **settings: Any) -> None:
        super().__init__(loss, **settings)


class ClassWeightsForgotten(Loss):
    """``class_weights`` are taken and forgotten."""

    def __call__(self, *arrays: Array, class_weights: Array | None = None, **named: Any) -> Array:
        return super().__call__(*arrays, **named)


class GradientOfTheSum(Loss):
    """The value is the mean, the gradient the sum's."""

    def value_and_grad(self, *arrays: Array, **named: Any) -> tuple[Array, Any]:
        gradient: Any
        value, gradient = super().value_and_grad(*arrays, **named)
        return value, gradient * 6.0


class MeanOfNothingIsNan(Loss):
    """0 / 0."""

    def __call__(self, *arrays: Array, **named: Any) -> Array:
        total = self.total(*arrays, **named)
        with np.errstate(invalid="ignore"):
            return np.divide(total.sum, total.weight)


class AlwaysDouble(Loss):
    """Results are float64, whatever came."""

    def values(self, *arrays: Array, mask: Array | None = None, **named: Array) -> Array:
        return to_numpy(super().values(*arrays, mask=mask, **named)).astype(np.float64)


class ComputesInHalf(Loss):
    """Half precision is rounded at every step."""

    def values(self, *arrays: Array, mask: Array | None = None, **named: Array) -> Array:
        given = [*arrays, *named.values()]
        if given[0].dtype != np.float16:
            return super().values(*arrays, mask=mask, **named)
        residual = given[0] - given[1]
        return residual * residual * np.float16(1.001)


class ReprForgetsReduction(Loss):
    """The reduction is not printed."""

    def __repr__(self) -> str:
        return f"Loss({self.contract.name!r})"


class ConfigForgetsEmpty(Loss):
    """One setting is not stored."""

    @property
    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config.items() if key != "empty"}


class PickleForgetsReduction(Loss):
    """Comes back with the default reduction."""

    def __reduce__(self) -> Any:
        return (_made, (type(self), self.contract.name, dict(self.parameters)))


def _made(kind: type[Loss], name: str, parameters: Mapping[str, Any]) -> Loss:
    return kind(name, **parameters)


class HashOfIdentity(Loss):
    """Equal losses hash unlike."""

    def __hash__(self) -> int:
        return id(self)


class AnyParameterGoes(Loss):
    """Values outside their interval are taken."""

    def __init__(self, loss: Any, **settings: Any) -> None:
        assert isinstance(loss, Contract)
        super().__init__(loss)
        object.__setattr__(self, "parameters", settings)
