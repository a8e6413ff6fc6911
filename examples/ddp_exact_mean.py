"""One gradient, whether the batch is on one process or in uneven shards on several.

    torchrun --nproc-per-node 2 examples/ddp_exact_mean.py

Each rank gets a share of the samples, of different size and with different numbers of ignored
labels, and works through it in micro-batches. Averaging the ranks' means, as DDP does by itself,
gives another gradient than one process over the whole batch; ``global_mean`` gives the same.
"""

import os
from contextlib import nullcontext

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from lossary.torch import CrossEntropyLoss, global_mean

SHARES = (slice(0, 20), slice(20, 26))  # uneven on purpose
MICRO_BATCH = 8


def data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(26, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (26,), generator=generator)
    labels[::3] = -100  # padding
    labels[20:23] = -100
    return inputs, labels


def model():
    torch.manual_seed(1)
    return torch.nn.Linear(4, 3, dtype=torch.float64)


def gradient_of(net):
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])


def single_process(loss):
    inputs, labels = data()
    net = model()
    value = loss(net(inputs), labels)
    value.backward()
    return value.detach(), gradient_of(net)


def on_all_ranks(loss, exact):
    """The value and the gradient of this rank's share, accumulated over micro-batches."""
    share = SHARES[distributed.get_rank()]
    inputs, labels = (array[share] for array in data())
    net = DistributedDataParallel(model())
    batches = list(zip(inputs.split(MICRO_BATCH), labels.split(MICRO_BATCH), strict=True))
    most = torch.tensor(len(batches))
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    # Every rank takes part in every all-reduce: an empty micro-batch adds 0 to sum and weight.
    batches += [(inputs[:0], labels[:0])] * (int(most) - len(batches))
    counted = (labels != -100).sum()
    value = torch.zeros((), dtype=torch.float64)
    for step, (x, y) in enumerate(batches):
        last = step == len(batches) - 1
        with nullcontext() if last else net.no_sync():
            if exact:
                part = global_mean(loss.total(net(x), y), weight=counted)
            else:
                part = loss(net(x), y) / len(batches)
            part.backward()
        value = value + part.detach()
    return value, gradient_of(net)


def main():
    distributed.init_process_group("gloo")
    loss = CrossEntropyLoss()
    value, gradient = single_process(loss)
    exact_value, exact_gradient = on_all_ranks(loss, exact=True)
    _, usual_gradient = on_all_ranks(loss, exact=False)
    if distributed.get_rank() == 0:
        ranks = distributed.get_world_size()
        print(f"loss: one process {value:.15f}, {ranks} processes {exact_value:.15f}")
        print(f"{'one process':>22} {'global_mean':>22} {'mean of means':>22}")
        for one, two, three in zip(gradient, exact_gradient, usual_gradient, strict=True):
            print(f"{one:22.15f} {two:22.15f} {three:22.15f}")
        print(f"largest difference: {(gradient - exact_gradient).abs().max():.1e}", end=", ")
        print(f"by the mean of means {(gradient - usual_gradient).abs().max():.1e}", flush=True)
    torch.testing.assert_close(exact_gradient, gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(exact_value, value, rtol=1e-12, atol=0)
    distributed.barrier()  # no rank ends before all have compared and printed
    distributed.destroy_process_group()


if __name__ == "__main__":
    if "RANK" not in os.environ:
        raise SystemExit("start with: torchrun --nproc-per-node 2 examples/ddp_exact_mean.py")
    main()
