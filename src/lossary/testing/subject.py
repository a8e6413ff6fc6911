"""The loss under test: its contract, its oracle, its samples, and what was computed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lossary.contract import Contract
from lossary.evaluate import Loss
from lossary.testing.everyday import plain_batch
from lossary.testing.libraries import Library
from lossary.testing.oracle import Oracle, Truth, truth_of
from lossary.testing.precision import DTYPES, Exact
from lossary.testing.samples import Batch, Sample, hard_samples
from lossary.testing.settings import parameter_sets

ROWS = 6


class CheckFailed(AssertionError):  # noqa: N818 - reads as what it is
    """A check found the loss wrong; the message says where and by how much."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A loss to be checked.

    ``oracle`` is its formula in mpmath; without one, the float64 result is the reference for
    float32. ``parameter_sets`` are the parameter values to check at, the first being the main ones;
    by default they are made from the parameters' intervals. ``make`` builds the loss from its
    contract (a mutant of ``Loss`` goes here). ``forms`` are the oracles of forms of the prediction
    in which the loss is another function, such as log-probabilities that are not normalised.
    """

    contract: Contract
    oracle: Oracle | None = None
    parameter_sets: Sequence[Mapping[str, Any]] = ()
    make: type[Loss] = Loss
    forms: Mapping[str, Oracle] = field(default_factory=dict)
    _computed: dict[Any, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The loss's name."""
        return self.contract.name

    @property
    def unit(self) -> str:
        """The name of the contract's unit; element where a user's function does not say."""
        return self.contract.unit.name if self.contract.unit else "element"

    @property
    def layouts(self) -> set[str]:
        """How the inputs are arranged."""
        return {space.layout for space in self.contract.inputs.values()}

    @property
    def independent(self) -> bool:
        """Whether one unit's value depends on that unit's inputs alone."""
        return self.unit in ("element", "sample", "region") and not self.contract.learned

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """Checked parameter values, completed by the defaults; the main ones first."""
        chosen = [dict(given) for given in self.parameter_sets] or parameter_sets(self.contract)
        return [self.contract.check_parameters(given) for given in chosen]

    @property
    def main(self) -> dict[str, Any]:
        """The main parameter values."""
        return self.settings[0]

    def loss(self, parameters: Mapping[str, Any] | None = None, **settings: Any) -> Loss:
        """The loss at these parameter values (default: the main ones); made once."""
        given = settings | dict(self.main if parameters is None else parameters)
        key = ("loss", repr(given))
        if key not in self._computed:
            self._computed[key] = self.make(self.contract, **given)
        return self._computed[key]

    def rows(self, library: Library) -> int:
        """How many units batches have: as many as the main sample for eager JAX, else six.

        Eager JAX compiles every operation anew for each size of batch.
        """
        if library.name == "jax" and self.independent:
            return max(len(array) for array in self.samples[0].arrays.values())
        return ROWS

    def batch(
        self,
        library: Library,
        dtype: str = "float64",
        *,
        parameters: Mapping[str, Any] | None = None,
        rows: int | None = None,
        soft: bool = False,
    ) -> Batch:
        """An everyday batch, by default at the main parameter values."""
        given = self.main if parameters is None else parameters
        rows = self.rows(library) if rows is None else rows
        return as_dtype(plain_batch(self.contract, given, rows=rows, soft=soft), dtype)

    @cached_property
    def samples(self) -> list[Sample]:
        """The hard batches at every setting; the main one first."""
        return [
            sample
            for given in self.settings
            for sample in hard_samples(self.contract, given, thin=given is not self.main)
        ]

    def truth(self, sample: Sample) -> Truth:
        """The oracle's word on a sample; computed once."""
        key = ("truth", id(sample))
        if key not in self._computed:
            assert self.oracle is not None
            self._computed[key] = truth_of(
                self.contract, self.oracle, sample.arrays, sample.parameters
            )
        return self._computed[key]

    def computed(
        self, library: Library, sample: Sample, dtype: str
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Values and gradients of a sample in one library and dtype; computed once."""
        key = (library.name, id(sample), dtype)
        if key not in self._computed:
            # torch.compile takes longest, so it makes one program for both precisions; not of
            # class indices: from such programs Inductor 2.13 can lose what was scattered by them.
            both = library.name == "torch-compile" and "class" not in self.layouts
            dtypes = DTYPES if both else (dtype,)
            batches = [self.filled(library, as_dtype(sample.arrays, each)) for each in dtypes]
            # The definition; what stands in for it has a check of its own.
            run = self.loss(sample.parameters, implementation="definition").values
            if library.differentiates:
                found = library.of_each(run, batches, self.contract.predictions)
            else:
                found = [(library.values(run, arrays), {}) for arrays in batches]
            for each, (values, gradients) in zip(dtypes, found, strict=True):
                self._computed[*key[:2], each] = self.cut(sample, values, gradients)
        return self._computed[key]

    def filled(self, library: Library, arrays: Batch) -> Batch:
        """The units of a sample, for eager JAX repeated to as many as all batches have."""
        if library.name != "jax" or not self.independent:
            return arrays
        rows = np.arange(self.rows(library))
        return {name: array[rows % len(array)] for name, array in arrays.items()}

    def cut(
        self, sample: Sample, values: np.ndarray, gradients: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What was computed of a filled sample, for the sample's own units."""
        if not self.independent:
            return values, dict(gradients)
        rows = len(next(iter(sample.arrays.values())))
        return values[:rows], {name: gradient[:rows] for name, gradient in gradients.items()}

    def reference(self, library: Library, sample: Sample) -> Truth:
        """Without an oracle: the float64 result, and how far float32's roundings move it."""
        values, gradients = self.computed(library, sample, "float64")
        moves = []
        rng = np.random.default_rng(5)
        for _ in range(4):
            moved = dict(sample.arrays)
            for name, array in sample.arrays.items():
                if array.dtype.kind == "f" and not self.contract.inputs[name].integral:
                    signs = rng.choice([-1.0, 1.0], array.shape)
                    interval = self.contract.inputs[name].interval
                    bounds = (interval.low, interval.high)
                    moved[name] = np.clip(array * (1 + 2.0**-23 * signs), *bounds)
            run = self.loss(sample.parameters).values
            if library.differentiates:
                moves.append(library.values_and_gradients(run, moved, self.contract.predictions))
            else:
                moves.append((library.values(run, moved), {}))

        def exact(value: np.ndarray, others: list[np.ndarray]) -> Exact:
            with np.errstate(invalid="ignore"):
                spread = 2 * np.max([np.abs(other - value) for other in others], axis=0)
            spread = np.where(np.isfinite(spread), spread, 0.0)
            nothing = np.zeros(np.shape(value))
            return Exact(np.asarray(value), nothing, {"float32": spread, "float64": nothing})

        slopes = {
            name: exact(gradient, [other[1][name] for other in moves])
            for name, gradient in gradients.items()
        }
        return Truth(
            exact(values, [other[0] for other in moves]),
            {name: (slope, slope) for name, slope in slopes.items()},
        )


def as_dtype(arrays: Mapping[str, np.ndarray], dtype: str) -> Batch:
    """Real arrays in this dtype; indices and labels stay."""
    return {
        name: array.astype(dtype) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """``delta=1.0, axis=-1``."""
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "no parameters"
