"""One batched network is the same as many: same weights, same batches, same result."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as judge

from lossary.contract import LossError, contracts
from lossary.lab import compare
from lossary.lab.cell import Cell, Plan, best_rate, build_stack, run_cell
from lossary.lab.choose import fitted
from lossary.lab.data import from_arrays, read
from lossary.lab.heads import head_for
from lossary.lab.metrics import fast_score, find_metric, metrics_for, views
from lossary.lab.network import Adam, Modules, Perceptrons, small_convolution
from lossary.lab.split import Corruption, split
from lossary.lab.train import Budget, train

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def wine():
    return read("wine")


def one_by_one(data, name, seed, rate, epochs):
    """A plain PyTorch loop of one network, with torch's own layers, loss and Adam."""
    head = head_for(fitted(name, data.target), data.target)
    parts = split(data, [seed])
    stack = Perceptrons(data.features.shape[1], (16,), head.width, [seed])
    layers = torch.nn.Sequential(
        torch.nn.Linear(data.features.shape[1], 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, head.width),
    )
    with torch.no_grad():
        for layer, (weight, bias) in zip(
            (layers[0], layers[2]),
            zip(stack.parameters[::2], stack.parameters[1::2], strict=True),
            strict=True,
        ):
            layer.weight.copy_(weight[0].T)
            layer.bias.copy_(bias[0, 0])
    optimiser = torch.optim.Adam(layers.parameters(), lr=rate)
    draw = torch.Generator().manual_seed(10_007 * seed + 1)
    rows = parts.train.features.shape[1]
    for _ in range(epochs):
        order = torch.randperm(rows, generator=draw)
        for step in range(rows // 8):
            chosen = order[8 * step : 8 * step + 8]
            optimiser.zero_grad()
            outputs = layers(parts.train.features[0][chosen])
            loss = torch.nn.functional.cross_entropy(outputs, parts.train.target[0][chosen])
            loss.backward()
            optimiser.step()
    return layers(parts.test.features[0]).detach()


def test_stacked_seeds_equal_single_runs_in_plain_pytorch(wine):
    head = head_for(fitted("cross_entropy", wine.target), wine.target)
    seeds = (0, 3, 5)
    parts = split(wine, seeds)
    stack = Perceptrons(13, (16,), head.width, seeds)
    score = fast_score(find_metric("accuracy", wine.target), head, parts.validation.target)
    done = train(stack, head, parts, Budget(6, 8), [0.003] * 3, score)
    for place, seed in enumerate(seeds):
        alone = one_by_one(wine, "cross_entropy", seed, 0.003, 6)
        torch.testing.assert_close(done.outputs_last[place], alone, rtol=1e-3, atol=1e-4)


def test_every_loss_starts_from_the_same_weights_and_batches(wine):
    plan = Plan("accuracy", 2, 8, (16,))
    first = build_stack(plan, wine, 3, [0, 1])
    again = build_stack(plan, wine, 3, [1, 0])
    torch.testing.assert_close(first.parameters[0][0], again.parameters[0][1])
    narrow = build_stack(plan, wine, 1, [0, 1])
    torch.testing.assert_close(first.parameters[0], narrow.parameters[0])
    assert not torch.equal(first.parameters[0][0], first.parameters[0][1])


def test_adam_with_one_rate_each_equals_torchs():
    ours = [torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0))]
    ours[0].grad = torch.zeros_like(ours[0])
    theirs = [ours[0][k].detach().clone().requires_grad_() for k in range(3)]
    rates = [0.1, 0.1, 0.003]
    mine = Adam(ours, rates)
    others = [torch.optim.Adam([p], lr=rate) for p, rate in zip(theirs, rates, strict=True)]
    for step in range(20):
        gradient = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(step))
        ours[0].grad.copy_(gradient)
        mine.step()
        for k, (parameter, other) in enumerate(zip(theirs, others, strict=True)):
            parameter.grad = gradient[k]
            other.step()
    for k in range(3):
        torch.testing.assert_close(ours[0][k], theirs[k], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (5,), (7, 6)])
