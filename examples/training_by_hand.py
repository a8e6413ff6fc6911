"""Training by hand: a two-layer network in NumPy alone, every step spelled out.

    initialise -> forward -> loss -> backpropagation -> update -> iterate

It learns to read handwritten digits (1,797 pictures of 8 x 8 pixels, shipped with scikit-learn).
Nothing here differentiates by itself: each derivative is the line that computes it.
"""

import numpy as np
from sklearn.datasets import load_digits

from lossary import Loss

EPOCHS, BATCH, RATE, HIDDEN = 15, 32, 0.3, 32
rng = np.random.default_rng(0)

pixels, digits = load_digits(return_X_y=True)
order = rng.permutation(len(digits))
pixels, digits = pixels[order] / 16, digits[order]
train_x, train_y, test_x, test_y = pixels[:1400], digits[:1400], pixels[1400:], digits[1400:]

# Initialise: small random weights, so that the units differ and none saturates (He 2015).
weight_1 = rng.normal(0, np.sqrt(2 / 64), (64, HIDDEN))
bias_1 = np.zeros(HIDDEN)
weight_2 = rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, 10))
bias_2 = np.zeros(10)


def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer, and one logit per digit."""
    hidden = np.maximum(x @ weight_1 + bias_1, 0)
    return hidden, hidden @ weight_2 + bias_2


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean surprise at the true digit, and its derivative by the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp() of a large logit would overflow
    exponential = np.exp(shifted)
    total = exponential.sum(axis=1, keepdims=True)
    picked = np.arange(len(target)), target
    loss = (np.log(total[:, 0]) - shifted[picked]).mean()
    derivative = exponential / total  # the predicted probabilities ...
    derivative[picked] -= 1  # ... less the true ones
    return loss, derivative / len(target)


for epoch in range(1, EPOCHS + 1):
    losses = []
    order = rng.permutation(len(train_y))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        x, target = train_x[chosen], train_y[chosen]

        hidden, logits = forward(x)
        loss, by_logits = cross_entropy(logits, target)
        losses.append(loss * len(target))

        # Backpropagation: the chain rule from the loss to each weight, last layer first.
        by_weight_2 = hidden.T @ by_logits
        by_bias_2 = by_logits.sum(axis=0)
        by_hidden = by_logits @ weight_2.T * (hidden > 0)  # a unit at 0 passes nothing on
        by_weight_1 = x.T @ by_hidden
        by_bias_1 = by_hidden.sum(axis=0)

        # Update: a step downhill.
        weight_2 -= RATE * by_weight_2
        bias_2 -= RATE * by_bias_2
        weight_1 -= RATE * by_weight_1
        bias_1 -= RATE * by_bias_1
    print(f"epoch {epoch:2d}  loss {sum(losses) / len(train_y):.4f}")

logits = forward(test_x)[1]
print(f"right on new digits {(logits.argmax(axis=1) == test_y).mean():.1%}")
print(f"loss on new digits, by hand {cross_entropy(logits, test_y)[0]:.6f}")
print(f"loss on new digits, Lossary {Loss('cross_entropy')(logits, test_y):.6f}")
