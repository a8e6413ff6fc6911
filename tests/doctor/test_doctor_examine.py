"""``examine`` on live arrays and callables of every kind; bad callables; reports."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import lossary
import lossary.doctor
from lossary import Loss, LossError, examine
from lossary.doctor import could_not_run  # before the fixture replaces it
from lossary.doctor.cases import data as d


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy",
        "CrossEntropyLoss",
        Loss("cross_entropy"),
        lossary.losses.cross_entropy if hasattr(lossary, "losses") else "cross_entropy",
    ],
)
def test_every_way_to_name_a_loss(loss: Any) -> None:
    assert examine(d.softmax(d.logits), d.classes, loss=loss).named("double-softmax")
    assert not examine(d.logits, d.classes, loss=loss).findings


@pytest.mark.parametrize(
    "to", [np.asarray, torch.tensor, jnp.asarray, lambda a: np.asarray(a).tolist()]
)
def test_arrays_of_every_library(to: Any) -> None:
    report = examine(to(d.softmax(d.logits)), to(d.classes), loss="cross_entropy")
    assert report.named("double-softmax")
    assert report.exit_code == 1


def test_the_fix_speaks_the_users_framework() -> None:
    torch_fix = examine(
        torch.tensor(d.softmax(d.logits)), torch.tensor(d.classes), loss=torch.nn.CrossEntropyLoss()
    )
    assert "nn.Softmax" in torch_fix.named("double-softmax").fix  # type: ignore[union-attr]
    own = examine(d.softmax(d.logits), d.classes, loss="cross_entropy").named("double-softmax")
    assert 'predictions="probabilities"' in own.fix  # type: ignore[union-attr]


def test_functional_losses_of_frameworks() -> None:
    nll = torch.nn.functional.nll_loss
    assert examine(d.logits, d.classes, loss=nll).named("logits-as-probabilities")
    assert not examine(d.log_softmax(d.logits), d.classes, loss=nll).named(
        "logits-as-probabilities"
    )
    bce = torch.nn.functional.binary_cross_entropy
    assert examine(d.binary_logits, d.binary, loss=bce).named("logits-as-probabilities")
    import optax

    function = optax.softmax_cross_entropy_with_integer_labels
    assert examine(jnp.asarray(d.softmax(d.logits)), jnp.asarray(d.classes), loss=function).named(
        "double-softmax"
    )
    assert not examine(jnp.asarray(d.logits), jnp.asarray(d.classes), loss=function).errors


def test_keras_losses() -> None:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy
    assert examine(d.logits, d.classes, loss=loss()).named("logits-as-probabilities")
    assert examine(d.softmax(d.logits), d.classes, loss=loss(from_logits=True)).named(
        "double-softmax"
    )
    for right in (
        loss(from_logits=True),
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
    ):
        target = (
            d.classes
            if "Sparse" in type(right).__name__
            else np.eye(10)[d.classes].astype("float32")
        )
        report = examine(d.logits.astype("float32"), target, loss=right)
        assert report.exit_code == 0, report
    report = examine(
        d.estimate.astype("float32"), d.truth.astype("float32"), loss=keras.losses.Huber(delta=2.0)
    )
    assert report.exit_code == 0, report


CORRECT = [
    (torch.nn.MSELoss(), "estimate", "truth"),
    (torch.nn.L1Loss(), "estimate", "truth"),
    (torch.nn.HuberLoss(delta=0.7), "estimate", "truth"),
    (torch.nn.SmoothL1Loss(beta=0.5), "estimate", "truth"),
    (torch.nn.MSELoss(reduction="sum"), "estimate", "truth"),
    (torch.nn.CrossEntropyLoss(label_smoothing=0.1), "logits", "classes"),
    (
        torch.nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 10, dtype=torch.float64)),
        "logits",
        "classes",
    ),
    (torch.nn.MultiMarginLoss(), "logits", "classes"),
    (torch.nn.BCEWithLogitsLoss(), "binary_logits", "binary"),
]


@pytest.mark.parametrize(
    ("loss", "prediction", "target"), CORRECT, ids=lambda value: str(value)[:40]
)
def test_quiet_on_the_losses_of_pytorch(loss: Any, prediction: str, target: str) -> None:
    report = examine(
        torch.tensor(getattr(d, prediction)), torch.tensor(getattr(d, target)), loss=loss
    )
    assert report.exit_code == 0, report


def raises(prediction: Any, target: Any) -> Any:
    raise RuntimeError("a long\nstory")


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (raises, "raised RuntimeError: a long"),
        (lambda p, t: (p.mean(), t.mean()), "returned a tuple"),
        (lambda p, t: None, "returned a NoneType"),
        (lambda p, t: "text", "not numeric"),
        (lambda p: p.mean(), "raised TypeError"),
        (lambda p, t: p[:7] - t[:7], "returned an array of shape (7,)"),
        (lambda p, t: np.nan * p.mean(), "nan"),
    ],
)
def test_bad_callables_are_findings(loss: Any, seen: str) -> None:
    report = examine(d.estimate, d.truth, loss=loss)
    assert report.exit_code == 1
    assert any(seen in finding.seen for finding in report.findings), report


def test_single_numbers_and_single_rows() -> None:
    assert examine(torch.tensor(1.0), torch.tensor(2.0), loss=torch.nn.MSELoss()).errors == ()
    assert examine(1.0, 2.0, loss="mse").errors == ()
    assert examine(d.logits[:1], d.classes[:1], loss="cross_entropy").errors == ()


def test_inputs_are_never_changed() -> None:
    before = d.estimate.copy()
    examine(d.estimate, d.truth, loss=d.changes_its_input)
    np.testing.assert_array_equal(before, d.estimate)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"prediction": np.zeros((0, 3)), "target": np.zeros(0)}, "empty"),
        ({"prediction": [[1, 2], [3]], "target": [1, 2]}, "ragged"),
        ({"prediction": np.array(["a", "b"]), "target": np.zeros(2)}, "not numeric"),
        ({"prediction": d.logits, "target": d.classes, "loss": "crossentropi"}, "cross_entropy"),
        ({"prediction": d.logits, "target": d.classes, "loss": 3}, "neither"),
        ({"prediction": d.logits, "target": d.classes, "lost": 3}, "lost"),
        ({"prediction": d.logits, "target": d.classes, "arguments": "y,p"}, "arguments"),
    ],
)
def test_bad_input_is_one_line(given: dict[str, Any], word: str) -> None:
    with pytest.raises(LossError, match=word) as caught:
        examine(**given)
    assert "\n" not in str(caught.value)


def test_arrays_that_the_loss_refuses_are_reported() -> None:
    report = examine(d.logits, d.truth[:100], loss="cross_entropy")
    assert report.exit_code == 1
    assert examine(d.anchors, d.positives[:, :3], loss="info_nce").exit_code == 1


def test_a_check_that_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on; the text and the JSON name it; findings decide the exit code."""

    def broken(case: Any) -> Any:
        raise IndexError("a long\nstory")

    kept = lossary.doctor.CHECKS["label-range"]
    monkeypatch.setitem(lossary.doctor.CHECKS, "label-range", replace(kept, ask=broken))
    with pytest.raises(IndexError):  # in these tests it is a failure
        examine(d.logits, d.classes, loss="cross_entropy")
    monkeypatch.setattr(lossary.doctor, "could_not_run", could_not_run)
    report = examine(d.softmax(d.logits), d.classes, loss="cross_entropy")
    assert report.failed == {"label-range": "IndexError: a long story"}
    assert report.named("double-softmax")
    assert "label-range" not in report.fine
    assert "check label-range could not run: IndexError: a long story" in str(report)
    assert json.loads(report.to_json())["failed"] == report.failed
    assert examine(d.logits, d.classes, loss="cross_entropy").exit_code == 0


