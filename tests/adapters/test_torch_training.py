"""Right denominators in training: shards, micro-batches, and the real Hugging Face Trainer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning
import torch
from transformers import Trainer, TrainingArguments

from lossary.torch import CrossEntropyLoss, TorchLossError, compute_loss_func, global_mean

ROOT = Path(__file__).parents[2]


def test_two_processes_give_the_gradient_of_one():
    """Uneven shards, ignored labels, micro-batches: value and gradient to rounding."""
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "examples" / "ddp_exact_mean.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Not the exit code: torch's DDP leaves gloo's threads running, and now and then a process that
    # has done its work aborts in its last moment ("terminate called without an active exception").
    assert "AssertionError" not in launched.stderr, launched.stderr[-3000:]
    found = re.search(r"difference: (\S+), by the mean of means (\S+)", launched.stdout)
    assert found, launched.stderr[-3000:]
    exact, usual = map(float, found.groups())
    assert exact < 1e-14 < 1e-2 < usual
    one, two = map(float, re.search(r"process (\S+), 2 processes (\S+)", launched.stdout).groups())
    assert two == pytest.approx(one, rel=1e-12)


def whole_and_parts():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (10,), generator=generator)
    labels[[1, 2, 3, 8]] = -100
    return logits, labels


def test_micro_batches_without_ranks():
    loss = CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), label_smoothing=0.1)
    logits, labels = whole_and_parts()
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(one, labels)
    value.backward()
    parts = [slice(0, 3), slice(3, 4), slice(4, 10)]
    weight = sum(loss.total(logits[part], labels[part]) for part in parts).weight
    shares = [global_mean(loss.total(other[part], labels[part]), weight=weight) for part in parts]
    sum(shares).backward()
    torch.testing.assert_close(sum(shares), value, rtol=1e-14, atol=0)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-13, atol=1e-16)


def test_nothing_counts_on_a_rank():
    logits, labels = whole_and_parts()
    leaf = logits.requires_grad_()
    value = global_mean(CrossEntropyLoss().total(leaf, torch.full_like(labels, -100)))
    value.backward()
    assert value == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


class Rows(torch.utils.data.Dataset):
    """Token rows with very different numbers of labels."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(8, 5, 3, generator=generator)
        self.labels = torch.randint(0, 4, (8, 5), generator=generator)
        for row, known in enumerate((1, 5, 1, 5, 2, 5, 1, 3)):
            self.labels[row, known:] = -100

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, inputs, labels=None):
        return {"logits": self.linear(inputs)}


def trained(tmp_path, batch, steps):
    """One optimiser step of the real Trainer: its parameters afterwards."""
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=batch, max_steps=1,
        gradient_accumulation_steps=steps, learning_rate=0.5, optim="sgd", max_grad_norm=0.0,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", use_cpu=True, seed=0,
        remove_unused_columns=False, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    model = Tagger()
    Trainer(
        model, arguments, train_dataset=Rows(), compute_loss_func=compute_loss_func("cross_entropy")
    ).train()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_trainer_gradient_accumulation_is_exact(tmp_path):
    """Four micro-batches of two rows move the parameters as one batch of eight does."""
    whole = trained(tmp_path, batch=8, steps=1)
    parts = trained(tmp_path, batch=2, steps=4)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    rows, model = Rows(), Tagger()
    CrossEntropyLoss()(model(rows.inputs)["logits"].flatten(0, 1), rows.labels.flatten()).backward()
    expected = torch.cat([(p - 0.5 * p.grad).detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=1e-7)


def test_next_tokens():
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    compute = compute_loss_func("cross_entropy", shift=True, label_smoothing=0.1)
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    )
    torch.testing.assert_close(compute({"logits": logits}, labels), expected)
    torch.testing.assert_close(compute({"logits": logits}, labels, 16), expected * 8 / 16)


def test_an_unknown_name_is_refused():
    with pytest.raises(TorchLossError, match="did you mean"):
        compute_loss_func("cros_entropy")


class Lightning(pytorch_lightning.LightningModule):
    """The recipe of docs/torch.md: each batch brings the number of labels in its step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.criterion = torch.nn.Linear(3, 4), CrossEntropyLoss()

    def training_step(self, batch, index):
        inputs, labels, weight_of_step = batch
        total = self.criterion.total(self.linear(inputs).flatten(0, 1), labels.flatten())
        mean = global_mean(total, weight=weight_of_step)
        return mean * self.trainer.accumulate_grad_batches

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


@pytest.mark.filterwarnings("ignore")
def test_lightning_gradient_accumulation_is_exact():
    """The real Trainer: four uneven micro-batches move the parameters as one batch does."""
    rows = Rows()
    counted = (rows.labels != -100).sum()
    moved = []
    for size in (8, 2):
        parts = list(zip(rows.inputs.split(size), rows.labels.split(size), strict=True))
        module, batches = Lightning(), [(*part, counted) for part in parts]
        pytorch_lightning.Trainer(
            accelerator="cpu", max_steps=1, accumulate_grad_batches=len(parts), logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # fmt: skip
        moved.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-6, atol=1e-7)
    module = Lightning()
    CrossEntropyLoss()(module.linear(rows.inputs).flatten(0, 1), rows.labels.flatten()).backward()
    step = torch.cat([(p - 0.5 * p.grad).detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(moved[0], step, rtol=1e-6, atol=1e-7)
