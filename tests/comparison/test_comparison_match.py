"""The matcher of equal FLOPs, and what it counts."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.comparison import count_flops, match_flops
from neuroconv.zoo import create_model, register_model
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


@pytest.mark.parametrize("width", [2, 3, 17])
@pytest.mark.parametrize("name", ["mlp", "plain_cnn"])
def test_match_reaches_the_target_and_no_more(name: str, width: int) -> None:
    flop = count_flops(name, width=width, time_steps=5)
    assert match_flops(name, flop, time_steps=5) == {"width": width, "time_steps": 5}
    assert match_flops(name, flop - 1, time_steps=5)["width"] == width - 1


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("lenet5", 1_000, "'lenet5' has no keyword 'width' .*try 'plain_cnn'"),
        ("plain_cnn", 0, "target_flop=0; expected a positive"),
        ("mlp", 100, "1,588 FLOPs at width 1, more than the 100 to match"),
        ("plane_cnn", 100, "did you mean 'plain_cnn'"),
    ],
)
def test_match_errors(name: str, target: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_flops(name, target)


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
