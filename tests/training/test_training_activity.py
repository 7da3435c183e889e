"""Firing rates and sparsity while a model is evaluated: counted, recorded, printed and drawn."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuroconv.layers import FiringRate
from neuroconv.neurons import Granule, GranuleConv2d
from neuroconv.training import evaluate_model, train
from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.curves import plot_curves
from neuroconv.zoo import ClimbingFibres, create_model

POPULATIONS = ["granular.granule", "granular.golgi", "purkinje", "nuclei"]
QUICK: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 8, "progress": False, "device": "cpu"}


def images(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(count, 1, 6, 6, generator=generator), torch.arange(count) % 3)


def cerebellum() -> nn.Module:
    torch.manual_seed(0)
    cells = {"granule": 20, "golgi": 2, "purkinje": 4, "nuclei": 3}
    sizes: dict[str, Any] = {name: {"cells": number} for name, number in cells.items()}
    return create_model("cerebellum_tiny", image_shape=(1, 6, 6), num_classes=3, **sizes)


def plain_cnn() -> nn.Module:
    return create_model("plain_cnn", image_shape=(1, 6, 6), num_classes=3)


def count(batches: list[Tensor]) -> dict[str, float]:
    """Number by number: rates (B, N, T, ...) of several batches of the same neurons."""
    total, active, values = 0.0, 0, 0
    fired: dict[tuple[int, ...], bool] = {}
    for rates in batches:
        for index in torch.cartesian_prod(*map(torch.arange, rates.shape)).tolist():
            rate = float(rates[tuple(index)])
            neuron = (index[1], *index[3:])
            fired[neuron] = fired.get(neuron, False) or rate > 0
            total, active, values = total + rate, active + (rate > 0), values + 1
    return {
        "mean_rate": total / values,
        "active_share": active / values,
        "silent_share": sum(not fires for fires in fired.values()) / len(fired),
    }


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# --- the monitor


@pytest.mark.parametrize("kind", ["population", "map of one step", "map of three steps"])
def test_rates_of_several_batches_against_a_count(kind: str) -> None:
    """A position of a map is a neuron. Some neurons are silent, others fire now and then."""
    if kind == "population":
        cells: Any = Granule(12, 3, tree={"filter": (3, 4, 2)}).eval()
        batches = [torch.rand(4, 12, 2), torch.rand(1, 12, 2)]
    else:
        steps = 1 if "one" in kind else 3
        cells = GranuleConv2d(2, 3, (2, 3), time_steps=steps).eval()
        batches = [torch.rand(2, 2, steps, 5, 6), torch.rand(3, 2, steps, 5, 6)]
    with torch.no_grad(), ActivityMonitor(nn.Sequential(nn.Identity(), cells)) as monitor:
        cells.bias += torch.tensor([-100.0, -0.4, 0.0])
        rates = [cells(batch) for batch in batches]
    assert monitor.summary() == {"1": pytest.approx(count(rates))}
    assert monitor.summary()["1"]["silent_share"] >= 1 / 3
    assert 0 < monitor.summary()["1"]["active_share"] < 1


def test_granule_cells_in_the_golgi_cells_loop_fire_step_by_step() -> None:
    model = cerebellum().eval()
    recorded: dict[str, list[Tensor]] = {path: [] for path in POPULATIONS}
    for path, module in model.named_modules():
        if isinstance(module, FiringRate):
            record = recorded[path.removesuffix(".firing")].append
            module.register_forward_hook(lambda module, args, rate, record=record: record(rate))
    data = torch.rand(3, 1, 6, 6)
    with torch.no_grad(), ActivityMonitor(model) as monitor:
        model(data)
        model(data[:2])
    assert list(monitor.summary()) == POPULATIONS
    assert [len(steps) for steps in recorded.values()] == [2 * 5, 2 * 4, 2, 2]
    for path, part in monitor.summary().items():
        half = len(recorded[path]) // 2
        whole = [torch.cat(recorded[path][:half], 2), torch.cat(recorded[path][half:], 2)]
        assert part == pytest.approx(count(whole)), path


def test_the_monitor_changes_nothing_and_leaves_no_hook() -> None:
    model, image = cerebellum().eval(), torch.rand(1, 1, 6, 6)
    expected = model(image)
    with ActivityMonitor(model) as monitor:
        assert hooks(model) == 4
        assert torch.equal(model(image), expected)
        with pytest.raises(ValueError, match="images have shape"):
            model(torch.rand(1, 1, 5, 5))
    assert hooks(model) == 0
    before = monitor.summary()
    model(10 * image)
    assert monitor.summary() == before


def test_complex_spikes_are_a_mean_over_images() -> None:
    model, data = cerebellum(), images(20)
    with ActivityMonitor(model) as monitor:
        evaluate_model(model, data, batch_size=8, device="cpu", monitor=monitor)  # 8, 8 and 4
    rate = ClimbingFibres(3, 4)(model(data.tensors[0]).detach(), data.tensors[1])
    spikes = monitor.summary()["climbing_fibres"]
    assert spikes == {"complex_spikes_per_second": pytest.approx(float(rate.mean()))}


def test_bfloat16_rates_are_summed_exactly() -> None:
    stage = FiringRate()
    with ActivityMonitor(nn.Sequential(stage)) as monitor:
        stage(torch.full((1000, 3, 5), 1.0, dtype=torch.bfloat16))
    assert monitor.summary()[""] == {"mean_rate": 1.0, "active_share": 1.0, "silent_share": 0.0}


# --- training


def test_the_record_of_an_epoch_holds_the_activity_in_validation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, keywords = cerebellum(), QUICK | {"progress": True, "epochs": 2}
    result = train(model, images(20), images(10), run_dir=tmp_path, **keywords)
    assert hooks(model) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[:-1] == result.history
    assert "activity" not in lines[-1]
    with ActivityMonitor(model) as monitor:
        evaluate_model(model, images(10), batch_size=8, device="cpu", monitor=monitor)
    assert monitor.summary() == result.history[result.best_epoch - 1]["activity"]
    assert list(monitor.summary()) == [*POPULATIONS, "climbing_fibres"]
    shown = capfd.readouterr().err
    for record in result.history:
        shares = [f"{path} {record['activity'][path]['active_share']:.0%}" for path in POPULATIONS]
        assert f"    active: {', '.join(shares)}\n" in shown
    train(plain_cnn(), images(20), images(10), **keywords)
    assert "active" not in capfd.readouterr().err


@pytest.mark.parametrize("activity", [{"granule": 0.2, "purkinje": 0.7}, {}])
def test_curves_have_a_third_panel_where_there_are_neurons(
    tmp_path: Path, activity: dict[str, float]
) -> None:
    parts: dict[str, Any] = {name: {"active_share": share} for name, share in activity.items()}
    spikes = {"climbing_fibres": {"complex_spikes_per_second": 1.0}}
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    history = [
        {"epoch": epoch, **dict.fromkeys(keys, 1 / epoch), "activity": parts | spikes}
        for epoch in (1, 2)
    ]
    plot_curves(history, tmp_path / "curves.svg", label="model, seed 0")
    picture = (tmp_path / "curves.svg").read_text()  # names its texts in comments
    assert len(set(re.findall(r'id="axes_(\d+)"', picture))) == (3 if activity else 2)
    for text in ("model, seed 0", "validation", "training", "cross entropy (nats)"):
        assert f"<!-- {text} -->" in picture
    for text in ("neurons that fire (validation)", "granule", "purkinje"):
        assert (f"<!-- {text} -->" in picture) is bool(activity)
    assert "climbing" not in picture
