"""Any task: losses and metrics against closed forms and loops; nested batches; callbacks."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset
from torchvision.models import googlenet

from neuroconv.training import evaluate_model, train
from neuroconv.training.curves import plot_curves
from neuroconv.training.metrics import TrainingBar
from tests.training.processes import refuse, regression, train_regression

QUICK: dict[str, Any] = {"device": "cpu", "progress": False}
MSE = nn.MSELoss()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_linear_regression_ends_at_the_normal_equations(accumulate: int) -> None:
    """45 samples are one batch, in parts of 22 and 23: unequal weights would end elsewhere."""
    outcome = train_regression(epochs=60, accumulate=accumulate, validation=(0, 45))
    inputs, targets = regression(0, 45).tensors
    design = torch.cat([inputs, torch.ones(45, 1).double()], 1)
    expected = torch.linalg.solve(design.T @ design, design.T @ targets)
    weight, bias = outcome["weights"].values()
    torch.testing.assert_close(torch.cat([weight[0], bias]), expected, rtol=1e-6, atol=1e-6)
    errors, val = design @ expected - targets, outcome["result"]["val"]
    assert (val["loss"], val["accuracy"]) == (pytest.approx(float(errors.square().mean())), None)
    means = {"mae": float(errors.abs().mean()), "mean_error": 0.0}
    assert val["metrics"] == pytest.approx(means, rel=1e-6, abs=1e-6)
    keys = "epoch train_loss train_mae train_mean_error learning_rate val_loss val_mae"
    assert list(outcome["result"]["history"][0]) == [*keys.split(), "val_mean_error"]


def test_the_best_epoch_has_the_lowest_validation_loss() -> None:
    result = train_regression(epochs=10, validation=(52, 53))["result"]
    best = min(result["history"], key=lambda record: record["val_loss"])
    assert result["best_epoch"] == best["epoch"] < 10
    assert result["val"]["loss"] == best["val_loss"]


def right(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs[:, 0] > 0) == labels[:, 0].bool()


def test_metrics_are_means_over_the_samples_of_unequal_batches() -> None:
    """Several labels a sample, in batches of 5, 5 and 3, without learning to speak of."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(13, 4), torch.rand(13, 3).round())
    model, weight = nn.Linear(4, 3), torch.tensor([1.0, 2.0, 3.0])
    keywords: dict[str, Any] = {
        "loss": nn.BCEWithLogitsLoss(pos_weight=weight),
        "metrics": {
            "values": right,
            "mean": lambda outputs, labels: right(outputs, labels).float().mean(),
            "number": lambda outputs, labels: float(right(outputs, labels).sum()) / len(labels),
        },
        "device": "cpu",
    }
    still = {"epochs": 1, "batch_size": 5, "learning_rate": 1e-30, "progress": False}
    record = train(model, data, data, **still, **keywords).history[0]
    hits, total = 0, 0.0
    for row, labels in data:
        logits = model(row).detach()
        hits += int(right(logits[None], labels[None]))
        positive, negative = (
            labels * logits.sigmoid().log(),
            (1 - labels) * (-logits).sigmoid().log(),
        )
        total -= float((weight * positive + negative).mean())
    means = {"val_loss": total / 13, **{f"val_{name}": hits / 13 for name in keywords["metrics"]}}
    assert 0 < hits < 13
    assert {k: v for k, v in record.items() if k in means} == pytest.approx(means, rel=1e-5)
    again = evaluate_model(model, data, batch_size=4, **keywords).record("val")
    assert again == pytest.approx(means, rel=1e-5)


