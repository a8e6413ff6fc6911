"""Everything the doctor may be told about one loss in use; checks take what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from lossary.contract import Contract, LossError, contract_of
from lossary.doctor.arrays import (
    Summary,
    as_keras_reads,
    dtype_name,
    library_of,
    row_deviation,
    summarize,
    to_numpy,
)
from lossary.doctor.companions import check_companions
from lossary.doctor.identify import subject_of
from lossary.doctor.registry import NotApplicable, need
from lossary.doctor.sample import batch_of
from lossary.doctor.subject import Subject

UNIT_TOLERANCE = {"float16": 5e-3, "bfloat16": 2e-2}


def _rows(value: Any, name: str) -> np.ndarray:
    """An array with rows: a single number is one row."""
    return np.atleast_1d(to_numpy(value, name))


@dataclass
class Case:
    """Arrays, the loss and, where known, how training uses them. All but the arrays is optional.

    ``prediction``: one array, or a tuple or mapping of them in the loss's order. ``target``: the
    labels or values. ``loss``: a name, a ``Loss``, or any callable. ``predictions`` says how
    predictions arrive (``"logits"``, ``"probabilities"``, ``"log_probabilities"``) where the loss
    does not know. ``reference`` names the Lossary loss that a callable of yours means to be.
    """

    prediction: Any = None
    target: Any = None
    loss: Any = None
    weights: Any = None
    class_weights: Any = None
    mask: Any = None  # True where a unit counts
    arguments: str | None = None  # "prediction,target" or "target,prediction"; None: by their names
    predictions: str | None = None
    reference: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    axis: int | None = None
    ignore: int | None = None
    # How training uses the loss.
    batch_size: int | None = None
    accumulation: int | None = None  # micro-batches whose means are averaged
    counts: Sequence[int] | None = None  # units that count in each micro-batch or rank
    combine: str = "mean"  # of the micro-batches' means: "mean" or "count"
    ranks: int | None = None
    gather: str = "detached"  # how other ranks' embeddings arrive: "detached", "gradient", "scaled"
    sequence: bool | None = None  # a language model: logits (batch, time, vocabulary)
    # CTC.
    lengths: Any = None
    target_lengths: Any = None
    blank: int = 0
    # Gradients that the user computed.
    gradient: Any = None
    hessian: Any = None
    # What training logged.
    history: Sequence[float] | None = None
    validation_history: Sequence[float] | None = None
    metric_history: Sequence[float] | None = None
    metric_goal: str = "max"
    regularization: float | None = None  # the share of the training loss that is a penalty
    terms: Any = None  # an Objective, or {name: Term}
    margin: float | None = None
    variance: Any = None
    # For forecasts without arrays.
    shape: Sequence[int] | None = None
    dtype: str | None = None
    memory: float | None = None  # bytes of the device
    epsilon: float | None = None
    trained: bool | None = None  # None: unknown

    @classmethod
    def of(cls, **given: Any) -> Case:
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise LossError(
                f"examine() has no argument {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        case = cls(**given)
        order = (case.arguments or "prediction,target").replace(" ", "")
        if order not in ("prediction,target", "target,prediction"):
            raise LossError(
                f"arguments={case.arguments!r}; expected 'prediction,target' or 'target,prediction'"
            )
        contract = case.subject.contract if case.subject else None
        if (
            contract
            and contract.target is None
            and len(contract.predictions) > 1
            and case.target is not None
        ):
            # A loss between predictions, such as info_nce(queries, keys): the second is no target.
            case = cls(**{**given, "prediction": (case.prediction, case.target), "target": None})
        case._check()
        return case

    def _check(self) -> None:
        for name in ("prediction", "target"):
            if getattr(self, name) is not None:
                array = self.arrays[0] if name == "prediction" else self.target_array
                if array is not None and array.size == 0:
                    raise LossError(
                        f"{name} is empty, shape {array.shape}; there is nothing to examine"
                    )
        first = self.arrays[0] if self.arrays else None
        check_companions(vars(self), first, self.target_array, classes=self.class_scores)

    # The arrays.

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """Every prediction by the name that the loss gives it, in its order."""
        given = self.prediction
        names = self.subject.contract.predictions if self.subject and self.subject.contract else ()
        if given is None:
            return {}
        if isinstance(given, Mapping):
            missing = [name for name in names if name not in given]
            if missing and len(names) > 1:
                raise LossError(
                    f"{self.known.name} needs predictions {', '.join(names)}; "
                    f"{missing[0]!r} is missing"
                )
            return {name: _rows(given[name], name) for name in (names if not missing else given)}
        if isinstance(given, (tuple, list)) and len(given) and hasattr(given[0], "shape"):
            labels = [*names, *(f"prediction{i}" for i in range(len(names), len(given)))]
            return {label: _rows(array, label) for label, array in zip(labels, given, strict=False)}
        return {names[0] if names else "prediction": _rows(given, "prediction")}

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(self.inputs.values())

    @property
    def predicted(self) -> np.ndarray:
        """The first prediction."""
        need(self.arrays, "predictions")
        return self.arrays[0]

    @cached_property
    def target_array(self) -> Any:
        if self.target is None:
            return None
        target = _rows(self.target, "target")
        if self.subject is not None and self.subject.as_keras and len(self.arrays) == 1:
            space = self.subject.contract.target if self.subject.contract else None
            return as_keras_reads(target, self.arrays[0].shape, space.name if space else "")
        return target

    @property
    def truth(self) -> np.ndarray:
        need(self.target is not None, "targets")
        truth: np.ndarray = self.target_array
        return truth

    @cached_property
    def mask_array(self) -> Any:
        mask = self._companion("mask")
        return None if mask is None else mask.astype(bool)

    @cached_property
    def weights_array(self) -> Any:
        return self._companion("weights")

    def _companion(self, name: str) -> Any:
        """Weights or a mask; one number counts for all rows."""
        if getattr(self, name) is None:
            return None
        array = to_numpy(getattr(self, name), name)
        one = array.ndim == 0 and self.arrays
        return np.broadcast_to(array, self.arrays[0].shape[:1]) if one else array

    @cached_property
    def class_weights_array(self) -> Any:
        if self.class_weights is not None:
            return to_numpy(self.class_weights, "class_weights")
        own = getattr(self.subject.callable, "weight", None) if self.subject else None
        return None if own is None or not hasattr(own, "shape") else to_numpy(own, "class weights")

    @property
    def _first(self) -> Any:
        """The first prediction as it came."""
        first = self.prediction
        if isinstance(first, Mapping):
            return next(iter(first.values()), None)
        if isinstance(first, (tuple, list)) and len(first) and hasattr(first[0], "dtype"):
            return first[0]
        return first

    @property
    def prediction_dtype(self) -> str:
        return self.dtype or dtype_name(self._first)

    # The loss.

    @cached_property
    def library(self) -> str:
        """The library of the predictions."""
        return library_of(self._first)

    @cached_property
    def subject(self) -> Subject | None:
        parameters = dict(self.parameters)
        if (
            isinstance(self.loss, str)
            and self.axis is not None
            and "axis" in contract_of(self.loss).parameters
        ):
            parameters.setdefault("axis", self.axis)
        found = subject_of(
            self.loss,
            predictions=self.predictions,
            arguments=self.arguments,
            reference=self.reference,
            library=self.library,
            parameters=parameters,
            ignore=self.ignore,
        )
        if found is not None:
            found.device = getattr(self._first, "device", None) if self.library == "torch" else None
        return found

    @property
    def known(self) -> Subject:
        if self.subject is None:
            raise NotApplicable("a loss")
        return self.subject

    @property
    def foreign(self) -> Subject:
        """A callable of the user's; Lossary's own losses are proved by Lossary's tests."""
        if self.subject is None or self.subject.own:
            raise NotApplicable("a loss callable of your own")
        return self.subject

    @property
    def contract(self) -> Contract:
        """What the loss demands and promises, where it is known."""
        if self.subject is None or self.subject.contract is None:
            raise NotApplicable("a loss whose contract is known")
        return self.subject.contract

    @property
    def reads(self) -> str | None:
        return self.subject.reads if self.subject else None

    @property
    def class_scores(self) -> bool:
        """Whether the loss reads one score per class."""
        return self.reads in ("class logits", "simplex", "log simplex")

    @property
    def binary_scores(self) -> bool:
        return self.reads in ("logit", "probability", "log probability")

    @property
    def ignored(self) -> int | None:
        if self.ignore is not None or self.subject is None:
            return self.ignore
        kind = dtype_name(self.target)
        if self.subject.framework == "torch" and "float" in kind:
            return None  # PyTorch ignores labels, never distributions
        return self.subject.ignore

    @property
    def class_axis(self) -> int:
        """The axis of class scores that the loss reads, as a nonnegative number."""
        axis, shape = self.axis, self.predicted.shape
        if axis is None and self.subject:
            axis = self.subject.parameters.get("axis")
            if axis is None and self.subject.library == "torch" and not self.subject.own:
                axis = 1
                fits = self.target is not None and shape[:-1] == self.truth.shape
                if self.subject.contract is None and fits and shape[:1] + shape[2:] != shape[:-1]:
                    axis = -1  # code of the user's own, which may keep classes last
        axis = -1 if axis is None else axis
        rank = len(shape)
        need(-rank <= axis < rank, "a class axis")
        return axis % rank

    @property
    def classes(self) -> int:
        need(self.class_scores, "a loss over classes")
        return int(self.predicted.shape[self.class_axis])

    @cached_property
    def index_target(self) -> bool:
        """Whether the target holds class numbers: one axis fewer than the class scores."""
        shape = list(self.predicted.shape)
        del shape[self.class_axis]
        return tuple(shape) == self.truth.shape and self.truth.shape != self.predicted.shape

    # What counts, and summaries of one pass.

    @cached_property
    def counted(self) -> Any:
        """True where a target counts: the mask, and labels that are not ignored; None: all."""
        keep = self.mask_array
        if self.target is None:
            return keep
        if keep is not None and keep.shape != self.truth.shape[: keep.ndim]:
            # One entry for each unit of soft labels, which have an axis of classes besides.
            shape, axis = self.truth.shape, self.class_axis
            need(keep.shape == shape[:axis] + shape[axis + 1 :], "a mask of the target's shape")
            keep = np.broadcast_to(np.expand_dims(keep, axis), shape)
        if self.ignored is not None:
            here = self.truth != self.ignored
            if not here.all():
                if keep is not None:
                    here &= keep.reshape(keep.shape + (1,) * (here.ndim - keep.ndim))
                keep = here
        return keep

    @cached_property
    def prediction_summary(self) -> Summary:
        return summarize(self.predicted)

    @cached_property
    def target_summary(self) -> Summary:
        return summarize(self.truth, self.counted)

    @property
    def unit_tolerance(self) -> float:
        return UNIT_TOLERANCE.get(self.prediction_dtype, 1e-3)

    def rows_sum_to_one(self, *, exponential: bool = False) -> bool:
        """Whether every row over the class axis is a distribution (or its logarithm)."""
        summary = self.prediction_summary
        if summary.nan or (summary.infinite and not exponential):
            return False
        if exponential and summary.high > self.unit_tolerance:
            return False
        if not exponential and (
            summary.low < -self.unit_tolerance or summary.high > 1 + self.unit_tolerance
        ):
            return False
        tolerance = self.unit_tolerance
        return (
            row_deviation(
                self.predicted, self.class_axis, exponential=exponential, tolerance=tolerance
            )
            <= tolerance
        )

    # Trying the loss.

    @cached_property
    def batch(self) -> dict[str, Any]:
        """Some rows of everything, to call the loss with: ``subject(**case.batch)``."""
        return batch_of(self)

    @property
    def options(self) -> dict[str, Any]:
        """The batch's weights and mask, where there are any."""
        return {key: self.batch[key] for key in ("weights", "mask") if self.batch[key] is not None}

    @cached_property
    def attempt(self) -> tuple[float | None, str]:
        """The loss of the batch, or the one line that says why it has none."""
        try:
            batch = self.batch
            return self.known(batch["prediction"], batch["target"], **self.options), ""
        except LossError as error:
            return None, str(error)

    @property
    def value(self) -> float:
        """The loss on the batch; a check that needs it is skipped when the loss does not run."""
        need(self.subject is not None, "a loss")
        number, problem = self.attempt
        if number is None:
            raise NotApplicable(f"a loss that runs on these arrays ({problem})")
        return number

    def line(self, default: str, **by_library: str) -> str:
        """The line of code to change, in the user's framework."""
        library = self.subject.library if self.subject and not self.subject.own else self.library
        return by_library.get(library, default)