def test_the_chain_rule_by_hand_is_autograds(hidden):
    stack = Perceptrons(4, hidden, 3, (0, 1))
    draw = torch.Generator().manual_seed(0)
    rows, slopes = (torch.randn(2, 9, size, generator=draw) for size in (4, 3))
    leaves = [parameter.detach().clone().requires_grad_() for parameter in stack.parameters]
    reached = rows
    for layer in range(0, len(leaves), 2):
        reached = torch.relu(reached) if layer else reached
        reached = reached @ leaves[layer] + leaves[layer + 1]
    wanted = torch.autograd.grad(reached, leaves, slopes)
    torch.testing.assert_close(stack.forward(rows), reached.detach())
    stack.backward(slopes)
    for parameter, gradient in zip(stack.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_replicas_do_not_touch_each_other(wine):
    """A replica that diverges leaves its neighbour as it is."""
    head = head_for(fitted("squared_error", wine.target), wine.target)
    parts = split(wine, (0, 1))
    score = fast_score(find_metric("accuracy", wine.target), head, parts.validation.target)
    results = []
    for wild in (0.003, 1e30):
        stack = Perceptrons(13, (16,), head.width, (0, 1))
        results.append(train(stack, head, parts, Budget(2, 8), [0.003, wild], score))
    torch.testing.assert_close(results[0].outputs_last[0], results[1].outputs_last[0])
    assert results[1].nonfinite[1] > 0
    assert results[1].nonfinite[0] == 0


def test_no_test_or_validation_row_is_trained_on(wine):
    parts = split(wine, range(3))
    for seed in range(3):
        rows = [set(part.rows[seed]) for part in (parts.train, parts.validation, parts.test)]
        assert sum(map(len, rows)) == len(set.union(*rows)) == 178
    train_part = parts.train.features
    assert train_part.mean(1).abs().max() < 1e-4  # standardised by training rows alone
    assert parts.test.features.mean(1).abs().max() > 0.01


def test_corruption_harms_training_rows_only(wine):
    clean, noisy = split(wine, [0]), split(wine, [0], Corruption("label noise", 0.4))
    share = (clean.train.target != noisy.train.target).float().mean()
    assert 0.25 < share < 0.55
    assert torch.equal(noisy.clean, clean.train.target)
    assert torch.equal(clean.test.target, noisy.test.target)
    thin = split(read("digits"), [0], Corruption("imbalance", 0.05))
    counts = torch.bincount(thin.train.target[0])
    assert counts[0] > 100
    assert 4 <= counts[9] <= 8
    with pytest.raises(LossError, match="outliers: does not apply to a classes target"):
        split(wine, [0], Corruption("outliers", 0.1))


def normalised(inputs, outputs):
    return torch.nn.Sequential(torch.nn.BatchNorm1d(inputs), torch.nn.Linear(inputs, outputs))


@pytest.mark.parametrize("own", [False, True])
def test_the_best_epoch_is_kept_whole(wine, own):
    """Outputs at the best epoch are those of a run that ends there, running averages included."""
    head = head_for(fitted("cross_entropy", wine.target), wine.target)
    parts = split(wine, (0, 1))

    def run(epochs):
        build = (lambda: Modules(normalised, 13, 3, (0, 1))) if own else (
            lambda: Perceptrons(13, (16,), 3, (0, 1))
        )  # fmt: skip
        calls = iter(range(100))
        # The first seed is best at its second epoch, the other at its fourth.
        made = [[1, 5, 2, 3, 4], [1, 2, 3, 6, 5]]
        return train(
            build(), head, parts, Budget(epochs, 8), [0.01] * 2,
            lambda outputs: np.array([row[k] for k in [next(calls)] for row in made], dtype=float),
        )  # fmt: skip

    done = run(5)
    assert done.best.tolist() == [1, 3]
    for place, epochs in ((0, 2), (1, 4)):
        torch.testing.assert_close(done.outputs_best[place], run(epochs).outputs_last[place])
    assert not torch.equal(done.outputs_best, done.outputs_last)


def test_an_imbalance_reaches_the_losses_that_ask_for_class_counts():
    data = read("digits")
    plan = Plan("accuracy", 1, 64, (8,), (0.003,))
    config = fitted("logit_adjustment", data.target).config
    harmed = run_cell(Cell("a", config, (0, 1), Corruption("imbalance", 0.05)), plan, data)
    assert harmed["training_rows"] < 600


def fitting(data):
    found = []
    for contract in contracts():
        try:
            found.append((contract.name, head_for(fitted(contract.name, data.target), data.target)))
        except LossError as error:
            assert contract.name in str(error)  # noqa: PT017
    return found


@pytest.mark.parametrize("name", ["wine", "breast-cancer", "diabetes"])
def test_every_loss_that_fits_trains_and_beats_its_start(name):
    """Heads come from contracts: whatever fits must learn something within a few epochs."""
    data = read(name)
    metric = find_metric({"diabetes": "RMSE"}.get(name, "accuracy"), data.target)
    heads = fitting(data)
    assert len(heads) >= 15
    parts = split(data, (0, 1))
    better = []
    for loss, head in heads:
        stack = Perceptrons(data.features.shape[1], (16,), head.width, (0, 1))
        score = fast_score(metric, head, parts.validation.target)
        done = train(stack, head, parts, Budget(6, 32), [0.02, 0.02], score)
        assert np.isfinite(done.loss).all(), loss
        assert not done.nonfinite.any(), loss
        start = score(stack.forward(parts.validation.features).detach() * 0)
        better.append((loss, done.score.max(0).mean() > start.mean()))
    losers = [loss for loss, fine in better if not fine]
    # A loss of percentages cannot learn targets of 0 and 1; nearly all others must.
    assert len(losers) <= 2, losers


@pytest.mark.parametrize("name", ["wine", "breast-cancer", "diabetes"])
def test_fast_scores_equal_scikit_learns(name):
    data = read(name)
    loss = "squared_error" if name == "diabetes" else "cross_entropy"
    head = head_for(fitted(loss, data.target), data.target)
    truth = split(data, (0, 1)).test.target
    outputs = torch.randn(*truth.shape, head.width, generator=torch.Generator().manual_seed(0))
    for metric in metrics_for(data.target).values():
        fast = fast_score(metric, head, truth)(outputs)
        slow = [metric(view) for view in views(head, outputs, truth)]
        np.testing.assert_allclose(fast, metric.sign * np.array(slow), rtol=1e-6)
    if name == "breast-cancer":
        probability = torch.softmax(outputs[0], -1)[:, 1].numpy()
        view = views(head, outputs, truth)[0]
        found = metrics_for(data.target)["Brier"](view)
        assert found == pytest.approx(judge.brier_score_loss(truth[0], probability), rel=1e-5)


def test_the_learning_rate_search_prefers_a_rate_that_learns(wine):
    head = head_for(fitted("cross_entropy", wine.target), wine.target)
    plan = Plan("accuracy", 5, 8, (16,), (1e-9, 0.01))
    rate, scores = best_rate(
        plan, wine, head, split(wine, (0, 1)), find_metric("accuracy", wine.target)
    )
    assert rate == 0.01
    assert scores[1] > scores[0]


def test_a_cell_is_reproducible(wine):
    cell = Cell("huber", fitted("huber", wine.target).config, (0, 1))
    plan = Plan("accuracy", 3, 8, (16,), (0.01,))
    one, two = (run_cell(cell, plan, wine) for _ in range(2))
    for result in (one, two):
        costs = [
            result.pop(key) for key in ("seconds_per_step", "seconds_of_loss", "process_bytes")
        ]
        assert min(costs) > 0
    assert one == two


PEAKS = """
import numpy as np
from lossary.lab.cost import forget_peak, peak_bytes

forget_peak()
before = peak_bytes()
block = np.ones(40_000_000, dtype=np.int8)
with_block = peak_bytes()
del block
forget_peak()
print(with_block - before, with_block - peak_bytes())
"""


def test_the_peak_of_memory_is_that_of_its_own_time():
    # In a process of its own: from one of gigabytes the system takes pages back at any moment.
    command = [sys.executable, "-c", PEAKS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, released = map(int, done.stdout.split())
    assert grown > 30_000_000
    assert released > 30_000_000


def test_images_train_a_convolutional_network():
    digits = read("digits")
    pictures = digits.features[:200].reshape(-1, 1, 8, 8)
    data = from_arrays(pictures, digits.target.values[:200])
    account = compare(data, losses=["cross_entropy"], seeds=2, epochs=4, rate=0.01)
    row = account["tables"]["as is"]["losses"]["cross_entropy"]
    assert np.mean(row["best"]["accuracy"]) > 0.3
    modules = Modules(small_convolution, (1, 8, 8), 10, [0, 1])
    alone = Modules(small_convolution, (1, 8, 8), 10, [1])
    rows = torch.from_numpy(pictures[:5])
    together = modules.forward(torch.stack([rows, rows]))[1]
    torch.testing.assert_close(together, alone.forward(rows[None])[0], rtol=1e-4, atol=1e-5)


def small_model(inputs, outputs):
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 8), torch.nn.Tanh(), torch.nn.Linear(8, outputs)
    )


def raising_model(inputs, outputs):
    raise RuntimeError("no such layer\nin this model")


def test_the_users_own_model(wine):
    account = compare(
        wine, losses=["cross_entropy"], model=small_model, seeds=2, epochs=3, rate=0.01
    )
    assert account["plan"]["model"].endswith(":small_model")
    with pytest.raises(LossError, match="the factory raised RuntimeError: no such layer;"):
        compare(wine, losses=["cross_entropy"], model=raising_model, seeds=2, epochs=1)
    with pytest.raises(LossError, match="the factory returned NoneType"):
        compare(wine, losses=["cross_entropy"], model=lambda i, o: None, seeds=2, epochs=1)
    with pytest.raises(LossError, match="is a Linear; expected a factory"):
        compare(wine, losses=["cross_entropy"], model=torch.nn.Linear(13, 3), seeds=2, epochs=1)
    with pytest.raises(LossError, match=r"--model nowhere:build: .*expected package\.module:build"):
        compare(wine, losses=["cross_entropy"], model="nowhere:build", seeds=2, epochs=1)
