"""What people do with losses of values: the doctor sees the fault and leaves the twin alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lossary import Loss

Made = Callable[[], dict[str, Any]]

chance = np.random.default_rng(12)
truth = chance.normal(3.0, 2.0, 256).astype(np.float32)
estimate = (truth + 0.4 * chance.normal(size=256)).astype(np.float32)
price = np.exp(chance.normal(12.0, 0.6, 256)).astype(np.float32)
price_estimate = (price * np.exp(0.2 * chance.normal(size=256))).astype(np.float32)
table = chance.normal(size=(256, 4)).astype(np.float32)
table_estimate = (table + 0.3 * chance.normal(size=(256, 4))).astype(np.float32)
rate = chance.gamma(2.0, 2.0, 256).astype(np.float32)
events = chance.poisson(rate).astype(np.float32)
levels = chance.integers(0, 5, 256)
share = chance.beta(2, 5, 256).astype(np.float32)
mask = chance.random((256, 4)) < 0.6
images = chance.random((4, 3, 8, 8)).astype(np.float32)
anchors = chance.normal(size=(32, 6)).astype(np.float32)
near = (anchors + 0.2 * chance.normal(size=(32, 6))).astype(np.float32)
far = chance.normal(size=(32, 6)).astype(np.float32)
half = {"prediction": torch.tensor(estimate + 60).half(), "target": torch.tensor(truth + 60).half()}
brain = {
    "prediction": torch.tensor(table_estimate).bfloat16(),
    "target": torch.tensor(table).bfloat16(),
}


def t(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def pair(prediction: Any, target: Any, loss: Any, **more: Any) -> dict[str, Any]:
    return {"prediction": t(prediction), "target": t(target), "loss": loss, **more}


def own(prediction: Any, target: Any, loss: Any, **more: Any) -> dict[str, Any]:
    return {"prediction": prediction, "target": target, "loss": loss, **more}


def squared(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


def pinball(prediction: Any, target: Any, quantile: float = 0.9) -> Any:
    error = target - prediction
    return torch.maximum(quantile * error, (quantile - 1) * error).mean()


def pinball_turned(prediction: Any, target: Any, quantile: float = 0.9) -> Any:
    error = target - prediction
    return torch.minimum(quantile * error, (quantile - 1) * error).mean()


def explained(prediction: Any, target: Any) -> Any:
    """The coefficient of determination, which should grow."""
    return 1 - ((prediction - target) ** 2).sum() / ((target - 3.0) ** 2).sum()


def unexplained(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean() / 4.0


def log_error(prediction: Any, target: Any) -> Any:
    return (prediction.log() - target.log()).square().mean()


def log1p_error(prediction: Any, target: Any) -> Any:
    return (prediction.clamp(min=0).log1p() - target.log1p()).square().mean()


def relative(prediction: Any, target: Any) -> Any:
    return ((prediction - target).abs() / target).mean()


def relative_safe(prediction: Any, target: Any) -> Any:
    return ((prediction - target).abs() / target.abs().clamp(min=1.0)).mean()


def root(prediction: Any, target: Any) -> Any:
    return (prediction - target).square().sum(-1).sqrt().mean()


def root_safe(prediction: Any, target: Any) -> Any:
    return ((prediction - target).square().sum(-1) + 1e-8).sqrt().mean()


def masked(prediction: Any, target: Any, mask: Any) -> Any:
    keep = mask.to(prediction.dtype)
    return ((prediction - target).square() * keep).sum() / keep.sum().clamp(min=1)


def masked_by_all(prediction: Any, target: Any, mask: Any) -> Any:
    return ((prediction - target).square() * mask).mean()


def masked_late(prediction: Any, target: Any, mask: Any) -> Any:
    """NaN under the mask times 0 is NaN."""
    values = (prediction - target).abs().sqrt()
    return (values * mask).sum() / mask.sum()


def detached(prediction: Any, target: Any) -> Any:
    return ((prediction.detach() - target) ** 2).mean()


def rounded(prediction: Any, target: Any) -> Any:
    return (prediction.round() - target).square().mean()


def per_value(prediction: Any, target: Any) -> Any:
    return (prediction - target) ** 2


def likelihood(prediction: Any, target: Any) -> Any:
    return torch.exp(-((prediction - target) ** 2)).mean()


def in_half(prediction: Any, target: Any) -> Any:
    """The square multiplied out: differences of large numbers."""
    return (prediction**2 - 2 * prediction * target + target**2).mean()


def widened(prediction: Any, target: Any) -> Any:
    return ((prediction.float() - target.float()) ** 2).mean()


def centred(prediction: Any, target: Any) -> Any:
    prediction -= prediction.mean()
    return ((prediction - target + target.mean()) ** 2).mean()


class Balanced(nn.Module):
    """Learns how uncertain its task is, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(()))
        self.calls = 0

    def forward(self, prediction: Any, target: Any) -> Any:
        self.calls += 1
        self.center += 0.1 * (target.mean() - self.center)
        error = (prediction - target).square().mean()
        return error * (-self.log_variance).exp() + self.log_variance


