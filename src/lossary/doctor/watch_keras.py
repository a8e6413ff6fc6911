"""The doctor as a Keras callback: ``model.fit(x, y, callbacks=[Watch(x[:512], y[:512])])``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras

from lossary.doctor import diagnose
from lossary.doctor.arrays import to_numpy
from lossary.doctor.case import Case
from lossary.doctor.landmarks import best_constant, floor_of
from lossary.doctor.registry import all_checks
from lossary.doctor.report import Finding
from lossary.doctor.watch import EVERY, NotFinite, Reading, stalled

_UNTRAINED = ("constant-predictor", "domination", "direction", "label-shift", "collapse")
_TRAINED = ("domination", "all-ignored", "negative-value")


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Examine the model's loss on a few rows before training, then listen.

    ``x`` and ``y`` are some hundred rows of the training data. Every ``every`` batches the logged
    loss is looked at; when it is not finite, training ends with a ``NotFinite`` that names row,
    values, operation and fix (``stop=False``: it is reported, and the model stops politely). At
    the end of each epoch a reading tells where the loss stands between constant answer and floor.
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
        self.x, self.y, self.watched_loss, self.every, self.stop, self.case = (
            x,
            y,
            loss,
            max(1, every),
            stop,
            case,
        )
        self.findings: dict[str, Finding] = {}
        self.readings: list[Reading] = []
        self.examined = 0
        self._batches = 0
        self._tell = tell or (lambda text: print(text, file=sys.stderr))

    def _as_case(self, **more: Any) -> Case:
        prediction = to_numpy(
            keras.ops.convert_to_numpy(self.model(self.x, training=False)), "prediction"
        )
        loss = self.watched_loss if self.watched_loss is not None else self.model.loss
        if isinstance(loss, str):
            loss = keras.losses.get(loss)
        return Case.of(
            **{
                "prediction": prediction,
                "target": to_numpy(self.y, "y"),
                "loss": loss,
                **self.case,
                **more,
            }
        )

    def _ask(self, only: list[str], **more: Any) -> list[Finding]:
        self.examined += 1
        found = list(diagnose(self._as_case(**more), only=only).findings)
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
        case = self._as_case()
        best = best_constant(case)
        share = None if case.counted is None else 1.0 - float(case.counted.mean())
        self.readings.append(
            Reading(self._batches, case.value, share, best[1] if best else None, floor_of(case))
        )
        if epoch >= 1:
            self._ask(list(_TRAINED))

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