def test_metrics_of_a_classification_stand_beside_its_accuracy(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
    metrics = {"top2": lambda logits, labels: (logits.topk(2).indices == labels[:, None]).any(1)}
    keywords: dict[str, Any] = {"test_data": data, "epochs": 2, "run_dir": tmp_path, **QUICK}
    result = train(nn.Linear(4, 3), data, data, metrics=metrics, **keywords)
    *epochs, last = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert epochs == result.history
    assert all(line["val_accuracy"] <= line["val_top2"] <= 1 for line in epochs)
    assert [*last] == ["best_epoch", "test_loss", "test_accuracy", "test_top2", "test_images"]


class Nested(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        x = torch.arange(3.0) + index
        return {"image": x, "more": (x[:1], index)}, {"value": float(x.sum()), "label": index % 2}


class TwoHeads(nn.Linear):
    def forward(self, inputs: Any) -> Any:
        value, *logits = super().forward(inputs["image"] + inputs["more"][0]).split([1, 2], 1)
        return {"value": value[:, 0], "nested": logits}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nested_batches_reach_the_model_and_the_loss(precision: str) -> None:
    def loss(outputs: Any, targets: Any) -> Tensor:
        value, logits = outputs["value"], outputs["nested"][0]
        assert value.dtype == logits.dtype == targets["value"].dtype == torch.float32
        return F.mse_loss(value, targets["value"]) + F.cross_entropy(logits, targets["label"])

    data = Nested()
    result = train(
        TwoHeads(3, 3), data, data, loss=loss, batch_size=4, precision=precision, **QUICK
    )
    assert result.val.loss == result.history[-1]["val_loss"] < result.history[0]["val_loss"]
    assert result.val.images == 10


def test_a_model_that_returns_no_tensor_needs_a_loss() -> None:
    data = TensorDataset(torch.rand(2, 3, 32, 32), torch.arange(2))
    model = googlenet(num_classes=2, aux_logits=True, init_weights=False)
    with pytest.raises(TypeError, match=r"returns a GoogLeNetOutputs, .*aux_logits=False.*loss="):
        train(model, data, data, **QUICK)

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        return F.cross_entropy(getattr(outputs, "logits", outputs), labels)

    assert train(model, data, data, loss=loss, epochs=1, **QUICK).val.loss > 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"loss": nn.MSELoss(reduction="none")}, r"\[4\]\): expected its mean .*a scalar"),
        ({"loss": lambda outputs, targets: 3.5}, "is 3.5: expected its mean"),
        ({"loss": lambda outputs, targets: MSE(outputs.detach(), targets)}, "no gradient"),
        ({"loss": "mse"}, "loss = 'mse': expected a function"),
        ({"loss": MSE, "label_smoothing": 0.1}, r"label_smoothing = 0\.1: give it to"),
        ({"loss": nn.AdaptiveLogSoftmaxWithLoss(4, 4, [2])}, "the loss has parameters to train"),
        ({"loss": MSE, "metrics": {"l1": nn.L1Loss}}, "l1 = .*expected a function, like"),
        ({"loss": MSE, "metrics": {"m": lambda o, t: o[:, None]}}, r"metric m: shape \(4, 1\) for"),
        ({"loss": MSE, "metrics": {"m": lambda o, t: o / 0}},
         "train_data in epoch 1: train_m (nan|inf)"),
        ({"loss": MSE, "metrics": {"top-5": MSE}}, "metric 'top-5': expected letters"),
        ({"metrics": {"accuracy": MSE}}, "metric 'accuracy': .*not .'loss', 'images', 'acc"),
        ({"metrics": {}}, "float32: expected one integer per input, or loss="),
    ],
)  # fmt: skip
def test_a_loss_or_metric_that_is_none(keywords: dict[str, Any], message: str) -> None:
    data = TensorDataset(torch.rand(4, 3), torch.rand(4))
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0 if "loss" in keywords else 1))
    with pytest.raises((ValueError, TypeError, ArithmeticError), match=message):
        train(model, data, data, epochs=1, **keywords, **QUICK)


# --- what is reported of an epoch


def test_a_callback_follows_the_checkpoint_and_curves_of_a_resumed_run_have_each_epoch_once(
    tmp_path: Path,
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    seen = []

    def callback(record: dict[str, Any]) -> None:
        assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == record
        seen.append(record["epoch"])
        if seen == [1, 2]:
            refuse(record)

    keywords: dict[str, Any] = {"epochs": 4, "run_dir": tmp_path, "tensorboard": True}
    with pytest.raises(RuntimeError, match="no more room for curves in epoch 2"):
        train_regression(callback=callback, **keywords)
    result = train_regression(resume=True, callback=callback, **keywords)["result"]
    assert seen == [1, 2, 3, 4]
    assert result == train_regression(epochs=4)["result"]
    curves = events.EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    for key in ("train_loss", "val_mae", "learning_rate"):
        points = [(event.step, event.value) for event in curves.Scalars(key)]
        assert points == [(r["epoch"], pytest.approx(r[key])) for r in result["history"]]


def test_curves_that_cannot_be_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="tensorboard = true: expected a run_dir"):
        train_regression(tensorboard=True)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r'pip install "neuroconv-zoo\[tensorboard\]"'):
        train_regression(tensorboard=True, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_bar_shows_the_phases_of_an_epoch_and_the_curves_its_metrics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    phases, frames = [], []

    class Watched(TrainingBar):
        def show(self, *phase: Any) -> None:
            super().show(*phase)
            phases.append(phase)
            with Console(width=150, file=sys.stdout) as console:
                console.print(self.get_renderable())
            frames.append(capsys.readouterr().out.splitlines())

    monkeypatch.setattr("neuroconv.training.trainer.TrainingBar", Watched)
    outcome = train_regression(epochs=2, batch_size=10, progress=True)
    validation = [("validation", done, 4) for done in range(3)]
    assert phases == [("training", 0, 4), *validation] * 2
    assert all(run.startswith("Sequential ") for run, _ in frames)
    assert "epoch 2/2" in frames[-1][0]
    assert frames[-1][1].startswith("validation")
    line = capsys.readouterr().err.splitlines()[-1]
    for text in ("Sequential  epoch 2/2  loss ", "  mae ", "  mean_error ", "  validation "):
        assert text in line
    assert "accuracy" not in line
    plot_curves(outcome["result"]["history"], tmp_path / "curves.png", label="")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
