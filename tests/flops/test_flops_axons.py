"""Axons and wires against closed forms by hand, and against values that are changed one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

from neuroconv.flops import Axons, count_axons, profile
from neuroconv.layers import LastStep
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import create_model


def reach(size: int, *windows: tuple[int, int, int]) -> int:
    """Counts the pairs of a position and a window of (taps, stride, padding) that sees it, through
    the windows before it, on a square map."""
    seen = np.eye(size, dtype=int)
    for taps, stride, padding in windows:
        length = len(seen)
        starts = range(-padding, length + padding - taps + 1, stride)
        rows = [[start <= n < start + taps for n in range(length)] for start in starts]
        seen = np.array(rows, dtype=int) @ seen
    return int(np.count_nonzero(seen)) ** 2


def test_lenet5_by_hand() -> None:
    first, second = 6 * 28 * 28, 16 * 10 * 10  # what the convolutions send, before pooling
    # Each of 16 x 10 x 10 units reads 5 x 5 pooled values of 6 maps, which are 4 each.
    wires = 16 * 100 * 6 * 25 * 4 + 120 * 16 * 100 + 84 * 120 + 10 * 84
    pixels = 6 * (28 * 5 - 6) ** 2  # 5 taps a side; the padding of two leaves 6 of 140 out
    expected = Axons(first + second + 120 + 84, wires, pixels, 784)
    assert count_axons(create_model("lenet5"), torch.zeros(3, 1, 28, 28)) == expected


def test_a_perceptron_and_a_plain_cnn_by_hand() -> None:
    image = torch.zeros(1, 1, 28, 28)
    assert count_axons(create_model("mlp"), image) == Axons(128, 1280, 784 * 128, 784)
    half, out = (3, 2, 1), (3, 1, 1)
    wires = 8 * 16 * reach(14, half) + 16 * 16 * reach(7, out) + 16 * 49 * 10
    expected = Axons(8 * 196 + 2 * 16 * 49, wires, 8 * reach(28, half), 784)
    assert count_axons(create_model("plain_cnn"), image) == expected


def test_residual_networks_read_all_that_is_added_up() -> None:
    network = create_model("resnet18", image_shape=(3, 32, 32), num_classes=7)
    pool, same, half, point = (3, 2, 1), (3, 1, 1), (3, 2, 1), (1, 2, 0)
    wires = 0
    sources = [(64, 16, [pool])]  # what a block's input is the sum of: units, size, and pooling
    for units, size, side in ((64, 8, same), (128, 4, half), (256, 2, half), (512, 1, half)):
        readers = [side, point] if side == half else [side]
        for window in readers:
            wires += sum(units * n * reach(s, *before, window) for n, s, before in sources)
        wires += 2 * units * units * reach(size, same)  # the second layers of both blocks
        added = [(units, size, [])] * len(readers)
        sources = sources + added if side == same else added
        wires += sum(units * n * reach(s, *before, same) for n, s, before in sources)
        sources = [*sources, (units, size, [])]
    wires += sum(7 * n * s * s for n, s, _ in sources)
    values = [64 * 16**2, 4 * 64 * 8**2, 5 * 128 * 4**2, 5 * 256 * 2**2, 5 * 512]
    seven = (7, 2, 3)
    expected = Axons(sum(values), wires, 3 * 64 * reach(32, seven), 3 * 32**2)
    assert count_axons(network, torch.zeros(1, 3, 32, 32)) == expected


def test_branches_are_no_axons_and_a_value_is_read_once_by_a_unit_over_time() -> None:
    frames = torch.zeros(1, 1, 5, 28, 28)
    network, control = (create_model(f"granule_convnet{end}") for end in ("", "_conv3d"))
    units: Any = network.units
    inputs: Any = np.ones((1, 28, 28), bool)
    axons, wires, mapped = [0], [], inputs
    for layer in units:
        window = layer.window
        top, _, left, _ = window.padding
        rows, columns = window.output_size(*mapped.shape[1:])
        pairs = set()
        for unit, channels in enumerate(layer.kernel().ne(0).any(2).numpy()):
            for c, y, x in np.argwhere(channels):
                for row, column in np.ndindex(rows, columns):
                    at = row * window.stride[0] + y - top, column * window.stride[1] + x - left
                    if 0 <= at[0] < mapped.shape[1] and 0 <= at[1] < mapped.shape[2]:
                        pairs.add(((c, *at), (unit, row, column)))
        axons.append(5 * len({value for value, _ in pairs}))
        wires.append(5 * len(pairs))
        mapped = np.ones((layer.out_channels, rows, columns), bool)
    last = mapped.size  # one step is read, averaged over regions that share some values
    expected = Axons(sum(axons[2:]) + last, sum(wires[1:]) + 10 * last, wires[0], axons[1])
    assert count_axons(network, frames) == count_axons(control, frames) == expected
    still = count_axons(network, frames[:, :, 0])  # a pixel that stays is one value
    assert (5 * still.input_wires, 5 * still.inputs) == (expected.input_wires, expected.inputs)
    assert (still.axons, still.wires) == (expected.axons, expected.wires)


def test_the_circuit_of_a_cerebellum_by_hand() -> None:
    # 1,000 granule cells of 4 pixels each and 8 Golgi cells of 100 synapses, which no cell reads at
    # the last step; 32 Purkinje cells of 1,000 synapses, 12 nuclear cells, and their last step.
    axons = 1000 * 5 + 8 * 4 + 32 * 5 + 12
    wires = 8 * 100 * 4 + 1000 * 4 * 4 + 32 * 1000 * 5 + 12 * 32 * 5 + 10 * 12
    cerebellum: Any = create_model("cerebellum_small")
    pixels = len(set(cerebellum.granular.granule.synapses.wiring.flatten().tolist()))
    counted = count_axons(cerebellum, torch.zeros(1, 1, 28, 28))
    assert counted == Axons(axons, wires, 1000 * 4, pixels)


def test_purkinje_cells_and_the_nuclei_that_they_inhibit_by_hand() -> None:
    pairs: Any = create_model("purkinje_classifier", cells_per_class=2)
    read = sum(len(set(row)) for row in pairs.purkinje.synapses.wiring.tolist())
    assert count_axons(pairs, torch.zeros(1, 1, 28, 28)) == Axons(20, 20, read, 784)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_units_read_what_their_layer_sent_before(kind: Callable[..., nn.Module]) -> None:
    network = kind(7, 5, 2, batch_first=True, bidirectional=True)
    earlier = 2 * 5 * 5 * 5  # in each direction 5 units read 5 values at 5 of 6 steps
    expected = Axons(2 * 5 * 6 + 2 * 5 * 5, 2 * earlier + 10 * 10 * 6, 10 * 7 * 6, 42)
    assert count_axons(network, torch.zeros(3, 6, 7)) == expected
    start = torch.zeros(4, 1, 5)  # of each layer and direction, as values from elsewhere
    state = (start, start.clone()) if kind is nn.LSTM else start
    begun = count_axons(network, (torch.zeros(1, 6, 7), state))
    assert begun.input_wires - expected.input_wires == 4 * 5 * 5
    cell = getattr(nn, f"{kind.__name__}Cell")(7, 5)
    assert count_axons(cell, torch.zeros(2, 7)) == Axons(0, 0, 35, 7)


def test_vision_transformer_by_hand() -> None:
    width, hidden, tokens, heads, blocks = 8, 12, 5, 2, 2
    vit = torchvision.models.VisionTransformer(8, 4, blocks, heads, width, hidden, num_classes=3)
    axons = tokens * (blocks * (5 * width + hidden)) + (tokens - 1) * width
    axons -= (tokens - 1) * width  # after the last block the class token alone is read
    stream, wires = (tokens - 1) * width, 0  # values that a token's units read, patches at first
    for _ in range(blocks):
        wires += 3 * width * stream  # queries, keys and values of each token
        wires += width * tokens * (width + 2 * tokens * width)  # the mixing of all heads
        stream += tokens * width
        wires += hidden * stream + width * tokens * hidden
        stream += tokens * width
    wires += 3 * 2 * blocks * width
    expected = Axons(axons, wires, width * 3 * 64, 3 * 64)
    assert count_axons(vit, torch.zeros(1, 3, 8, 8)) == expected


@pytest.mark.parametrize(
    ("name", "keywords", "expected"),
    [
        # 64 units that send a spike or none in each of 10 steps, all of which the read-out keeps
        ("lif", {}, Axons(640, 6400, 64 * 490, 490)),
        # ... and read all spikes of the step before
        ("lif", {"unit": {"recurrent": True}}, Axons(640, 6400 + 64 * 64 * 9, 64 * 490, 490)),
        ("elm", {"block": 4}, Axons(18, 180, 490, 490)),  # one neuron, 18 memories at the last step
        ("gru", {}, Axons(180, 18 * 18 * 9 + 180, 18 * 490, 490)),
    ],
)
def test_networks_in_time_by_hand(name: str, keywords: Any, expected: Axons) -> None:
    frames = torch.zeros(1, 1, 10, 28, 28)  # which are averaged over blocks of 4 x 4
    counted = count_axons(create_model(name, **keywords), frames)
    blocks = Axons(counted.axons, counted.wires, counted.input_wires // 16, counted.inputs // 16)
    assert blocks == expected


def test_filters_in_time_read_a_value_once() -> None:
    network = create_model("temporal_cnn", width=4, strides=(2,), pool=2, image_shape=(1, 8, 8))
    steps, maps = 10, 2 * 4 * 4  # of each frame, and again of each filter, of which one step counts
    expected = Axons(
        steps * maps + maps, steps * maps + 10 * maps, steps * 2 * reach(8, (3, 2, 1)), 640
    )
    assert count_axons(network, torch.zeros(1, 1, 10, 8, 8)) == expected


def test_full_size_cells() -> None:
    cells = Purkinje(100_000, 2)
    assert count_axons(cells, torch.zeros(1, 100_000, 5)) == Axons(0, 0, 10**6, 500_000)
    network = nn.Sequential(Granule(40, 1000), Purkinje(1000, 3), LastStep(), nn.Linear(3, 2))
    counted = count_axons(network, torch.zeros(1, 40, 5))
    assert counted == Axons(5000 + 3, 3 * 5000 + 6, 4000 * 5, 200)


# --- against values that are changed one by one


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=1, padding=1, bias=False)
        self.branch = nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, (3, 2), 1, (1, 0), 1, 2)
        )
        self.gate, self.skip = nn.Linear(4, 4), nn.Conv2d(4, 4, 1, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = torch.cat([self.branch(x), self.skip(x)[..., 1:]], 1)
        x = x[:, :4] + x[:, 4:]
        return self.head(x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
        self.out, self.norm, self.head = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.start = nn.Parameter(torch.zeros(1, 1, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = torch.cat([self.start.expand(len(tokens), -1, -1), tokens], 1)
        parts = (layer(tokens) for layer in (self.query, self.key, self.value))
        heads = [part.unflatten(2, (2, 2)).transpose(1, 2) for part in parts]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.head(self.norm(tokens + self.out(mixed))[:, 0])


def masked(layer: nn.Linear) -> nn.Linear:
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 7, 6)),
    "attention": (Attention, (3, 4)),
    "wiring": (lambda: nn.Sequential(masked(nn.Linear(6, 5)), masked(nn.Linear(5, 4))), (6,)),
    "claw": (lambda: granules(wiring="claw"), (2, 2, 4, 5)),
    "dilated": (lambda: granules(dilation=(1, 2), padding=1, norm="both"), (2, 2, 3, 5)),
    "groups": (lambda: granules(groups=2, stride=(2, 1)), (2, 2, 5, 5)),
    "cells": (
        lambda: nn.Sequential(Granule(6, 5), Granule(5, 3), LastStep(), nn.Linear(3, 2)), (6, 5),
    ),
    "volumes": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 2, (2, 2, 1), (2, 1, 1), (1, 0, 0)), nn.AvgPool3d((1, 2, 2), 1),
            nn.Conv3d(2, 2, (2, 1, 2)), nn.Flatten(), nn.Linear(8, 2),
        ),
        (1, 4, 4, 3),
    ),
}  # fmt: skip


def granules(**keywords: Any) -> nn.Module:
    layers = (
        GranuleConv2d(2, 4, (2, 3), time_steps=2, **keywords),
        GranuleConv2d(4, 2, 2, time_steps=2),
    )
    return nn.Sequential(*layers, LastStep(), nn.Flatten(), nn.LazyLinear(2))


UNITS = (nn.Linear, nn.Conv2d, nn.Conv3d, GranuleConv2d, Granule)


def changes(model: nn.Module, x: Tensor) -> Axons:
    """Counts the units whose output changes with one value, while all units send what they did."""
    layers = [m for m in model.modules() if isinstance(m, UNITS)]
    sent: dict[nn.Module, Tensor] = {}
    before: dict[nn.Module, Tensor] = {}
    changed: dict[nn.Module, int] = {}

    def hold(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        differs = output != before.setdefault(module, output.clone())
        over_time = isinstance(module, nn.Conv3d | GranuleConv2d | Granule)
        changed[module] = int((differs.any(2) if over_time else differs).sum())
        return sent.setdefault(module, output.clone(memory_format=torch.contiguous_format)).clone()

    for module in layers:
        module.register_forward_hook(hold)
    model(x)

    def readers(values: Tensor) -> list[int]:
        counts = []
        for element in values.view(-1):
            value = element.item()
            element += 1000
            model(x)
            element.fill_(value)
            counts.append(sum(changed.values()))
        return counts

    wires = [count for module in layers for count in readers(sent[module])]
    pixels = readers(x)
    return Axons(
        len(wires) - wires.count(0), sum(wires), sum(pixels), len(pixels) - pixels.count(0)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_against_values_that_change(name: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().double().eval(), torch.rand(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        for parameter in model.parameters():
            parameter.copy_(torch.rand_like(parameter) / 10 + 0.1)  # all rectifiers let it pass
        assert count_axons(model, x) == changes(model, x)


def test_what_cannot_be_traced_is_an_error_and_a_reason_in_a_profile() -> None:
    for model, reason in (
        (nn.Fold(2, 1), "no rule for what the results of aten.col2im"),
        (nn.Linear(4, 2, device="meta"), "on meta"),
    ):
        with pytest.raises(ValueError, match=reason):
            count_axons(model, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="more than limit=9 pairs"):
        count_axons(nn.Linear(10, 2), torch.zeros(1, 10), limit=9)
    record = profile(nn.Linear(4, 2, device="meta"), torch.zeros(1, 4), counters=("exact",))
    assert "on meta" in record.skipped["axons"]
    assert (record.amounts.axons, record.amounts.mac_executed) == (None, 8)
