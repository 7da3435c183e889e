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


@pytest.mark.parametrize(("target", "time_steps"), [(100_000, 5), (833_040, 1)])
def test_match_reaches_the_target_and_no_more(target: int, time_steps: int) -> None:
    keywords: dict[str, Any] = {"image_shape": (1, 28, 28), "time_steps": time_steps}
    matched = match_flops("plain_cnn", target, **keywords)
    width = matched.pop("width")
    assert matched == keywords
    costs = [count_flops("plain_cnn", **keywords, width=w) for w in (width, width + 1)]
    assert costs[0] <= target < costs[1]


@pytest.mark.parametrize("width", [2, 3, 17])
def test_match_at_the_edges(width: int) -> None:
    flop = count_flops("mlp", width=width)
    assert match_flops("mlp", flop)["width"] == width
    assert match_flops("mlp", flop - 1)["width"] == width - 1


@pytest.mark.parametrize(
    ("name", "target", "error", "message"),
    [
        ("lenet5", 1_000, ValueError, "'lenet5' has no keyword 'width' .*try 'plain_cnn'"),
        ("plain_cnn", 0, ValueError, "target_flop=0; expected a positive"),
        ("mlp", 100, ValueError, "1,588 FLOPs at width 1, more than the 100 to match"),
        ("plane_cnn", 100, ValueError, "did you mean 'plain_cnn'"),
    ],
)
def test_match_errors(name: str, target: int, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        match_flops(name, target)


def test_match_misspelt_keyword() -> None:
    with pytest.raises(TypeError, match="no keyword 'num_clases'; did you mean 'num_classes'"):
        match_flops("mlp", 1_000_000, num_clases=10)


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
