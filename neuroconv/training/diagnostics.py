"""Diagnostics of a finished run's classifier: errors by class, calibration, perturbed images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from neuroconv.data.perturbation import add_noise, rotate, shift
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.runs import check_split, rebuild

KINDS: dict[str, tuple[Any, tuple[float, ...]]] = {
    "noise_sigma": (add_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),  # ImageNet-C's (arXiv:1903.12261)
    "shift_pixels": (shift, (1, 2, 4, 8, 16)),  # up to a quarter of the image
    "rotation_degrees": (rotate, (15, 30, 45, 60, 90)),
}
BINS = 15  # of confidence, as many as in Guo et al. 2017, arXiv:1706.04599


def diagnose(run_dir: str | Path, split: str = "test") -> tuple[Score, dict[str, Any]]:
    """Scores the best weights of a finished run on images of "val" or "test", plain and perturbed.

    Returns the plain score, and for a JSON file what `classification` does and "perturbed": the
    accuracy by the standard deviation of noise, by pixels of shift and by degrees of rotation, each
    a list of `share` with a "level", 0 first. Images are perturbed before they become frames.
    """
    check_split(split)
    config, model, splits = rebuild(run_dir)
    data, options = getattr(splits, split), config.evaluation()
    passes = [
        (kind, level, data.perturbed(partial(function, level)))
        for kind, (function, levels) in KINDS.items()
        for level in levels
        if kind != "shift_pixels" or level <= min(data.image_shape[1:]) / 4
    ]
    console, outputs = Console(stderr=True), list[Tensor]()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("plain images", total=len(data) * (1 + len(passes)))
        model.register_forward_hook(lambda *call: bar.advance(task, len(call[-1])))
        with model.register_forward_hook(lambda *call: outputs.append(call[-1])):
            plain = evaluate_model(model, data, **options)
        logits = torch.cat(outputs).cpu().double()
        numbers = classification(logits, data.targets, splits.class_names)
        perturbed = {kind: [{"level": 0, **numbers["accuracy"]}] for kind in KINDS}
        for kind, level, frames in passes:
            bar.update(task, description=f"{kind} {level}")
            score = evaluate_model(model, frames, **options)
            accuracy = share(round((score.accuracy or 0.0) * score.images), score.images)
            perturbed[kind].append({"level": level, **accuracy})
    subject = {"run": str(run_dir), "model": config.model["name"], "data": config.data.name}
    return plain, {**subject, "split": split, **numbers, "perturbed": perturbed}


def classification(
    logits: Tensor, labels: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns errors by class and calibration from logits (N, classes) and labels (N,).

    - accuracy, and each class's recall and precision: see `share`.
    - confusion_matrix: images; true classes down, predicted ones across.
    - cross_entropy_nats: mean negative log likelihood of the true class.
    - brier_score: squared error of the probabilities, summed over classes; the mean, 0 to 2.
    - reliability: of 15 bins of confidence, the largest probability, from (0, 1/15] to (14/15, 1]:
      images, their mean confidence and accuracy.
    - expected_calibration_error: |accuracy - mean confidence| of a bin; the mean over images.
    """
    from sklearn.metrics import confusion_matrix  # slow to import

    probabilities, predicted = logits.softmax(1).numpy(), logits.argmax(1).numpy()
    confidence, right = probabilities.max(1), predicted == labels
    errors = probabilities - np.eye(len(class_names))[labels]
    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    bins = np.digitize(confidence, np.arange(1, BINS) / BINS, right=True)
    counts, hits, sums = (np.bincount(bins, x, BINS) for x in (None, right, confidence))
    rows = zip(class_names, matrix.sum(1), matrix.sum(0), matrix.diagonal(), strict=True)
    return {
        "images": len(labels), "accuracy": share(right.sum(), len(labels)),
        "mean_confidence": float(confidence.mean()),
        "cross_entropy_nats": float(F.cross_entropy(logits, torch.from_numpy(labels))),
        "brier_score": float((errors**2).sum() / len(labels)),
        "expected_calibration_error": float(np.abs(hits - sums).sum() / len(labels)),
        "reliability": [
            {"images": int(n), "confidence": total / n if n else None, "accuracy": share(hit, n)}
            for n, hit, total in zip(counts, hits, sums.tolist(), strict=True)
        ],
        "classes": [
            {"name": name, "images": int(n), "recall": share(hit, n), "precision": share(hit, m)}
            for name, n, m, hit in rows
        ],
        "confusion_matrix": matrix.tolist(),
    }  # fmt: skip


def share(part: float, whole: int) -> dict[str, float | None]:
    """Returns "value", part / whole, and Wilson's 95 % interval, "low" and "high"; None of 0."""
    from scipy.stats import binomtest  # slow to import

    if not whole:
        return dict.fromkeys(("value", "low", "high"))
    low, high = binomtest(int(part), int(whole)).proportion_ci(method="wilson")
    return {"value": float(part) / int(whole), "low": float(low), "high": float(high)}
