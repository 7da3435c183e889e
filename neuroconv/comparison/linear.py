"""The linear baseline that a network has to beat."""

import warnings

import numpy as np
from numpy.typing import NDArray

from neuroconv.data import DataSplits, Frames

LARGEST = 60_000
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C: the larger, the weaker the penalty


def linear_baseline(splits: DataSplits) -> float:
    """Returns the test accuracy of a converged logistic regression on a still image's pixels.

    Pixels are standardised. The penalty is weakened tenfold from C = 1e-5 to 1, and the search ends
    where validation accuracy falls; the best one is tested once. Of more than 60,000
    training images a fixed stratified 60,000 are fitted.

    Raises:
        ValueError: the inputs are frames; load them with encoding="none".
        RuntimeError: the fit has not converged.
    """
    # scikit-learn is slow to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_x, train_y = _pixels(splits.train)
    if len(train_y) > LARGEST:
        train_x, _, train_y, _ = train_test_split(
            train_x, train_y, train_size=LARGEST, stratify=train_y, random_state=0
        )
    val_x, val_y = _pixels(splits.val)
    best_score, best = -1.0, None
    for strength in STRENGTHS:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2_000))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                classifier.fit(train_x, train_y)
            except ConvergenceWarning as error:
                raise RuntimeError(f"logistic regression with C = {strength}: {error}") from None
        score = classifier.score(val_x, val_y)
        if score < best_score:
            break
        best_score, best = score, classifier
    assert best is not None  # a score is at least 0
    return float(best.score(*_pixels(splits.test)))


def _pixels(data: Frames) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns images as rows (N, C x H x W), and labels (N,)."""
    if data.encoding != "none":
        raise ValueError(
            f'inputs encoded by {data.encoding!r}: expected still images: load with encoding="none"'
        )
    images, labels = data.batch(range(len(data)))
    return images.flatten(1).numpy(), labels.numpy()
