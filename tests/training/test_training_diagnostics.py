"""Errors by class, calibration and perturbed accuracy, against loops over samples."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroconv.data import encode, sample_seeds
from neuroconv.training import DataConfig, evaluate, rebuild, run
from neuroconv.training.diagnostics import KINDS, classification, diagnose, share
from tests.training.small_runs import small_config


@pytest.mark.parametrize(("part", "whole"), [(0, 10), (10, 10), (7, 10), (9_731, 10_000)])
def test_a_share_has_wilsons_interval(part: int, whole: int) -> None:
    z, p = 1.959963984540054, part / whole
    centre = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(p * (1 - p) / whole + (z / (2 * whole)) ** 2)
    row = share(part, whole)
    assert row["value"] == p
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("images", "classes"), [(300, 2), (500, 10), (40, 100)])
def test_errors_and_calibration_are_those_of_a_loop(images: int, classes: int) -> None:
    logits = 3 * torch.randn(images, classes, dtype=torch.float64)
    labels = torch.randint(classes, (images,)).numpy()
    logits[range(images), labels] += 2
    numbers = classification(logits, labels, list(map(str, range(classes))))
    cells = [[0] * classes for _ in range(classes)]
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    likelihood = brier = error = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        odds = [math.exp(logit) for logit in row]
        probabilities = [odd / sum(odds) for odd in odds]
        guess, confidence = row.index(max(row)), max(probabilities)
        cells[label][guess] += 1
        bins[math.ceil(15 * confidence) - 1].append((confidence, guess == label))
        likelihood -= math.log(probabilities[label]) / images
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(probabilities)) / images
    for row, members in zip(numbers["reliability"], bins, strict=True):
        hits = sum(hit for _, hit in members)
        assert (row["images"], row["accuracy"]) == (len(members), share(hits, len(members)))
        if members:
            confidence = math.fsum(value for value, _ in members) / len(members)
            assert row["confidence"] == pytest.approx(confidence, rel=1e-12)
            error += len(members) / images * abs(hits / len(members) - confidence)
    assert numbers["confusion_matrix"] == cells
    assert numbers["accuracy"] == share(sum(cells[k][k] for k in range(classes)), images)
    keys = "cross_entropy_nats", "brier_score", "expected_calibration_error"
    assert [numbers[key] for key in keys] == pytest.approx([likelihood, brier, error], rel=1e-12)
    for k, row in enumerate(numbers["classes"]):
        guesses = sum(cells[true][k] for true in range(classes))
        recall, precision = share(cells[k][k], sum(cells[k])), share(cells[k][k], guesses)
        assert row == {
            "name": str(k), "images": sum(cells[k]), "recall": recall, "precision": precision
        }  # fmt: skip


def test_a_bin_ends_with_its_upper_edge_and_a_tie_goes_to_the_first_class() -> None:
    numbers = classification(torch.zeros(1, 3, dtype=torch.float64), np.array([2]), ["a", "b", "c"])
    assert numbers["reliability"][4]["images"] == 1  # 5/15 belongs to (4/15, 5/15]
    assert numbers["confusion_matrix"] == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert numbers["expected_calibration_error"] == pytest.approx(1 / 3)
    assert numbers["classes"][1]["recall"] == share(0, 0) == dict.fromkeys(("value", "low", "high"))


@pytest.mark.parametrize("encoding", ["none", "saccade"])
def test_perturbed_accuracy_is_that_of_a_loop_over_samples(encoding: str, tmp_path: Path) -> None:
    config = small_config(tmp_path)
    data = DataConfig(name="digits", encoding=encoding, time_steps=2, train_limit=300)  # type: ignore[arg-type]
    folder = run(type(config)(config.model, data, config.train), seed=3, progress=False).run_dir
    score, numbers = diagnose(folder, "val")
    assert score == evaluate(folder, "val")
    assert numbers["accuracy"]["value"] == score.accuracy
    assert numbers["cross_entropy_nats"] == pytest.approx(score.loss, rel=1e-5)
    levels = {kind: [row["level"] for row in rows] for kind, rows in numbers["perturbed"].items()}
    assert levels.pop("shift_pixels") == [0, 1, 2]  # to a quarter of 8 pixels
    assert levels == {kind: [0, *KINDS[kind][1]] for kind in levels}
    _, model, splits = rebuild(folder)
    stills, labels = splits.val.images(range(len(splits.val)))
    seeds = sample_seeds(3, 0, range(len(labels)))
    for kind, rows in numbers["perturbed"].items():
        assert rows[0] == {"level": 0, **numbers["accuracy"]}
        for row in (rows[1], rows[-1]):
            correct = 0
            for still, label, seed in zip(stills, labels, seeds, strict=True):
                image = KINDS[kind][0](row["level"], still, int(seed))
                frames = encode(image[None], encoding, 2, [seed], 3)  # type: ignore[arg-type]
                with torch.inference_mode():
                    correct += int(model.eval()(frames).argmax() == label)
            assert row == {"level": row["level"], **share(correct, 180)}