class Forgetful(nn.Module):
    """Its delta does nothing."""

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, prediction: Any, target: Any) -> Any:
        return (prediction - target).abs().mean()


def noisy(prediction: Any, target: Any) -> Any:
    """Targets are jittered anew in each call."""
    return (prediction - target - 0.01 * torch.randn_like(target)).square().mean()


outlying = np.where(np.arange(256) % 100 == 5, 1000 * truth, truth)
missing = np.where(np.arange(256) % 50 == 5, np.nan, truth)
holes = np.where(mask, table, np.nan)

BROKEN: dict[str, tuple[str, Made]] = {
    "a column against a row, a loss of one's own": (
        "broadcast",
        lambda: pair(estimate[:, None], truth, squared),
    ),
    "(N, 1, H, W) against (N, H, W)": (
        "broadcast",
        lambda: pair(images[:, :1], images[:, 0] + 0.1, nn.L1Loss()),
    ),
    "a pinball turned round": ("direction", lambda: pair(estimate, truth, pinball_turned)),
    "a score that should grow": ("direction", lambda: pair(estimate, truth, explained)),
    "a likelihood that should grow": ("direction", lambda: pair(estimate, truth, likelihood)),
    "a logarithm of values below 0": (
        "nan-post-mortem",
        lambda: pair(estimate, np.abs(truth), log_error),
    ),
    "a percentage with a target of 0": (
        "nan-post-mortem",
        lambda: pair(estimate, np.where(np.arange(256) == 41, 0, truth), relative),
    ),
    "our percentage with targets of 0": ("domain", lambda: own(rate, events, "mape")),
    "a root at a perfect prediction": (
        "edge-gradients",
        lambda: pair(table_estimate, table, root),
    ),
    "rows in another unit": ("domination", lambda: own(estimate, outlying, "mse")),
    "rows in another unit, PyTorch": (
        "domination",
        lambda: pair(estimate, outlying, nn.MSELoss()),
    ),
    "targets that are missing": ("nan-target", lambda: own(estimate, missing, "huber")),
    "divided by what is masked too": (
        "padding-invariance",
        lambda: pair(table_estimate, table, masked_by_all, mask=t(mask)),
    ),
    "missing values times 0": (
        "mask-leak",
        lambda: pair(np.where(mask, table_estimate, table), table, masked_late, mask=t(mask)),
    ),
    "detached": ("dead-gradient", lambda: pair(estimate, truth, detached)),
    "rounded": ("dead-gradient", lambda: pair(estimate, truth, rounded)),
    "a delta that does nothing": ("dead-flag", lambda: pair(estimate, truth, Forgetful())),
    "float16 throughout": ("precision-gap", lambda: {**half, "loss": in_half}),
    "centres its input in place": ("callable", lambda: pair(estimate, truth, centred)),
    "counts under the Gamma likelihood": ("domain", lambda: own(rate, events, "gamma_deviance")),
    "negative rates": (
        "domain",
        lambda: pair(estimate - 3, events, nn.PoissonNLLLoss(log_input=False)),
    ),
    "labels 0 and 1 for pairs": (
        "domain",
        lambda: {
            "prediction": (t(anchors), t(near)),
            "target": t(np.arange(32) % 2),
            "loss": nn.CosineEmbeddingLoss(),
        },
    ),
    "one variance for each row of a table": (
        "variance-shape",
        lambda: {
            "prediction": (t(table_estimate[:4]), t(np.ones(4, np.float32))),
            "target": t(table[:4]),
            "loss": nn.GaussianNLLLoss(),
        },
    ),
    "prices under a squared error": (
        "target-suggests",
        lambda: own(price_estimate, price * np.exp(np.linspace(-3, 3, 256)), "mse"),
    ),
    "all embeddings in one place": (
        "collapse",
        lambda: own(np.ones((32, 6)) + 1e-7 * anchors, np.arange(32) // 4, None, margin=0.3),
    ),
    "a temperature of 100": (
        "collapse",
        lambda: own((anchors, near), None, Loss("info_nce", temperature=100.0)),
    ),
    "weights below 0": (
        "weights-suspicious",
        lambda: own(estimate, truth, "mse", weights=np.linspace(-1, 2, 256)),
    ),
    "a Hessian that is 0": (
        "gradient-check",
        lambda: own(
            estimate, truth, "mae", gradient=np.sign(estimate - truth) / 256, hessian=0 * truth
        ),
    ),
    "a gradient that is a sum": (
        "gradient-check",
        lambda: own(estimate, truth, "mse", gradient=2 * (estimate - truth)),
    ),
    "a sum called a mean": (
        "oracle-parity",
        lambda: pair(estimate, truth, nn.L1Loss(reduction="mean"), reference="mse"),
    ),
    "only the mean is learnt": (
        "constant-predictor",
        lambda: pair(truth.mean() + 0.01 * far[:, 0].repeat(8), truth, nn.MSELoss()),
    ),
}

CORRECT: dict[str, Made] = {
    "a column and a column": lambda: pair(estimate[:, None], truth[:, None], squared),
    "a pinball": lambda: pair(estimate, truth, pinball),
    "what is left unexplained": lambda: pair(estimate, truth, unexplained),
    "logarithms of what is above 0": lambda: pair(price_estimate, price, log_error),
    "log1p of counts with zeros": lambda: pair(rate, events, log1p_error),
    "a percentage that is kept from 0": lambda: pair(estimate, truth, relative_safe),
    "a root with an epsilon": lambda: pair(table_estimate, table, root_safe),
    "the same rows under Huber": lambda: pair(estimate, outlying, nn.HuberLoss()),
    "missing and masked": lambda: own(estimate, missing, "mse", mask=~np.isnan(missing)),
    "a table with holes, masked": lambda: own(table_estimate, holes, "mae", mask=mask),
    "divided by what counts": lambda: pair(table_estimate, table, masked, mask=t(mask)),
    "one value for each": lambda: pair(estimate, truth, per_value),
    "a module with state": lambda: pair(estimate, truth, Balanced()),
    "a loss that draws at random": lambda: pair(estimate, truth, noisy),
    "float16 that is widened": lambda: {**half, "loss": widened},
    "bfloat16, PyTorch": lambda: {**brain, "loss": nn.MSELoss()},
    "bfloat16, ours": lambda: {**brain, "loss": "mse"},
    "counts and logarithms of rates": lambda: pair(np.log(rate), events, nn.PoissonNLLLoss()),
    "counts and rates": lambda: pair(rate, events, nn.PoissonNLLLoss(log_input=False)),
    "counts with zeros, ours": lambda: own(np.log(rate), events, "poisson_nll"),
    "shares on logits": lambda: own(np.log(share / (1 - share)), share, "binary_cross_entropy"),
    "mean and variance": lambda: {
        "prediction": (t(table_estimate), t(np.full_like(table, 0.1))),
        "target": t(table),
        "loss": nn.GaussianNLLLoss(),
    },
    "pairs of -1 and 1": lambda: {
        "prediction": (t(anchors), t(near)),
        "target": t(2 * (np.arange(32) % 2) - 1),
        "loss": nn.CosineEmbeddingLoss(),
    },
    "triplets": lambda: {
        "prediction": (t(anchors), t(near), t(far)),
        "loss": nn.TripletMarginLoss(margin=0.3),
    },
    "which is the larger": lambda: {
        "prediction": (t(estimate), t(estimate[::-1].copy())),
        "target": t(np.sign(truth - truth[::-1])),
        "loss": nn.MarginRankingLoss(margin=0.1),
    },
    "contrastive": lambda: {
        "prediction": (anchors, near),
        "loss": Loss("info_nce", temperature=0.1),
    },
    "contrastive, as warm as the cosine": lambda: {
        "prediction": (anchors, near),
        "loss": Loss("info_nce", temperature=1.0),
    },
    "images": lambda: pair(images, images[::-1].copy() * 0.5 + images * 0.5, nn.L1Loss()),
    "prices, their logarithm": lambda: own(
        np.log(price_estimate), np.log(price), Loss("huber", delta=0.5)
    ),
    "weights that sum to the rows": lambda: own(
        estimate, truth, "mse", weights=(price / price.mean()).clip(0, 5)
    ),
    "grades as cumulative answers": lambda: own(
        3.0 * (levels[:, None] > np.arange(4)) - 1.5 + 0.5 * far.reshape(-1)[:4],
        (levels[:, None] > np.arange(4)).astype(float),
        "binary_cross_entropy",
    ),
    "least squares of 0 and 1": lambda: pair(
        (levels > 2) + 0.4 * estimate - 0.4 * truth, (levels > 2).astype(np.float32), squared
    ),
    "a perfect prediction": lambda: pair(truth, truth, nn.MSELoss()),
}
