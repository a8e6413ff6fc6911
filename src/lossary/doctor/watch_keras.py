"""The doctor as a Keras callback: ``model.fit(x, y, callbacks=[Watch(x[:512], y[:512])])``."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from lossary.contract import LossError
from lossary.doctor import diagnose
from lossary.doctor.arrays import as_keras_reads, library_of, like, to_numpy
from lossary.doctor.case import Case
from lossary.doctor.chance import same_chance
from lossary.doctor.landmarks import best_constant, floor_of
from lossary.doctor.registry import NotApplicable, all_checks
from lossary.doctor.report import Finding
from lossary.doctor.terms import Term
from lossary.doctor.watch import EVERY, NotFinite, Reading, stalled

_UNTRAINED = ("constant-predictor", "domination", "direction", "label-shift", "collapse")
_TRAINED = ("domination", "all-ignored", "negative-value")


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Examine the model's losses on a few rows before training, then listen.

    ``x`` and ``y`` are some hundred rows of the training data, as ``fit`` takes them; of a model
    with several outputs each is examined. Every ``every`` batches the logged loss is looked at;
    when it is not finite, training ends with a ``NotFinite`` that names row, values, operation and
    fix (``stop=False``: it is reported, and the model stops politely). At the end of each epoch a
    reading tells where the loss stands between constant answer and floor. ``loss`` takes the place
    of the compiled one, for models with a training step of their own.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        loss: Any = None,
        every: int = EVERY,
        stop: bool = True,
        tell: Callable[[str], Any] | None = None,
        **case: Any,
    ) -> None:
        super().__init__()
        self.x, self.y, self.watched_loss, self.case = x, y, loss, case
        self.every, self.stop = max(1, every), stop
        self.findings: dict[str, Finding] = {}
        self.failed: dict[str, str] = {}  # checks that could not run, and why
        self.readings: list[Reading] = []
        self.examined = 0
        self._batches = 0
        self._tell = tell or (lambda text: print(text, file=sys.stderr))

    def _parts(self) -> Iterator[tuple[str, Any, Any, Any]]:
        """(output's name, prediction, target, loss) of every output that has a loss."""
        with same_chance():
            outputs = self.model(self.x, training=False)
        names = list(getattr(self.model, "output_names", None) or ["output"])
        if isinstance(outputs, dict):
            names = list(outputs)
        predictions = [outputs] if hasattr(outputs, "shape") else _by_name(outputs, names)
        loss = self.model.loss if self.watched_loss is None else self.watched_loss
        losses = _by_name(loss, names) if isinstance(loss, (dict, list, tuple)) else None
        targets = _by_name(self.y, names) if len(predictions) > 1 else [_only(self.y)]
        for place, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
            own = loss if losses is None else losses[place]
            if own is not None:
                name = names[place] if len(predictions) > 1 else ""
                yield name, prediction, target, own

    def _cases(self, **more: Any) -> Iterator[tuple[str, Case]]:
        for name, prediction, target, loss in self._parts():
            shown = to_numpy(keras.ops.convert_to_numpy(prediction), "prediction")
            truth = to_numpy(_on_host(target), "y")
            loss = _as_compiled(loss, truth, shown)
            if not isinstance(loss, keras.losses.Loss):  # compile() wraps a function like that
                truth = as_keras_reads(truth, shown.shape, "")
            given = {"prediction": like(shown, "keras"), "target": truth, "loss": loss}
            yield name, Case.of(**given, **_masked(prediction, shown), **{**self.case, **more})

    def _ask(self, only: list[str], **more: Any) -> list[Finding]:
        self.examined += 1
        found = []
        try:
            for name, case in self._cases(**more):
                report = diagnose(case, only=only)
                for check in report.faults.keys() - self.failed.keys():
                    self.failed[check] = report.failed[check]
                    self._tell(f"lossary: {report.faults[check]}")
                for finding in report.findings:
                    where = f"Output {name}: " if name else ""
                    found.append(replace(finding, seen=where + finding.seen))
        except LossError as problem:  # rows that cannot be examined are no reason to end a training
            self._tell(f"lossary: the doctor cannot look at these rows: {problem}")
        for finding in found:
            if finding.check not in self.findings:
                self.findings[finding.check] = finding
                if finding.severity != "note":
                    self._tell(f"lossary: {finding}")
        return found

    def on_train_begin(self, logs: Any = None) -> None:
        """All checks that an untrained model can answer."""
        self._ask([name for name in all_checks() if name not in _UNTRAINED], trained=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Every few batches: is the loss finite?"""
        self._batches += 1
        if self._batches % self.every == 0:
            self._listen(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """A reading on the rows given."""
        self._listen(logs)
        if self.model.stop_training:
            return
        try:
            self._read()
        except (LossError, NotApplicable) as problem:
            self._tell(f"lossary: the doctor cannot read the loss of these rows: {problem}")
        if epoch >= 1:
            self._ask(list(_TRAINED))

    def _read(self) -> None:
        cases = dict(self._cases())
        values = {name: case.value for name, case in cases.items()}
        reading = Reading(self._batches, sum(values.values()))
        if len(cases) > 1:
            reading.terms = {name: Term(value) for name, value in values.items()}
        for case in list(cases.values())[:1] if len(cases) == 1 else ():
            best, keep = best_constant(case), case.counted
            reading.ignored_share = None if keep is None else 1.0 - float(keep.mean())
            reading.constant, reading.floor = best[1] if best else None, floor_of(case)
        if cases:
            self.readings.append(reading)

    def on_train_end(self, logs: Any = None) -> None:
        """Only now, and only when nothing moves any more, is a constant answer a finding."""
        if stalled(self.readings):
            self._ask(["constant-predictor"])

    def _listen(self, logs: Any) -> None:
        value = float((logs or {}).get("loss", 0.0))
        if math.isfinite(value):
            return
        found = self._ask(["nan-post-mortem"])
        told = (
            "\n".join(str(finding) for finding in found)
            or "the rows given do not show why; examine the batch itself"
        )
        text = f"the loss is {value} at batch {self._batches}:\n{told}"
        if self.stop:
            raise NotFinite(text)
        self._tell(f"lossary: {text}")
        self.model.stop_training = True


def _by_name(given: Any, names: list[str]) -> list[Any]:
    """One entry for each output: by the outputs' names or in their order."""
    if isinstance(given, dict):
        return [given.get(name) for name in names]
    return list(given) if isinstance(given, (list, tuple)) else [given] * len(names)


def _only(target: Any) -> Any:
    """The target of a model with one output, which may be wrapped."""
    if isinstance(target, dict) and len(target) == 1:
        return next(iter(target.values()))
    wrapped = isinstance(target, (list, tuple)) and len(target) == 1
    return target[0] if wrapped and hasattr(target[0], "shape") else target


def _on_host(target: Any) -> Any:
    known = library_of(target) in ("keras", "torch", "jax", "tensorflow")
    return keras.ops.convert_to_numpy(target) if known else target


def _masked(prediction: Any, shown: np.ndarray) -> dict[str, Any]:
    """What Embedding(mask_zero=True) or Masking hides: Keras averages over what is left."""
    mask = getattr(prediction, "_keras_mask", None)
    if mask is None:
        return {}
    keep = np.asarray(keras.ops.convert_to_numpy(mask), bool)
    if keep.shape != shown.shape[: keep.ndim] or not keep.any():
        return {}
    return {"mask": keep, "weights": (keep / keep.mean()).astype(shown.dtype)}


def _as_compiled(loss: Any, target: np.ndarray, prediction: np.ndarray) -> Any:
    """The loss that ``compile`` makes of a name or of a function."""
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        sparse = target.shape != prediction.shape and prediction.shape[-1] != 1
        two = prediction.shape[-1] == 1 or prediction.shape == target.shape == (len(target),)
        kind = "binary" if two else "sparse_categorical" if sparse else "categorical"
        loss = f"{kind}_crossentropy"
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss) or library_of(loss) == "keras":
        return loss
    module = getattr(loss, "__module__", None) or ""
    if module.partition(".")[0] == "keras" or not callable(loss):
        return loss

    @functools.wraps(loss)
    def own(y_true: Any, y_pred: Any) -> Any:
        return loss(y_true, y_pred)

    own.__lossary_library__ = "keras"  # type: ignore[attr-defined]
    return own
