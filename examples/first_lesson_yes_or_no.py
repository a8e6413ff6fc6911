"""First lesson, yes or no: is this tumour benign?

loss      binary_cross_entropy: the best prediction is the probability of yes
target    0 for no, 1 for yes, one per patient
head      one linear unit that gives a logit; the probability is sigmoid(logit)
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from lossary import Loss

torch.manual_seed(0)
features, benign = load_breast_cancer(return_X_y=True)
features = (features - features.mean(axis=0)) / features.std(axis=0)
train_x, test_x, train_y, test_y = train_test_split(features, benign, random_state=0)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float32)


network = torch.nn.Sequential(
    torch.nn.Linear(features.shape[1], 16),
    torch.nn.ReLU(),
    torch.nn.Linear(16, 1),  # the head; no sigmoid here, the loss takes logits
)
loss = Loss("binary_cross_entropy")
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

for epoch in range(1, 61):
    optimizer.zero_grad()
    cost = loss(network(tensor(train_x))[:, 0], tensor(train_y))
    cost.backward()
    optimizer.step()
    if epoch == 1 or epoch % 10 == 0:
        print(f"epoch {epoch:3d}  loss {cost:.4f}")

with torch.no_grad():
    logits = network(tensor(test_x))[:, 0]
right = ((logits > 0).numpy() == (test_y == 1)).mean()
print(f"the first new patient's tumour is benign with probability {torch.sigmoid(logits[0]):.3f}")
print(f"right on new patients {right:.1%}")
print(f"always saying yes     {test_y.mean():.1%}")
