"""``python -m benchmarks.training``: training alone, ours beside Keras, in one run.

Ours: 20 losses, each with 20 seeds of a 64-128-10 perceptron on digits (1,024 rows, batch 64, 60
epochs), a validation score after every epoch included. Keras: the same network trained by
``Model.fit`` with its own cross-entropy, one run after the other, nothing scored; a few runs are
measured, each a new model as in a script's loop, and 400 are reckoned from their mean. By hand:
the same stack with autograd, PyTorch's cross-entropy and fused Adam, for the cost of everything
around.

Rounds are interleaved, so that other work on the machine falls on all alike. Each has one thread
for PyTorch: at this size a second one mostly waits, and on a busy machine costs far more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LOSSES, SEEDS, EPOCHS, BATCH, RATE = 20, 20, 60, 64, 0.003
ROWS = 1024


def ours() -> Callable[[int], Any]:
    """Train loss number k of those that fit digits, all seeds at once."""
    import torch

    from lossary.contract import LossError, contracts
    from lossary.lab.cell import Plan, build_stack
    from lossary.lab.choose import fitted
    from lossary.lab.data import read
    from lossary.lab.heads import head_for
    from lossary.lab.metrics import fast_score, find_metric
    from lossary.lab.split import split
    from lossary.lab.train import Budget, train

    torch.set_num_threads(1)
    data = read("digits")
    heads = []
    for contract in contracts():
        try:
            heads.append(head_for(fitted(contract.name, data.target), data.target))
        except LossError:
            continue
    heads = [heads[k * len(heads) // LOSSES] for k in range(LOSSES)]
    parts = split(data, range(SEEDS))
    plan = Plan("accuracy", EPOCHS, BATCH)

    def run(k: int) -> Any:
        stack = build_stack(plan, data, heads[k].width, parts.seeds)
        metric = find_metric("accuracy", data.target)
        score = fast_score(metric, heads[k], parts.validation.target)
        done = train(stack, heads[k], parts, Budget(EPOCHS, BATCH), [RATE] * SEEDS, score)
        return heads[k].loss.contract.name, float(done.score[-1].mean())

    return run


def by_hand() -> Callable[[int], Any]:
    """Cross-entropy with stacked weights, ``baddbmm``, autograd and fused Adam."""
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    pixels, labels = load_digits(return_X_y=True)
    features = torch.from_numpy(pixels[:ROWS] / 16).float()
    classes = torch.from_numpy(labels[:ROWS])

    def run(k: int) -> Any:
        shapes = ((64, 128), (1, 128), (128, 10), (1, 10))
        parameters = [
            (torch.randn(SEEDS, *shape) / shape[0] ** 0.5).requires_grad_() for shape in shapes
        ]
        optimiser = torch.optim.Adam(parameters, lr=RATE, fused=True)
        for _ in range(EPOCHS):
            order = torch.stack([torch.randperm(ROWS) for _ in range(SEEDS)])
            for step in range(ROWS // BATCH):
                chosen = order[:, step * BATCH : (step + 1) * BATCH].reshape(-1)
                rows = features[chosen].view(SEEDS, BATCH, -1)
                hidden = torch.relu(torch.baddbmm(parameters[1], rows, parameters[0]))
                logits = torch.baddbmm(parameters[3], hidden, parameters[2]).flatten(0, 1)
                loss = torch.nn.functional.cross_entropy(logits, classes[chosen], reduction="sum")
                optimiser.zero_grad()
                (loss / BATCH).backward()
                optimiser.step()
        return float(loss.detach())

    return run


def keras() -> Callable[[int], Any]:
    """One new model, compiled and fitted, as in a loop over seeds."""
    import keras
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    features, classes = (pixels[:ROWS] / 16).astype("float32"), labels[:ROWS]

    def run(k: int) -> Any:
        keras.utils.set_random_seed(k)
        model = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(10)]
        )
        model.compile(
            keras.optimizers.Adam(RATE),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        history = model.fit(features, classes, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        return history.history["loss"][-1]

    return run


PEERS: dict[str, tuple[Callable[[], Callable[[int], Any]], dict[str, str]]] = {
    "ours": (ours, {"OMP_NUM_THREADS": "1"}),
    "by hand": (by_hand, {"OMP_NUM_THREADS": "1"}),
    "Keras on PyTorch": (keras, {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}),
    "Keras on JAX": (keras, {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "1"}),
}


def serve(name: str) -> None:
    """Run what each line of standard input asks for, and answer with seconds."""
    run = PEERS[name][0]()
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        answer = run(int(line))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "answer": answer}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=4, help="rounds between runs of the others")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training", "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        )
        for name, (_, environment) in PEERS.items()
    }

    def ask(name: str, number: int) -> dict[str, Any]:
        worker = workers[name]
        assert worker.stdin and worker.stdout
        print(number, file=worker.stdin, flush=True)
        return json.loads(worker.stdout.readline())  # type: ignore[no-any-return]

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    for name in PEERS:
        if name != "ours":
            ask(name, 0)  # the first run also loads libraries
    for number in range(LOSSES):
        for name in PEERS:
            if name == "ours" or number % options.every == 0:
                runs[name].append(ask(name, number))
        loss, accuracy = runs["ours"][-1]["answer"]
        seconds = runs["ours"][-1]
        print(
            f"{loss:36s} {seconds['wall']:6.2f} s, {seconds['cpu']:6.2f} s of CPU, {accuracy:.3f}"
        )
    for worker in workers.values():
        assert worker.stdin
        worker.stdin.close()
        worker.wait()
    jobs = {"ours": LOSSES, "by hand": LOSSES}
    total = {
        name: {
            kind: jobs.get(name, LOSSES * SEEDS) * sum(run[kind] for run in found) / len(found)
            for kind in ("wall", "cpu")
        }
        for name, found in runs.items()
    }
    print(f"\n{LOSSES} losses x {SEEDS} seeds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()}:")
    for name, seconds in total.items():
        ratio = {kind: seconds[kind] / total["ours"][kind] for kind in seconds}
        print(
            f"{name:17s} {seconds['wall']:8.1f} s, {seconds['cpu']:8.1f} s of CPU; over ours "
            f"{ratio['wall']:5.1f} and {ratio['cpu']:5.1f} ({len(runs[name])} runs measured)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
