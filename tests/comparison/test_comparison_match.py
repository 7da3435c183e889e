"""The matcher of equal FLOPs, and what it counts."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.comparison import (
    count_axons,
    count_flops,
    match_axons,
    match_flops,
    match_parameters,
)
from neuroconv.comparison.match import parameter_count
from neuroconv.zoo import count_parameters, create_model, register_model
from neuroconv.zoo import registry as registry_module


@pytest.mark.parametrize("name", ["lenet5", "mlp", "plain_cnn"])
def test_networks_of_plain_layers_cost_what_torchs_counter_says(name: str) -> None:
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        create_model(name).eval()(torch.empty(1, 1, 28, 28))
    assert count_flops(name) == counter.get_total_flops()


def test_known_networks() -> None:
    assert count_flops("lenet5") == 833_040
    assert count_flops("linear") == 2 * 784 * 10
    assert count_flops("linear", time_steps=5) == 2 * 5 * 784 * 10
    assert count_flops("mlp", width=7) == 2 * (784 * 7 + 7 * 10)


@pytest.mark.parametrize("width", [2, pytest.param(17, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mlp", "plain_cnn"])
def test_match_reaches_the_target_or_comes_nearest(name: str, width: int) -> None:
    flop, wider = (count_flops(name, width=w, time_steps=5) for w in (width, width + 1))
    assert match_flops(name, flop, time_steps=5) == {"width": width, "time_steps": 5}
    for below, above in ((flop, wider - 1), (flop + 1, wider)):
        at_most = match_flops(name, below, at_most=True, time_steps=5)
        assert (at_most["width"], at_most.amount) == (width, flop)
        assert match_flops(name, above, time_steps=5, depth=None)["width"] == width + 1
    matched = match_flops(name, flop + 1, time_steps=5)
    assert (matched["width"], matched.ratio) == (width, flop / (flop + 1))


@pytest.mark.parametrize("target", [300, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mlp", "plain_cnn"])
def test_depth_is_free_where_the_width_alone_is_too_coarse(name: str, target: int) -> None:
    """Against every width of every depth."""
    task: dict[str, Any] = {"image_shape": (1, 6, 6)}
    amounts = {
        (depth, width): parameter_count(name, **task, width=width, depth=depth)
        for depth in (None, *range(1, 9))
        for width in range(1, 35)
    }
    by_width = min(abs(n - target) for (depth, _), n in amounts.items() if depth is None)
    best = min(abs(n - target) for n in amounts.values())
    matched = match_parameters(name, target, **task)
    assert matched.amount == count_parameters(create_model(name, **matched))
    if 50 * by_width <= target:
        assert "depth" not in matched
        assert matched.mismatch == by_width
    else:
        assert best <= matched.mismatch <= max(best, target // 50)
    assert match_parameters(name, target, depth=2, **task)["depth"] == 2


def test_axons_are_matched_for_the_task_of_the_model() -> None:
    task: dict[str, Any] = {"image_shape": (1, 8, 8), "time_steps": 2}
    target = count_axons("granule_convnet", **task)
    matched = match_axons("plain_cnn", target, **task)
    assert matched.is_close
    assert count_axons("plain_cnn", **matched) == matched.amount
    below = match_axons("mlp", target, at_most=True, **task)
    assert (below["width"], below.ratio) == (target, 1)


def test_a_count_that_does_not_grow_with_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroconv.comparison.match.count_parameters", lambda _: 12)
    with pytest.raises(ValueError, match="width 4 counts 12, and width 1 12; expected a builder"):
        match_parameters("mlp", 1000)


def test_depth_of_the_baselines_by_hand() -> None:
    task: dict[str, Any] = {"image_shape": (1, 6, 6), "width": 7}
    assert parameter_count("mlp", **task, depth=3) == 37 * 7 + 2 * 8 * 7 + 8 * 10
    # Weights without bias and two of the norm for a channel; a bias for each class.
    convs = [9 * 4 + 2 * 4, 9 * 4 * 7 + 2 * 7, 9 * 7 * 7 + 2 * 7, 9 * 7 * 7 + 2 * 7]
    for depth in (2, 4):
        expected = sum(convs[:depth]) + 7 * 4 * 10 + 10
        assert parameter_count("plain_cnn", **task, depth=depth) == expected
    modules = create_model("plain_cnn", depth=5).modules()
    assert [m.stride[0] for m in modules if isinstance(m, nn.Conv2d)] == [2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("linear", 1_000, "'linear' has no keyword 'width' .*try 'plain_cnn'"),
        ("plain_cnn", 0, "target_flop=0; expected an integer of at least 1"),
        ("plain_cnn", 1e6, "target_flop=1000000.0; expected an integer"),
        ("mlp", 793, "1,588 FLOPs at width 1, more than the 793 to match"),
        ("plane_cnn", 100, "did you mean 'plain_cnn'"),
    ],
)
def test_match_errors(name: str, target: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_flops(name, target)


def test_match_errors_at_most() -> None:
    assert match_flops("mlp", 794).ratio == 2  # what is left is said
    with pytest.raises(ValueError, match="1,588 FLOPs at width 1, more than the 1,587 to match"):
        match_flops("mlp", 1587, at_most=True)


def test_transforms_count_by_their_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))

    class Spectrum(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(images)).flatten(1)[:, :10]

    @register_model
    def spectral(
        *, image_shape: Any = (3, 8, 16), num_classes: int = 10, time_steps: int = 1
    ) -> nn.Module:
        return Spectrum()

    # Three channels, forward and back: 2.5 n log2 n FLOPs for each real transform of 128 points.
    assert count_flops("spectral") == 3 * 2 * (2.5 * 128 * 7)
