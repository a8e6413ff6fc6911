"""First lesson, one of many: which digit is this?

loss      cross_entropy: the best prediction is the probability of each class
target    the index of the class, 0 to 9 (one-hot rows give the same loss)
head      one linear unit per class that gives its logit; the probabilities are softmax(logits)
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lossary import Loss

torch.manual_seed(0)
features, digits = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(features / 16, digits, random_state=0)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float32)


inputs, targets = tensor(train_x), torch.tensor(train_y)
network = torch.nn.Sequential(
    torch.nn.Linear(features.shape[1], 32),
    torch.nn.ReLU(),
    torch.nn.Linear(32, 10),  # the head: ten classes; no softmax here, the loss takes logits
)
loss = Loss("cross_entropy")
optimizer = torch.optim.Adam(network.parameters(), lr=0.02)

for epoch in range(1, 61):
    optimizer.zero_grad()
    cost = loss(network(inputs), targets)
    cost.backward()
    optimizer.step()
    if epoch == 1 or epoch % 10 == 0:
        print(f"epoch {epoch:3d}  loss {cost:.4f}")

with torch.no_grad():
    logits = network(tensor(test_x))
right = (logits.argmax(dim=1).numpy() == test_y).mean()
indices = torch.tensor(test_y)
one_hot = torch.nn.functional.one_hot(indices, 10)
print(f"loss by class index {loss(logits, indices):.4f}, one-hot {loss(logits, one_hot):.4f}")
print(f"right on new digits {right:.1%}")
print(f"guessing            {1 / 10:.1%}")
