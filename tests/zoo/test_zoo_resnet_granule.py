"""ResNet-18 of granule cells: its sizes, its cost, and its layers in the order of the paper."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import profile
from neuroconv.layers.soma import SomaFilter
from neuroconv.neurons import GranuleConv2d
from neuroconv.zoo import count_parameters, create_model
from neuroconv.zoo.resnet_granule import GranuleResNet, resnet18_granule

WIDTHS, SIDES = (64, 128, 256, 512), (56, 28, 14, 7)


def small(**keywords: Any) -> GranuleResNet:
    sizes: dict[str, Any] = {"image_shape": (3, 32, 32), "num_classes": 4, "width": 4}
    return resnet18_granule(**sizes | keywords)


def on_meta(**keywords: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model("resnet18_granule", **keywords)


def shuffled(model: nn.Module) -> nn.Module:
    """Moves everything off its first value, so that no factor is one and no term zero."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    for module in model.modules():
        if isinstance(module, GranuleConv2d) and module.bias is not None:
            nn.init.uniform_(module.bias, -1.0, 0.0)
        if isinstance(module, SomaFilter):
            nn.init.uniform_(module.weight, -0.5, 1.0)
    return model


# --- sizes and cost


@pytest.mark.parametrize(("time_steps", "parameters"), [(1, 11_709_544), (5, 55_689_149)])
def test_parameters_are_torchvisions_taps_for_each_step_and_the_norms(
    time_steps: int, parameters: int
) -> None:
    taps = 64 * 3 * 49 + sum(
        9 * units * (units_in + 3 * units)
        for units_in, units in zip((64, 64, 128, 256), WIDTHS, strict=True)
    )
    projections = sum(units * units // 2 + 2 * units for units in WIDTHS[1:])
    # Seven dendrites in the stem, three elsewhere: two of each norm; and a resting potential.
    resting = 64 * (7 * 2 + 1) + sum(4 * units * (3 * 2 + 1) for units in WIDTHS)
    somata = 17 * 5 if time_steps == 5 else 0
    classifier = 1000 * 513
    model = on_meta(time_steps=time_steps)
    assert parameters == time_steps * taps + projections + resting + somata + classifier
    assert count_parameters(model) == parameters
    assert all(parameter.requires_grad for parameter in model.parameters())
    torchvisions = 64 * 2 + sum(4 * units * 2 for units in WIDTHS)
    assert taps + projections + torchvisions + classifier == 11_689_512


@pytest.mark.parametrize("time_steps", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_still_image_costs_what_resnet18_costs_and_frames_in_proportion(time_steps: int) -> None:
    frames = torch.empty(1, 3, time_steps, 224, 224)
    counters = ("closed_form", "exact")
    result = profile(on_meta(time_steps=time_steps), frames, counters=counters)
    assert (result.agree, result.unstated, result.time_steps) == (True, (), time_steps)
    # A unit at a position is a neuron: 64 maps of 112 pixels, then four layers a stage and, but for
    # the first, a projection.
    neurons = 64 * 112**2 + sum(
        4 * units * side**2 for units, side in zip(WIDTHS, SIDES, strict=True)
    )
    projected = sum(units * side**2 for units, side in zip(WIDTHS[1:], SIDES[1:], strict=True))
    assert result.dendritic_neurons == neurons + projected
    projections = 3 * 128 * 64 * 28**2  # each the same: half the side, twice the units
    taps = (1_813_561_344 - projections) * time_steps**2
    somata = neurons * 25 if time_steps == 5 else 0  # a T x T matrix in each
    assert result.counts["exact"].macs == {
        "convolution": taps + projections * time_steps, "matmul": 512_000 + somata
    }  # fmt: skip
    if time_steps == 1:
        with torch.device("meta"):
            resnet18 = create_model("resnet18")
        opponent = profile(resnet18, frames, counters=counters)
        assert result.counts["exact"].macs == opponent.counts["exact"].macs
    else:
        assert taps + projections * 5 + somata == 45_011_384_320


@pytest.mark.parametrize("time_steps", [1, 5])
def test_maps_halve_as_in_the_paper_and_every_unit_keeps_the_window(time_steps: int) -> None:
    model = on_meta(time_steps=time_steps).eval()
    shapes: list[tuple[int, ...]] = []
    for module in (model.get_submodule("stem"), *model.get_submodule("blocks")):
        module.register_forward_hook(lambda m, args, rates: shapes.append(tuple(rates.shape[1:])))
    frames = torch.empty(2, 3, time_steps, 224, 224, device="meta")
    assert model(frames).shape == (2, 1000)
    expected = [(64, time_steps, 112, 112)]
    for units, side in zip(WIDTHS, SIDES, strict=True):
        expected += [(units, time_steps, side, side)] * 2
    assert shapes == expected


# --- what it computes


def network_by_layers(model: Any, frames: Tensor) -> Tensor:
    """The layers in the order of the paper; their own numbers are tested in tests/neurons."""
    rates = F.max_pool3d(model.stem(frames), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for number, block in enumerate(model.blocks):
        branch = block.branch[1](block.branch[0](rates))
        halves = number in (2, 4, 6)
        rates = branch + (block.skip(rates) if halves else rates)
    return rates[:, :, -1].mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize(("time_steps", "wiring"), [(1, "dense"), (3, "claw")])
def test_layers_stand_in_the_papers_order(time_steps: int, wiring: str) -> None:
    model = small(image_shape=(8, 21, 34), time_steps=time_steps, unit={"wiring": wiring})
    model = shuffled(model).double().eval()
    frames = torch.randn(2, 8, time_steps, 21, 34, dtype=torch.float64)
    with torch.no_grad():
        expected = network_by_layers(model, frames)
        torch.testing.assert_close(model(frames), expected, rtol=1e-10, atol=1e-10)
        assert expected.std() > 1e-3


@pytest.mark.parametrize(("norm", "time_steps"), [("none", 1), ("both", 2)])
def test_every_parameter_has_a_gradient(norm: str, time_steps: int) -> None:
    model = small(image_shape=(3, 64, 64), unit={"norm": norm}, time_steps=time_steps).train()
    # On 32 pixels the left dendrites of the last stage would see nothing but padding.
    loss = F.cross_entropy(model(torch.randn(4, 3, time_steps, 64, 64)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_projections_are_single_dendrites_without_memory() -> None:
    model = small(time_steps=5, unit={"output": {"mean_wait": 0.5}})
    skips = [block.skip for block in model.blocks if not isinstance(block.skip, nn.Identity)]
    assert len(skips) == 3
    for skip in skips:
        assert (skip.kernel_size, skip.stride) == ((1, 1), (2, 2))
        assert (skip.time_steps, skip.bias) == (1, None)
    others = [u for u in model.modules() if isinstance(u, GranuleConv2d) and u not in skips]
    assert len(others) == 17
    assert {unit.time_steps for unit in others} == {5}
