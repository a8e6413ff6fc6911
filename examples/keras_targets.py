"""Which output layer and which loss for which target, in Keras, on real data.

    KERAS_BACKEND=torch python examples/keras_targets.py      # or jax, tensorflow

A quantity (the price of a house), a yes or no (will it rain in Seattle?) and one of several classes
(which digit is in the image?); the latter two with the activation in the model, and with
``from_logits=True`` without it.
"""

import csv
from pathlib import Path

import keras
import numpy as np
from keras.layers import Dense
from sklearn.datasets import load_digits

from lossary.keras import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)


def rows_of(name):
    with open(Path(__file__).with_name(name), newline="") as file:
        return list(csv.DictReader(file))


def price_of_a_house():
    """What the house has, yes as 1 and no as 0, and its price."""
    as_number = {"yes": 1.0, "no": 0.0}
    houses = np.array(
        [
            [float(as_number.get(cell, cell)) for cell in house.values()]
            for house in rows_of("house-prices.csv")
        ]
    )
    return standardized(houses[:, 1:]), standardized(houses[:, :1])


def will_it_rain():
    days = rows_of("seattle-weather.csv")
    columns = ("temp_max", "temp_min", "wind")
    inputs = np.array([[float(day[column]) for column in columns] for day in days])
    return standardized(inputs), np.array([[day["rain"] == "yes"] for day in days], dtype="float32")


def which_digit():
    images, digits = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), digits


def standardized(x):
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")


def train(data, units, activation, loss):
    """The mean loss of the first and of the last epoch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([Dense(32, activation="relu"), Dense(units, activation=activation)])
    model.compile("adam", loss)
    history = model.fit(*data, epochs=8, verbose=0).history["loss"]
    print(f"{loss!r:75} {activation or 'linear':8} {history[0]:.4f} -> {history[-1]:.4f}")
    assert history[-1] < history[0]
    return history


def main():
    train(price_of_a_house(), 1, None, MeanSquaredError())
    rain = will_it_rain()
    one = train(rain, 1, "sigmoid", BinaryCrossentropy())
    other = train(rain, 1, None, BinaryCrossentropy(from_logits=True))
    np.testing.assert_allclose(one, other, rtol=1e-3)  # the same training
    images, digits = which_digit()
    one_hot = np.eye(10, dtype="float32")[digits]
    runs = [
        train((images, digits), 10, "softmax", SparseCategoricalCrossentropy()),
        train((images, digits), 10, None, SparseCategoricalCrossentropy(from_logits=True)),
        train((images, one_hot), 10, "softmax", CategoricalCrossentropy()),
        train((images, one_hot), 10, None, CategoricalCrossentropy(from_logits=True)),
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run, runs[0], rtol=1e-2)


if __name__ == "__main__":
    main()
