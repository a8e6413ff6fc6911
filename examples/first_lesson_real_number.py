"""First lesson, a real number: how far will a patient's diabetes have progressed in a year?

loss      squared_error: the best prediction is the mean
target    the number itself, standardised so that 0 is "as usual"
head      one linear unit: any real number may come out
"""

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from lossary import Loss

torch.manual_seed(0)
features, progression = load_diabetes(return_X_y=True)
features = features / features.std(axis=0)
train_x, test_x, train_y, test_y = train_test_split(features, progression, random_state=0)
usual, spread = train_y.mean(), train_y.std()


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float32)


inputs, targets = tensor(train_x), tensor((train_y - usual) / spread)
network = torch.nn.Sequential(
    torch.nn.Linear(features.shape[1], 16),
    torch.nn.ReLU(),
    torch.nn.Linear(16, 1),  # the head
)
loss = Loss("squared_error")
optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=0.01)

for epoch in range(1, 61):
    optimizer.zero_grad()
    # (patients, 1) against (patients,) would be an error, not 442 x 442 differences: [:, 0].
    cost = loss(network(inputs)[:, 0], targets)
    cost.backward()
    optimizer.step()
    if epoch == 1 or epoch % 10 == 0:
        print(f"epoch {epoch:3d}  loss {cost:.4f}")

with torch.no_grad():
    predicted = network(tensor(test_x))[:, 0].numpy() * spread + usual
print(f"mean error on new patients {np.abs(predicted - test_y).mean():.1f}")
print(f"always saying the mean     {np.abs(usual - test_y).mean():.1f}")