def test_order_of_findings_and_json() -> None:
    report = examine(d.binary_logits, 255 * d.binary, loss="binary_cross_entropy")
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert '"check": "target-range"' in report.to_json()
    assert not examine(d.logits, d.classes, loss="cross_entropy", only=["floor"]).not_applicable


_ones, _table = np.ones, np.arange(1200.0).reshape(300, 4) % 7
MISFITS: dict[str, dict[str, Any]] = {
    "single numbers": {"prediction": np.array(True), "target": np.array(1), "mask": np.array(True),
                       "accumulation": 3, "loss": "hinge_embedding"},
    "rows against one number": {"prediction": _ones(6), "target": _ones((1, 1)),
                                "mask": _ones(6, bool), "loss": "squared_hinge"},
    "a mask of the prediction": {"prediction": _table, "target": _ones((12, 8, 8)),
                                 "mask": _ones((300, 4), bool), "loss": "binary_cross_entropy"},
    "yes and no as scores": {"prediction": np.eye(2, dtype=bool), "target": np.array([0, 1]),
                             "loss": "cross_entropy"},
    "infinite targets": {"prediction": _ones(8), "target": np.full(8, np.inf),
                         "class_weights": _ones(8), "loss": "mse"},
    "images for embeddings": {"prediction": (_ones((12, 8, 8)), _ones((12, 8, 8))),
                              "ranks": 4, "loss": "siglip"},
    "one target for all": {"prediction": torch.rand(64), "target": torch.tensor(1.0),
                           "gradient": _ones(64), "loss": torch.nn.BCELoss()},
    "more targets than scores": {"prediction": torch.rand(2, 2), "target": torch.ones(1, 64),
                                 "ignore": 1, "loss": torch.nn.MultiMarginLoss()},
    "whole rates": {"prediction": torch.full((300, 4), 1000), "target": torch.ones(300, 4),
                    "loss": torch.nn.PoissonNLLLoss()},
    "two precisions": {"prediction": torch.full((8, 5), torch.nan, dtype=torch.float64),
                       "target": torch.ones(8, 5), "loss": torch.nn.HuberLoss()},
}  # fmt: skip


@pytest.mark.parametrize("label", MISFITS)
def test_arrays_that_cannot_be_meant(label: str) -> None:
    """Every check answers, leaves itself out, or the case is refused: none raises."""
    with suppress(LossError):
        examine(**MISFITS[label])
