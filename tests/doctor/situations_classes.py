"""What people do with losses over classes: the doctor sees the fault and leaves the twin alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lossary import Loss
from lossary.doctor.cases.data import log_softmax, sigmoid, softmax

Made = Callable[[], dict[str, Any]]

chance = np.random.default_rng(11)
CLASSES = 6
labels = chance.integers(0, CLASSES, 240)
scores = 2.0 * np.eye(CLASSES)[labels] + chance.normal(size=(240, CLASSES))
hot = np.eye(CLASSES)[labels]
several = (chance.random((240, CLASSES)) < 0.3).astype(np.float32)
several_scores = (3 * several - 1.5 + chance.normal(size=several.shape)).astype(np.float32)
yes = (chance.random(240) < 0.35).astype(np.float32)
yes_logit = (3 * yes - 1.5 + chance.normal(size=240)).astype(np.float32)
areas = np.repeat(np.repeat(chance.integers(0, 3, (4, 5, 6)), 2, axis=1), 2, axis=2)
area_scores = (2.5 * np.eye(3)[areas] + chance.normal(size=(*areas.shape, 3))).astype(np.float32)
area_scores = np.moveaxis(area_scores, -1, 1).copy()
void = np.where(chance.random(areas.shape) < 0.1, 255, areas)
tokens = chance.integers(0, 12, (10, 16))
token_scores = (4 * np.eye(12)[tokens] + chance.normal(size=(10, 16, 12))).astype(np.float32)
ends = chance.integers(3, 16, 10)[:, None]
padded = np.where(np.arange(16) < ends, tokens, -100)
padding = np.arange(16) < ends
teacher = softmax(scores + chance.normal(size=scores.shape))
rare = (np.arange(4000) % 1000 == 7).astype(np.float32)
rare_logit = (9 * rare - 7 + 0.7 * chance.normal(size=4000)).astype(np.float32)


def t(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array)


def pair(prediction: Any, target: Any, loss: Any, **more: Any) -> dict[str, Any]:
    """A case of PyTorch."""
    return {"prediction": t(prediction), "target": t(target), "loss": loss, **more}


def own(prediction: Any, target: Any, loss: Any, **more: Any) -> dict[str, Any]:
    """A case of NumPy."""
    return {"prediction": prediction, "target": target, "loss": loss, **more}


def over_the_batch(prediction: Any, target: Any) -> Any:
    return F.nll_loss(prediction.log_softmax(0), target)


def over_classes(prediction: Any, target: Any) -> Any:
    return F.nll_loss(prediction.log_softmax(1), target)


def divided_by_all(prediction: Any, target: Any) -> Any:
    values = F.cross_entropy(prediction, target, ignore_index=-100, reduction="none")
    return values.sum() / target.numel()


def divided_by_valid(prediction: Any, target: Any) -> Any:
    values = F.cross_entropy(prediction, target, ignore_index=-100, reduction="none")
    return values.sum() / (target != -100).sum()


def focal(prediction: Any, target: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
    cost = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    share = alpha * target + (1 - alpha) * (1 - target)
    return (share * (1 - (-cost).exp()) ** gamma * cost).mean()


def focal_without_alpha(
    prediction: Any, target: Any, alpha: float = 0.25, gamma: float = 2.0
) -> Any:
    cost = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    return ((1 - (-cost).exp()) ** gamma * cost).mean()


def distilled(prediction: Any, target: Any, temperature: float = 4.0) -> Any:
    student, taught = (prediction / temperature).log_softmax(1), (target / temperature).softmax(1)
    return F.kl_div(student, taught, reduction="batchmean") * temperature**2


def gained(prediction: Any, target: Any) -> Any:
    """The likelihood itself, without its minus."""
    return (target * F.logsigmoid(prediction) + (1 - target) * F.logsigmoid(-prediction)).mean()


def by_hand(prediction: Any, target: Any) -> Any:
    return -(target * prediction.log() + (1 - target) * (1 - prediction).log()).mean()


def soft_dice(prediction: Any, target: Any, smooth: float = 1.0) -> Any:
    share = prediction.sigmoid().flatten(1)
    truth = target.flatten(1)
    ratio = (2 * (share * truth).sum(1) + smooth) / (share.sum(1) + truth.sum(1) + smooth)
    return (1 - ratio).mean()


def hard_dice(prediction: Any, target: Any) -> Any:
    share, truth = (prediction > 0).float().flatten(1), target.flatten(1)
    return (1 - (2 * (share * truth).sum(1) + 1) / (share.sum(1) + truth.sum(1) + 1)).mean()


def smoothed(prediction: Any, target: Any, smoothing: float = 0.1) -> Any:
    soft = F.one_hot(target, prediction.shape[1]) * (1 - smoothing)
    return -((soft + smoothing / prediction.shape[1]) * prediction.log_softmax(1)).sum(1).mean()


def swapped(y_true: Any, y_pred: Any) -> Any:
    return F.binary_cross_entropy(y_pred, y_true)


def to_centre(prediction: Any, target: Any) -> Any:
    """Embeddings and labels: the columns are no classes."""
    centres = torch.linspace(-2, 2, 36, dtype=prediction.dtype).sin().reshape(6, 6) * 3
    return (prediction - centres[target]).square().sum(1).mean()


region = (areas == 1).astype(np.float32)
region_logit = area_scores[:, 1] - np.maximum(area_scores[:, 0], area_scores[:, 2])

BROKEN: dict[str, tuple[str, Made]] = {
    "255 marks unlabelled pixels": (
        "label-range",
        lambda: pair(area_scores, void, nn.CrossEntropyLoss()),
    ),
    "the padding token is beyond the vocabulary": (
        "label-range",
        lambda: own(token_scores, np.where(padding, tokens, 12), "cross_entropy"),
    ),
    "classes 1..6": (
        "label-range",
        lambda: own(scores, labels + 1, "cross_entropy"),
    ),
    "softmax over the batch": ("batch-dependence", lambda: pair(scores, labels, over_the_batch)),
    "divided by padding too": (
        "padding-invariance",
        lambda: pair(np.moveaxis(token_scores, -1, 1), padded, divided_by_all, ignore=-100, axis=1),
    ),
    "a softmax before the softmax, pixels": (
        "double-softmax",
        lambda: {
            "prediction": t(area_scores).softmax(1),
            "target": t(areas),
            "loss": F.cross_entropy,
        },
    ),
    "channels last in PyTorch": (
        "class-axis",
        lambda: pair(np.moveaxis(area_scores, 1, -1), areas, nn.CrossEntropyLoss()),
    ),
    "several labels under a softmax": (
        "encoding",
        lambda: pair(several_scores, several, nn.CrossEntropyLoss()),
    ),
    "one-hot whole numbers of pixels": (
        "encoding",
        lambda: pair(
            area_scores, np.moveaxis(np.eye(3, dtype=int)[areas], -1, 1), nn.CrossEntropyLoss()
        ),
    ),
    "percentages as soft labels": ("encoding", lambda: own(scores, 100 * teacher, "cross_entropy")),
    "smoothing added to every class": (
        "encoding",
        lambda: own(scores, 0.9 * hot + 0.1, "cross_entropy"),
    ),
    "whole numbers for BCEWithLogitsLoss": (
        "callable",
        lambda: pair(yes_logit, yes.astype(int), nn.BCEWithLogitsLoss()),
    ),
    "pos_weight of every row": (
        "callable",
        lambda: pair(several_scores, several, nn.BCEWithLogitsLoss(pos_weight=torch.ones(240))),
    ),
    "a sigmoid before BCEWithLogitsLoss": (
        "double-sigmoid",
        lambda: pair(sigmoid(several_scores), several, F.binary_cross_entropy_with_logits),
    ),
    "logits in BCELoss": (
        "logits-as-probabilities",
        lambda: pair(yes_logit, yes, nn.BCELoss()),
    ),
    "probabilities in NLLLoss, pixels": (
        "logits-as-probabilities",
        lambda: {
            "prediction": t(area_scores).softmax(1),
            "target": t(areas),
            "loss": nn.NLLLoss(),
        },
    ),
    "a mask of 0 and 255": (
        "target-range",
        lambda: own(region_logit, 255.0 * region, Loss("dice", predictions="logits")),
    ),
    "the threshold inside Dice": ("dead-gradient", lambda: pair(region_logit, region, hard_dice)),
    "alpha of the focal loss is forgotten": (
        "dead-flag",
        lambda: pair(yes_logit, yes, focal_without_alpha),
    ),
    "a teacher's probabilities, log_target=True": (
        "kl-inputs",
        lambda: pair(
            log_softmax(scores), teacher, nn.KLDivLoss(reduction="batchmean", log_target=True)
        ),
    ),
    "a divergence averaged over classes": (
        "reduction-mismatch",
        lambda: pair(log_softmax(scores), teacher, F.kl_div),
    ),
    "the likelihood without its minus": ("direction", lambda: pair(yes_logit, yes, gained)),
    "probabilities of exactly 0 and 1, by hand": (
        "nan-post-mortem",
        lambda: pair(np.round(sigmoid(yes_logit)), yes, by_hand),
    ),
    "hinge on 0 and 1": ("domain", lambda: pair(yes_logit, yes, nn.SoftMarginLoss())),
    "weights in the order of another list": (
        "weights-suspicious",
        lambda: pair(
            np.stack([-rare_logit, rare_logit], 1),
            rare.astype(int),
            nn.CrossEntropyLoss(weight=torch.tensor([2.0, 0.002])),
        ),
    ),
    "no answer but no": (
        "constant-predictor",
        lambda: own(np.full(4000, -6.9) + 0.01 * rare_logit, rare, "binary_cross_entropy"),
    ),
    "labels moved twice": (
        "label-shift",
        lambda: pair(
            np.moveaxis(token_scores, -1, 1),
            np.concatenate([tokens[:, 1:], np.full((10, 1), -100)], 1),
            nn.CrossEntropyLoss(),
        ),
    ),
}

CORRECT: dict[str, Made] = {
    "255 is ignored": lambda: pair(area_scores, void, nn.CrossEntropyLoss(ignore_index=255)),
    "255 is ignored by a partial": lambda: pair(
        area_scores, void, partial(F.cross_entropy, ignore_index=255)
    ),
    "-100 in the function": lambda: pair(np.moveaxis(token_scores, -1, 1), padded, F.cross_entropy),
    "flattened tokens": lambda: pair(
        token_scores.reshape(-1, 12), padded.reshape(-1), nn.CrossEntropyLoss()
    ),
    "softmax over classes": lambda: pair(scores, labels, over_classes),
    "divided by the valid labels": lambda: pair(
        np.moveaxis(token_scores, -1, 1), padded, divided_by_valid, ignore=-100, axis=1
    ),
    "one-hot floats of pixels": lambda: pair(
        area_scores,
        np.moveaxis(np.eye(3, dtype=np.float32)[areas], -1, 1),
        nn.CrossEntropyLoss(),
    ),
    "one-hot whole numbers, ours": lambda: own(scores, hot.astype(int), "cross_entropy"),
    "a teacher's distribution": lambda: pair(scores, teacher, nn.CrossEntropyLoss()),
    "mixed up": lambda: own(scores, 0.7 * hot + 0.3 * hot[::-1], "cross_entropy"),
    "rows without a label": lambda: own(
        scores, np.where(np.arange(240)[:, None] < 20, 0.0, hot), "cross_entropy"
    ),
    "label smoothing": lambda: pair(scores, labels, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "label smoothing by hand": lambda: pair(scores, labels, smoothed),
    "pos_weight of every label": lambda: pair(
        several_scores, several, nn.BCEWithLogitsLoss(pos_weight=torch.full((CLASSES,), 3.0))
    ),
    "several labels, soft margin": lambda: pair(
        several_scores, several, nn.MultiLabelSoftMarginLoss()
    ),
    "several labels by index": lambda: pair(
        several_scores,
        np.where(np.arange(CLASSES) == 0, labels[:, None], -1),
        nn.MultiLabelMarginLoss(),
    ),
    "probabilities in BCELoss": lambda: pair(
        sigmoid(yes_logit).astype(np.float32), yes, nn.BCELoss()
    ),
    "probabilities of exactly 0 and 1": lambda: pair(
        np.where(np.arange(240) % 7 == 0, 0.3 + 0.4 * yes, yes), yes, nn.BCELoss()
    ),
    "Dice with a smooth term": lambda: pair(region_logit, region, soft_dice),
    "Dice on an empty mask": lambda: own(
        region_logit, np.zeros_like(region), Loss("dice", predictions="logits")
    ),
    "a focal loss of one's own": lambda: pair(yes_logit, yes, focal),
    "log_target=True with logarithms": lambda: pair(
        log_softmax(scores), np.log(teacher), nn.KLDivLoss(reduction="batchmean", log_target=True)
    ),
    "a warm distillation": lambda: pair(
        scores, 1.5 * scores + 0.3 * chance.normal(size=scores.shape), distilled
    ),
    "one in a thousand": lambda: pair(rare_logit, rare, nn.BCEWithLogitsLoss()),
    "weights that sum to the classes": lambda: pair(
        np.stack([-rare_logit, rare_logit], 1),
        rare.astype(int),
        nn.CrossEntropyLoss(weight=torch.tensor([0.002, 1.998])),
    ),
    "y_true, y_pred": lambda: pair(sigmoid(yes_logit).astype(np.float32), yes, swapped),
    "margins of -1 and 1": lambda: pair(yes_logit, 2 * yes - 1, nn.SoftMarginLoss()),
    "distances to centres": lambda: pair(scores, labels, to_centre),
    "compiled": lambda: pair(yes_logit, yes, torch.jit.script(nn.BCEWithLogitsLoss())),
    "smooth L1 of a lone class": lambda: pair(
        hot[:, :1] + 0.2 * scores[:, 1:2], hot[:, :1], nn.SmoothL1Loss()
    ),
}
