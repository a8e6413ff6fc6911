"""A few wrong targets: what squared and absolute error make of them, as a picture.

442 patients' diabetes progression against their body mass index (shipped with scikit-learn). In 22
records of lean patients somebody typed one zero too many. Squared error squares the mistake too, so
the line bends to it; absolute error pulls alike however far off a point is.

    python examples/outliers.py [picture.png]
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes

from lossary import Loss

data = load_diabetes(as_frame=True).frame
index = data["bmi"].to_numpy() / data["bmi"].std()
truth = data["target"].to_numpy() / 100
typed = truth.copy()
wrong = np.argsort(index)[:220:10]
typed[wrong] *= 10


def fit(name: str, target: np.ndarray) -> tuple[float, float]:
    """Slope and height of the line with the least mean loss."""
    x, y = torch.tensor(index), torch.tensor(target)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([line], lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.985)
    for _ in range(400):
        optimizer.zero_grad()
        Loss(name)(line[0] * x + line[1], y).backward()
        optimizer.step()
        schedule.step()
    return line[0].item(), line[1].item()


figure, axes = plt.subplots(figsize=(8, 5))
axes.scatter(index, typed, s=8, color="0.6", label="patients")
axes.scatter(index[wrong], typed[wrong], s=20, color="tab:red", label="one zero too many")
ends = np.array([index.min(), index.max()])
for name, color in (("squared_error", "tab:orange"), ("absolute_error", "tab:blue")):
    clean, dirty = fit(name, truth), fit(name, typed)
    moved = np.abs((dirty[0] - clean[0]) * index + dirty[1] - clean[1]).mean()
    print(f"{name:15s} slope {clean[0]:.3f}, with mistakes {dirty[0]:.3f}; line moved {moved:.3f}")
    axes.plot(ends, dirty[0] * ends + dirty[1], color=color, label=f"{name}, with mistakes")
    axes.plot(
        ends, clean[0] * ends + clean[1], color=color, linestyle=":", label=f"{name}, without"
    )
axes.set(xlabel="body mass index, standardised", ylabel="progression / 100", ylim=(0, 15))
axes.legend()
path = sys.argv[1] if len(sys.argv) > 1 else "outliers.png"
figure.savefig(path, dpi=120)
print(f"written to {path}")
