"""The Keras tutorial's program, with Lossary's loss by object and by name.

    KERAS_BACKEND=torch python examples/keras_quickstart.py      # or jax, tensorflow

Which of two trial groups had side effects? A person's age decides: 1050 older and 1050 younger,
95 % of the older with side effects, 95 % of the younger without.
"""

import keras
import numpy as np
from keras import Sequential
from keras.layers import Dense
from keras.optimizers import Adam

import lossary.keras


def trial():
    """Ages scaled to 0..1, and whether there were side effects."""
    generator = np.random.default_rng(0)
    ages = np.concatenate([generator.integers(13, 65, 1050), generator.integers(65, 101, 1050)])
    older = np.arange(2100) >= 1050
    effects = np.where(generator.random(2100) < 0.95, older, ~older).astype(int)
    order = generator.permutation(2100)
    return ((ages - 13) / 87).reshape(-1, 1)[order], effects[order]


def train(loss):
    keras.utils.set_random_seed(0)
    model = Sequential(
        [
            Dense(16, input_shape=(1,), activation="relu"),
            Dense(32, activation="relu"),
            Dense(2, activation="sigmoid"),
        ]
    )
    model.compile(Adam(learning_rate=0.0001), loss=loss, metrics=["accuracy"])
    samples, labels = trial()
    return model.fit(samples, labels, batch_size=10, epochs=5, shuffle=True, verbose=2).history


def main():
    by_object = train(lossary.keras.SparseCategoricalCrossentropy())
    lossary.keras.install()  # from here on, names mean Lossary's losses
    by_name = train("sparse_categorical_crossentropy")
    for name, history in (("object", by_object), ("name", by_name)):
        print(f"by {name}: loss {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
        assert history["loss"][-1] < history["loss"][0]


if __name__ == "__main__":
    main()
