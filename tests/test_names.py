"""Every name of the field finds its loss, and Keras' well-known names mean what they mean there."""

import csv
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

from lossary.contract import LossError, contracts, loss, resolve
from lossary.evaluate import Loss

ROWS = list(csv.DictReader((Path(__file__).parent / "required_names.csv").open()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_fields_names_resolve(row):
    assert resolve(row["name"])[0].name == row["loss"]


def test_every_alias_makes_a_loss_that_says_which_loss_it_is():
    for contract in contracts():
        required = {name: (3, 1) for name, item in contract.parameters.items() if item.required}
        for alias in contract.aliases:
            assert Loss(alias.name, **required).contract is contract


def test_a_name_is_claimed_once():
    def squared_error(prediction, target):
        return (prediction - target) ** 2

    with pytest.raises(LossError, match="taken by squared_error"):
        loss(squared_error)


draw = np.random.default_rng(0)
REAL = draw.normal(size=(6, 4)), draw.normal(size=(6, 4))
POSITIVE = draw.uniform(0.5, 3, (6, 4)), draw.uniform(0.5, 3, (6, 4))
COUNTS = draw.uniform(0.5, 3, (6, 4)), draw.poisson(2, (6, 4)).astype(float)
YES_OR_NO = draw.uniform(0.01, 0.99, (6, 4)), draw.integers(0, 2, (6, 4)).astype(float)
ONE_HOT = draw.dirichlet(np.ones(4), 6), np.eye(4)[draw.integers(0, 4, 6)]
SOFT = draw.dirichlet(np.ones(4), 6), draw.dirichlet(np.ones(4), 6)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("mean_squared_error", REAL),
        ("mean_absolute_error", REAL),
        ("mean_absolute_percentage_error", POSITIVE),
        ("mean_squared_logarithmic_error", POSITIVE),
        ("squared_hinge", (REAL[0], np.sign(REAL[1]))),
        ("hinge", (REAL[0], np.sign(REAL[1]))),
        ("categorical_hinge", (REAL[0], ONE_HOT[1])),
        ("logcosh", REAL),
        ("categorical_crossentropy", ONE_HOT),
        ("sparse_categorical_crossentropy", (ONE_HOT[0], ONE_HOT[1].argmax(1))),
        ("binary_crossentropy", YES_OR_NO),
        ("kullback_leibler_divergence", SOFT),
        ("poisson", COUNTS),
        ("cosine_proximity", REAL),
    ],
)
def test_the_fourteen_names_mean_what_keras_means(name, arrays):
    import keras

    known = {"logcosh": "LogCosh", "kullback_leibler_divergence": "KLDivergence"}
    known["cosine_proximity"] = "CosineSimilarity"
    theirs = keras.losses.get(known.get(name, name))
    if name in known:
        theirs = getattr(keras.losses, known[name])()
    prediction, target = arrays
    expected = keras.ops.convert_to_numpy(theirs(target, prediction)).mean()
    # Keras computes in float32, and clips probabilities at 1e-7.
    assert float(Loss(name)(prediction, target)) == pytest.approx(float(expected), rel=2e-5)


def test_hinge_understands_both_codes_of_a_label():
    scores, signs = REAL[0], np.sign(REAL[1])
    assert Loss("hinge")(scores, signs) == Loss("hinge")(scores, (signs + 1) / 2)
