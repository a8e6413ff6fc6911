"""The doctor in training and in tests: Watch, the callbacks, the pytest fixture."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lossary.doctor
from lossary import Loss
from lossary.cost import Objective
from lossary.doctor import Check, all_checks
from lossary.doctor.training import TASKS, train
from lossary.doctor.trial import verdicts
from lossary.doctor.watch import NotFinite, Watch
from lossary.doctor.watch_lightning import LightningWatch

pytest_plugins = ["pytester"]


class RootOfSquares(nn.Module):
    """Has no slope where a prediction is perfect."""

    def forward(self, prediction: Any, target: Any) -> Any:
        return (prediction - target).square().sum(-1).sqrt().mean()


def squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


def fit(loss: Any, steps: int, perfect_at: int | None = None, poison_at: int | None = None) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs, wanted = torch.randn(32, 3), torch.randn(32, 2)
    for step in range(1, steps + 1):
        prediction = model(inputs)
        target = wanted
        if step == perfect_at:
            target = torch.where(torch.arange(32)[:, None] == 5, prediction.detach(), wanted)
        if step == poison_at:
            target = torch.where(torch.arange(32)[:, None] == 9, math.nan, wanted)
        value = loss(prediction, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def test_post_mortem_names_step_row_operation_and_fix() -> None:
    told: list[str] = []
    with pytest.raises(NotFinite) as stopped:
        fit(Watch(RootOfSquares(), tell=told.append), 200, perfect_at=60)
    text = str(stopped.value)
    assert "step 60" in text
    assert "Row 5" in text
    assert "sqrt" in text
    assert any("edge-gradients" in line for line in told), "the first batch already warns of it"


def test_poisoned_target() -> None:
    with pytest.raises(NotFinite, match="step 30"):
        fit(Watch(nn.MSELoss(), tell=lambda text: None), 100, poison_at=30)


def test_without_stopping() -> None:
    told: list[str] = []
    watch = Watch(nn.MSELoss(), stop=False, tell=told.append)
    fit(watch, 60, poison_at=30)
    watch.close()
    assert any("nan at step 30" in line for line in told)
    assert "nan-post-mortem" in watch.findings


def test_a_module_may_go_on_being_called_itself() -> None:
    loss = nn.MSELoss()
    watch = Watch(loss, tell=lambda text: None)
    fit(loss, 10)
    assert watch.steps == 10
    watch.close()
    fit(loss, 3)
    assert watch.steps == 10


def test_value_and_gradient_are_untouched() -> None:
    prediction = torch.randn(16, 4, requires_grad=True)
    target = torch.randint(0, 4, (16,))
    loss = nn.CrossEntropyLoss()
    plain = torch.autograd.grad(loss(prediction, target), prediction)[0]
    watched = torch.autograd.grad(
        Watch(loss, tell=lambda text: None)(prediction, target), prediction
    )[0]
    assert torch.equal(plain, watched)


def test_listening_does_not_look_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import lossary.doctor.watch as module

    monkeypatch.setattr(module, "_on_host", lambda items: False)
    watch = Watch(Loss("mse"), tell=lambda text: None, every=50)
    looks = []
    look = watch._look
    monkeypatch.setattr(watch, "_look", lambda: (looks.append(watch.steps), look())[1])
    fit(watch, 203)
    assert looks == [1, 2, 3, 53, 103, 153, 203]


def test_a_device_is_asked_late_and_the_right_step_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import lossary.doctor.watch as module

    monkeypatch.setattr(module, "_on_host", lambda items: False)
    with pytest.raises(NotFinite, match="step 60"):
        fit(Watch(RootOfSquares(), tell=lambda text: None, every=50), 200, perfect_at=60)


def test_large_batches_are_not_hoarded(monkeypatch: pytest.MonkeyPatch) -> None:
    import lossary.doctor.watch as module

    monkeypatch.setattr(module, "_on_host", lambda items: False)
    monkeypatch.setattr(module, "KEPT_BYTES", 600)
    watch = Watch(Loss("mse"), tell=lambda text: None)
    fit(watch, 40)
    assert len(watch._kept) <= 1


def test_readings_tell_where_the_loss_stands() -> None:
    watch = Watch(Loss("cross_entropy", ignore=-100), tell=lambda text: None, every=10)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    inputs = torch.randn(200, 4)
    target = inputs[:, :3].argmax(1)
    target[::4] = -100
    for _ in range(200):
        value = watch(model(inputs), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    last = watch.readings[-1]
    assert last.ignored_share == pytest.approx(0.25)
    assert last.constant == pytest.approx(math.log(3), abs=0.05)
    assert last.floor == pytest.approx(0, abs=1e-5)
    assert 0.5 < (last.progress or 0) < 1
    assert "25.0% of labels ignored" in str(last)


def mean_over(prediction: Any, target: Any, mask: Any) -> Any:
    return ((prediction - target) ** 2 * mask).sum() / mask.sum().clamp(min=1)


def truth_first(y_true: Any, y_pred: Any) -> Any:
    return nn.functional.mse_loss(y_pred, y_true)


WANTED, CLASS, KEEP = torch.randn(32, 3), torch.arange(32) % 3, torch.rand(32, 3) < 0.6
CALLS = {
    "a variance after the target": (
        nn.GaussianNLLLoss(),
        lambda loss, out: loss(out, WANTED, out.detach().square() + 1),
    ),
    "a triplet": (nn.TripletMarginLoss(), lambda loss, out: loss(out, out.roll(1), out.roll(2))),
    "keywords": (nn.CrossEntropyLoss(), lambda loss, out: loss(target=CLASS, input=out)),
    "a mask by place": (mean_over, lambda loss, out: loss(out, WANTED, KEEP)),
    "a mask by name": (mean_over, lambda loss, out: loss(out, WANTED, mask=KEEP)),
    "the truth first": (truth_first, lambda loss, out: loss(WANTED, out)),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_way_to_call_a_loss(name: str) -> None:
    loss, call = CALLS[name]
    told: list[str] = []
    watch = Watch(loss, tell=told.append, every=2)
    model = nn.Linear(3, 3)
    for _ in range(5):
        call(watch, model(WANTED)).backward()
    watch.close()
    assert told == []
    assert watch.examined >= 3
    assert watch.readings
    if "mask" in name:
        assert watch.readings[0].ignored_share == pytest.approx(float((~KEEP).float().mean()))


def test_examining_draws_no_number_of_the_training() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Watch(nn.MSELoss(), tell=lambda text: None)(
        torch.zeros(8, requires_grad=True), torch.ones(8)
    ).backward()
    assert torch.equal(torch.rand(2), expected)


def test_terms_of_an_objective() -> None:
    objective = Objective(main=(1.0, Loss("mse")), dead=(1e-9, Loss("mae")))
    told: list[str] = []
    watch = Watch(objective, tell=told.append, every=5)
    model = nn.Linear(3, 1)
    inputs = torch.randn(16, 3)
    for _ in range(30):
        out = model(inputs)[:, 0]
        watch(main=(out, inputs[:, 0]), dead=(out, inputs[:, 1])).backward()
    assert "dead-term" in watch.findings
    assert set(watch.readings[-1].terms) == {"main", "dead"}
    assert any("dead contributes" in line for line in told)


@pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)
def test_quiet_on_correct_training(make: Any) -> None:
    task = make()
    for loss, encode in task.losses:
        outcome = train(task, loss, encode, count=12)
        assert outcome.examined == 12
        assert (outcome.errors, outcome.warnings) == ({}, {})


def test_the_training_table_can_fail() -> None:
    task = TASKS[4]()  # Dice on raw logits, which takes probabilities
    outcome = train(task, Loss("dice"), None, count=12)
    assert "logits-as-probabilities" in outcome.errors


def test_keras_callback() -> None:
    import keras

    from lossary.doctor.watch_keras import Watch as KerasWatch

    chance = np.random.default_rng(0)
    x = chance.normal(size=(256, 5)).astype("float32")
    y = (x @ np.arange(15).reshape(5, 3)).argmax(1)

    def fitted(activation: str | None, from_logits: bool) -> KerasWatch:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(3, activation=activation)])
        model.compile(
            keras.optimizers.Adam(0.05),
            keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        )
        watch = KerasWatch(x, y, every=5, tell=lambda text: None)
        model.fit(x, y, epochs=3, batch_size=32, verbose=0, callbacks=[watch])
        return watch

    assert "double-softmax" in fitted("softmax", True).findings
    assert "logits-as-probabilities" in fitted(None, False).findings
    right = fitted(None, True)
    assert {f.severity for f in right.findings.values()} <= {"note"}
    assert len(right.readings) == 3
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e8), "mse")
    with pytest.raises(NotFinite, match=r"run away|inf|nan"):
        model.fit(
            x,
            x[:, :1],
            epochs=20,
            verbose=0,
            callbacks=[KerasWatch(x[:64], x[:64, :1], every=2, tell=lambda text: None)],
        )


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> str:
    """One check raises; returns the line that tells it."""

    def ask(case: Any) -> None:
        raise RuntimeError("out of\norder")

    def in_a_line(error: Exception) -> str:
        return " ".join(str(error).split())

    monkeypatch.setattr(lossary.doctor, "could_not_run", in_a_line)
    monkeypatch.setitem(all_checks(), "callable", Check("callable", "error", ask))
    return "check callable could not run: out of order (a fault of the doctor, not of yours)"


def test_a_check_that_raises_is_told_once(faulty: str) -> None:
    told: list[str] = []
    watch = Watch(nn.MSELoss(), tell=told.append)
    fit(watch, 5)
    assert told == [f"lossary: {faulty}"]
    assert watch.failed == {"callable": "out of order"}


def test_a_check_that_raises_is_told_by_keras(faulty: str) -> None:
    import keras

    from lossary.doctor.watch_keras import Watch as KerasWatch

    told: list[str] = []
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = KerasWatch(rows, rows[:, :1], tell=told.append)
    model.fit(rows, rows[:, :1], epochs=2, verbose=0, callbacks=[watch])
    assert told == [f"lossary: {faulty}"]


def test_a_check_that_raises_passes_with_its_message(faulty: str) -> None:
    rows = {name: (passed, message) for name, passed, message in verdicts(squared)}
    assert rows["callable"] == (True, faulty)
    assert rows["direction"] == (True, "")


class Module(nn.Module):
    """Looks like a LightningModule to the callback."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.model, self.criterion = nn.Linear(3, 2), loss


def test_lightning_hooks_by_name() -> None:
    module = Module(nn.MSELoss())
    callback = LightningWatch(tell=lambda text: None)
    callback.on_fit_start(None, module)
    fit(module.criterion, 5)
    assert callback.watches["criterion"].steps == 5
    with pytest.raises(NotFinite):
        fit(module.criterion, 5, poison_at=2)
    callback.on_fit_end(None, module)
    with pytest.raises(ValueError, match="holds no loss module"):
        LightningWatch().on_fit_start(None, nn.Linear(3, 2))


def test_the_pytest_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np

        truth = np.random.default_rng(0).normal(size=64)
        estimate = truth + 0.1 * np.random.default_rng(1).normal(size=64)

        def squared(prediction, target):
            return ((prediction - target) ** 2).mean()

        def test_good(assert_healthy):
            assert assert_healthy(squared, estimate, truth).exit_code == 0

        def test_wrong_sign(assert_healthy):
            assert_healthy(lambda p, t: -squared(p, t), estimate, truth)

        def test_left_out(assert_healthy):
            assert_healthy(lambda p, t: -squared(p, t), estimate, truth,
                           ignore_checks=["direction", "constant-predictor", "split-invariance"])
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*the loss is not healthy*", "*direction*"])
