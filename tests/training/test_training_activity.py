"""Firing rates and sparsity while a model is evaluated: counted, recorded, printed and drawn."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuroconv.layers import FiringRate
from neuroconv.neurons import Granule, GranuleConv2d, MixedPopulation, Purkinje
from neuroconv.training import evaluate_model, train
from neuroconv.training.activity import ActivityMonitor, active_shares
from neuroconv.training.curves import plot_curves
from neuroconv.zoo import ClimbingFibres, create_model

SMALL: dict[str, Any] = {
    "granule": {"cells": 20},
    "golgi": {"cells": 2},
    "purkinje": {"cells": 4},
    "nuclei": {"cells": 3},
}
QUICK: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 8, "progress": False, "device": "cpu"}


class Images(Dataset[Any]):
    """Small images of three classes, and an exception at the n-th item asked for."""

    def __init__(self, count: int = 20, fail_at: int = -1) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 1, 6, 6, generator=generator)
        self.fail_at, self.reads = fail_at, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        if self.reads == self.fail_at:
            raise RuntimeError("power cut")
        return self.images[index], index % 3


def build(name: str = "cerebellum_tiny", seed: int = 0, **keywords: Any) -> nn.Module:
    torch.manual_seed(seed)
    sizes = SMALL if name == "cerebellum_tiny" else {"widths": (3, 4), "strides": (2, 1)}
    return create_model(name, image_shape=(1, 6, 6), num_classes=3, **sizes | keywords)


def count(batches: list[Tensor]) -> dict[str, float]:
    """Number by number: rates (B, N, T, ...) of several batches of the same neurons."""
    total, active, values = 0.0, 0, 0
    fired: dict[tuple[int, ...], bool] = {}
    for rates in batches:
        for place in torch.cartesian_prod(*map(torch.arange, rates.shape)).tolist():
            rate = float(rates[tuple(place)])
            neuron = (place[1], *place[3:])
            fired[neuron] = fired.get(neuron, False) or rate > 0
            total, active, values = total + rate, active + (rate > 0), values + 1
    return {
        "mean_rate": total / values,
        "active_share": active / values,
        "silent_share": sum(not each for each in fired.values()) / len(fired),
    }


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# --- the monitor


def test_a_population_against_a_count() -> None:
    cells = Granule(12, 6, tree={"filter": (3, 4, 2)}).eval()
    with torch.no_grad():
        assert cells.bias is not None
        cells.bias[:2] = -100  # two are silent
        cells.bias[2] = -0.5  # and one fires now and then
    batches = [torch.rand(4, 12, 2), torch.rand(1, 12, 2)]
    with torch.no_grad(), ActivityMonitor(cells) as monitor:
        rates = [cells(batch) for batch in batches]
    (path,) = summary = monitor.summary()
    assert path == ""
    assert summary[path] == pytest.approx(count(rates))
    assert summary[path]["silent_share"] >= 2 / 6
    assert 0 < summary[path]["active_share"] < 1


@pytest.mark.parametrize("time_steps", [1, 3])
def test_every_place_of_a_map_is_a_neuron(time_steps: int) -> None:
    layer = GranuleConv2d(2, 3, (2, 3), time_steps=time_steps).eval()
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias += torch.tensor([-100.0, -0.3, 0.0])
        batches = [torch.rand(2, 2, time_steps, 5, 6), torch.rand(3, 2, time_steps, 5, 6)]
        with ActivityMonitor(nn.Sequential(nn.Identity(), layer)) as monitor:
            rates = [layer(batch) for batch in batches]
    assert monitor.summary() == {"1": pytest.approx(count(rates))}
    assert monitor.summary()["1"]["silent_share"] >= 1 / 3


def test_granule_cells_in_the_golgi_cells_loop_fire_step_by_step() -> None:
    model = build().eval()
    seen: dict[str, list[Tensor]] = {}

    def record(path: str) -> Any:
        return lambda module, args, rate: seen.setdefault(path, []).append(rate)

    for path, module in model.named_modules():
        if isinstance(module, FiringRate):
            module.register_forward_hook(record(path.removesuffix(".firing")))
    images = torch.rand(3, 1, 6, 6)
    with torch.no_grad(), ActivityMonitor(model) as monitor:
        model(images)
        model(images[:2])
    summary = monitor.summary()
    assert list(summary) == ["granular.granule", "granular.golgi", "purkinje", "nuclei"]
    assert [len(seen[path]) for path in summary] == [2 * 5, 2 * 4, 2, 2]
    for path, part in summary.items():
        steps = seen[path]
        half = len(steps) // 2
        whole = [torch.cat(steps[:half], 2), torch.cat(steps[half:], 2)]
        assert part == pytest.approx(count(whole)), path


def test_populations_side_by_side_are_told_apart() -> None:
    sizes: dict[str, Any] = {"tree": {"sheet": (4, 4), "filter": (3, 4, 2)}}
    mixed = MixedPopulation(Granule(12, 6, **sizes), Purkinje(12, 2, **sizes)).eval()
    with ActivityMonitor(mixed) as monitor:
        rates = mixed(torch.rand(3, 12, 2))
    parts = rates.detach().split([6, 2], dim=1)
    assert monitor.summary() == {
        "populations.0": pytest.approx(count([parts[0]])),
        "populations.1": pytest.approx(count([parts[1]])),
    }


def test_a_model_without_neurons_has_nothing_to_watch() -> None:
    model = create_model("plain_cnn", image_shape=(1, 6, 6), num_classes=3)
    with ActivityMonitor(model) as monitor:
        assert hooks(model) == 0
        logits = model(torch.rand(2, 1, 6, 6))
        monitor.observe(logits, torch.tensor([0, 1]))
    assert monitor.summary() == {}
    assert active_shares(monitor.summary()) == ""


def test_nothing_is_watched_outside_and_no_hook_is_left() -> None:
    model = build().eval()
    image = torch.rand(1, 1, 6, 6)
    monitor = ActivityMonitor(model)
    model(image)
    with monitor:
        assert hooks(model) == 4
        model(image)
        with pytest.raises(ValueError, match="activity has shape"):
            model(torch.rand(1, 1, 5, 5))
    assert hooks(model) == 0
    first = monitor.summary()
    model(10 * image)
    assert monitor.summary() == first


def test_watching_changes_nothing() -> None:
    model, images = build().eval(), torch.rand(3, 1, 6, 6)
    with torch.no_grad():
        wanted = model(images)
        with ActivityMonitor(model):
            assert torch.equal(model(images), wanted)


def test_complex_spikes_are_a_mean_over_images() -> None:
    model, data = build(), Images(20)
    with ActivityMonitor(model) as monitor:
        evaluate_model(model, data, batch_size=8, device="cpu", monitor=monitor)  # 8, 8 and 4
    logits = model(data.images).detach()
    labels = torch.arange(20) % 3
    rate = ClimbingFibres(3, 4)(logits, labels)
    spikes = monitor.summary()["climbing_fibres"]
    assert spikes == {"complex_spikes_per_second": pytest.approx(float(rate.mean()))}


def test_bfloat16_rates_are_summed_exactly() -> None:
    stage = FiringRate()
    with ActivityMonitor(nn.Sequential(stage)) as monitor:
        stage(torch.full((1000, 3, 5), 1.0, dtype=torch.bfloat16))
    assert monitor.summary()[""] == {"mean_rate": 1.0, "active_share": 1.0, "silent_share": 0.0}


# --- training


def test_every_epochs_record_holds_the_validations_activity(tmp_path: Path) -> None:
    model = build()
    result = train(model, Images(), Images(10), epochs=2, run_dir=tmp_path, **QUICK)
    assert hooks(model) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("activity") for line in lines[:-1]] == [
        record["activity"] for record in result.history
    ]
    assert "activity" not in lines[-1]
    for record in result.history:
        activity = dict(record["activity"])
        spikes = activity.pop("climbing_fibres")["complex_spikes_per_second"]
        assert 0 <= spikes <= 3  # a class that is missed for sure triples the rate of 1
        assert list(activity) == ["granular.granule", "granular.golgi", "purkinje", "nuclei"]
        for part in activity.values():
            assert set(part) == {"mean_rate", "active_share", "silent_share"}
            assert math.isfinite(part["mean_rate"])
            assert part["mean_rate"] >= 0
            assert 0 <= part["active_share"] <= 1
            # Who fires in a share of all steps can be no fewer neurons than that share.
            assert part["active_share"] <= 1 - part["silent_share"] + 1e-12
    # The last epoch's record is what these weights do on these images.
    with ActivityMonitor(model) as monitor:
        evaluate_model(model, Images(10), batch_size=8, device="cpu", monitor=monitor)
    assert monitor.summary() == result.history[result.best_epoch - 1]["activity"]


def test_hooks_are_gone_after_validation_fails() -> None:
    model = build()
    with pytest.raises(RuntimeError, match="power cut"):
        train(model, Images(), Images(10, fail_at=9), epochs=1, **QUICK)
    assert hooks(model) == 0


def test_an_epochs_line_is_followed_by_the_active_shares(capfd: pytest.CaptureFixture[str]) -> None:
    plain = create_model("plain_cnn", image_shape=(1, 6, 6), num_classes=3)
    for model, neurons in ((build(), True), (plain, False)):
        result = train(model, Images(), Images(10), epochs=1, **QUICK | {"progress": True})
        shown = capfd.readouterr().err
        assert "epoch 1/1" in shown
        assert ("    active: " in shown) is neurons
        if neurons:
            assert f"    {active_shares(result.history[0]['activity'])}\n" in shown


def test_the_line_names_each_population_and_its_share() -> None:
    part = {"mean_rate": 1.0, "silent_share": 0.0}
    activity = {
        "granule": {**part, "active_share": 0.123},
        "": {**part, "active_share": 1.0},
        "climbing_fibres": {"complex_spikes_per_second": 1.2},
    }
    assert active_shares(activity) == "active: granule 12%, neurons 100%"


# --- the curves


def record(epoch: int, **activity: float) -> dict[str, Any]:
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    line: dict[str, Any] = {"epoch": epoch, **dict.fromkeys(keys, 1 / epoch)}
    if activity:
        line["activity"] = {
            name: {"active_share": share, "mean_rate": 2.0} for name, share in activity.items()
        }
        line["activity"]["climbing_fibres"] = {"complex_spikes_per_second": 1.0}
    return line


def test_curves_have_a_third_panel_where_there_are_neurons(tmp_path: Path) -> None:
    path = tmp_path / "curves.svg"
    for activity, panels in (({"granule": 0.2, "purkinje": 0.7}, 3), ({}, 2)):
        plot_curves([record(n, **activity) for n in (1, 2)], path, label="model, seed 0")
        picture = path.read_text()  # names its texts in comments
        assert len(set(re.findall(r'id="axes_(\d+)"', picture))) == panels
        for text in ("model, seed 0", "validation", "training", "cross entropy (nats)"):
            assert f"<!-- {text} -->" in picture
        for text in ("neurons that fire (validation)", "granule", "purkinje"):
            assert (f"<!-- {text} -->" in picture) is bool(activity)
        assert "climbing" not in picture
