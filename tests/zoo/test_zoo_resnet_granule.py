"""ResNet-18 of granule cells: its sizes, its cost, its formula, and that it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroconv.flops import profile
from neuroconv.layers.soma import SomaFilter
from neuroconv.neurons import GranuleConv2d
from neuroconv.zoo import count_parameters, create_model
from neuroconv.zoo.resnet_granule import GranuleResNet, Residual, resnet18_granule

WIDTHS = (64, 128, 256, 512)


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


def test_a_still_image_costs_what_resnet18_costs() -> None:
    image = torch.empty(1, 3, 224, 224)
    own = profile(on_meta(), image, counters=("closed_form", "exact"))
    with torch.device("meta"):
        opponent = create_model("resnet18")
    other = profile(opponent, image, counters=("closed_form", "exact"))
    assert own.agree is True
    assert own.unstated == ()
    assert own.counts["exact"].macs == {"convolution": 1_813_561_344, "matmul": 512_000}
    assert own.counts["exact"].macs == other.counts["exact"].macs
    # A unit at a position is a neuron: 64 maps of 112 pixels, then five layers a stage with the
    # projection, of which the first stage has none.
    sides = (56, 28, 14, 7)
    assert own.dendritic_neurons == 64 * 112**2 + sum(
        (4 + (side < 56)) * units * side**2 for units, side in zip(WIDTHS, sides, strict=True)
    )


def test_five_frames_cost_25_times_the_taps_and_the_somata() -> None:
    frames = torch.empty(1, 3, 5, 224, 224)
    result = profile(on_meta(time_steps=5), frames, counters=("closed_form", "exact"))
    assert result.agree is True
    assert result.unstated == ()
    assert result.time_steps == 5
    projections = 3 * 128 * 64 * 28**2  # each the same: half the side, twice the units
    neurons = 64 * 112**2 + sum(
        4 * units * side**2 for units, side in zip(WIDTHS, (56, 28, 14, 7), strict=True)
    )
    convolution = (1_813_561_344 - projections) * 25 + projections * 5
    somata = neurons * 25
    assert convolution + somata == 45_011_384_320
    matmul = 512_000 + somata  # the classifier, and a T x T matrix in every soma
    assert result.counts["exact"].macs == {"convolution": convolution, "matmul": matmul}


@pytest.mark.parametrize(
    ("time_steps", "wiring"),
    [
        pytest.param(1, "dense", marks=pytest.mark.slow),
        pytest.param(1, "claw", marks=pytest.mark.slow),
        pytest.param(3, "dense", marks=pytest.mark.slow),
        (3, "claw"),
    ],
)
def test_three_counters_agree(time_steps: int, wiring: str) -> None:
    model = small(image_shape=(8, 16, 16), time_steps=time_steps, unit={"wiring": wiring})
    result = profile(model, torch.zeros(2, 8, time_steps, 16, 16))
    assert result.skipped == {}
    assert result.agree is True, result.disagreements
    assert set(result.shared) == {"convolution", "matmul"}
    assert result.unstated == ()


@pytest.mark.parametrize("time_steps", [1, 5])
def test_maps_halve_as_in_the_paper_and_every_unit_keeps_the_window(time_steps: int) -> None:
    model = on_meta(time_steps=time_steps).eval()
    seen: list[tuple[int, ...]] = []
    for module in (model.get_submodule("stem"), *model.get_submodule("blocks")):
        module.register_forward_hook(lambda m, args, rates: seen.append(tuple(rates.shape[1:])))
    frames = torch.empty(2, 3, time_steps, 224, 224, device="meta")
    assert model(frames).shape == (2, 1000)
    wanted = [(64, time_steps, 112, 112)]
    for units, side in zip(WIDTHS, (56, 28, 14, 7), strict=True):
        wanted += [(units, time_steps, side, side)] * 2
    assert seen == wanted


# --- what it computes


def slow_unit(unit: GranuleConv2d, maps: Tensor) -> Tensor:
    """A granule layer by its formula: a Conv3d for each column, then every step of the soma."""
    top, bottom, left, right = unit.padding
    padded = F.pad(maps, (left, right, top, bottom, unit.time_steps - 1, 0))
    total = torch.zeros(())
    for column in range(unit.kernel_size[1]):
        taps = torch.zeros_like(unit.kernel())
        taps[..., column] = unit.kernel()[..., column]
        potential = F.conv3d(padded, taps, stride=(1, *unit.stride))
        norm = unit.dendritic_norms[column]
        mean, var, scale, shift = (
            each[:, None, None, None]
            for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        total = total + ((potential - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
    potential = total
    if isinstance(unit.soma, SomaFilter):
        potential = torch.zeros_like(total)
        for step in range(total.shape[2]):
            for lag in range(min(step + 1, unit.time_steps)):
                potential[:, :, step] += unit.soma.weight[-1 - lag] * total[:, :, step - lag]
    if unit.bias is not None:
        potential = potential + unit.bias[:, None, None, None]
    return potential.clamp(min=0)


def slow_network(model: Any, frames: Tensor) -> Tensor:
    rates = F.max_pool3d(slow_unit(model.stem, frames), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for number, block in enumerate(model.blocks):
        branch = slow_unit(block.branch[1], slow_unit(block.branch[0], rates))
        halves = number in (2, 4, 6)
        rates = branch + (slow_unit(block.skip, rates) if halves else rates)
    return rates[:, :, -1].mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("wiring", ["dense", "claw"])
@pytest.mark.parametrize("time_steps", [1, 3])
def test_it_is_the_formula(time_steps: int, wiring: str) -> None:
    model = small(image_shape=(8, 21, 34), time_steps=time_steps, unit={"wiring": wiring})
    model = shuffled(model).double().eval()
    frames = torch.randn(2, 8, time_steps, 21, 34, dtype=torch.float64)
    with torch.no_grad():
        wanted = slow_network(model, frames)
        torch.testing.assert_close(model(frames), wanted, rtol=1e-10, atol=1e-10)
        assert wanted.std() > 1e-3


def test_gradients_of_a_block_that_halves_its_maps() -> None:
    block = shuffled(small(time_steps=2).blocks[2]).double().eval()
    assert isinstance(block, Residual)
    rates = torch.rand(1, 4, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, rates, fast_mode=True)


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("norm", ["none", "dendrites", "soma", "both"])
def test_no_activity_is_negative_and_blocks_only_add(norm: str, time_steps: int) -> None:
    model = small(time_steps=time_steps, unit={"norm": norm}).train()
    seen = []
    for module in model.modules():
        if isinstance(module, GranuleConv2d | Residual):
            module.register_forward_hook(lambda m, args, rates: seen.append(rates.min().item()))
    gains = []
    for block in model.blocks:
        if isinstance(block.skip, nn.Identity):
            block.register_forward_hook(lambda m, args, y: gains.append((y - args[0]).min().item()))
    model(torch.randn(4, 3, time_steps, 32, 32))
    assert len(seen) == 17 + 3 + 8
    assert len(gains) == 5
    assert min(seen + gains) >= 0


def test_a_still_image_is_a_constant_window_and_the_past_is_remembered() -> None:
    model = shuffled(small(time_steps=3)).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        window = image.unsqueeze(2).repeat(1, 1, 3, 1, 1)
        torch.testing.assert_close(model(image), model(window))
        longer = torch.randn(2, 3, 4, 32, 32)
        assert model(longer).shape == (2, 4)
        changed = longer.clone()
        changed[:, :, 0] += 1.0
        assert not torch.allclose(model(changed), model(longer))
        one = shuffled(small()).eval()
        torch.testing.assert_close(one(image), one(image.unsqueeze(2)))


# --- it learns


def losses(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    values = []
    for _ in range(steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("time_steps", [1, 3])
def test_it_learns_four_noisy_patterns(time_steps: int) -> None:
    torch.manual_seed(0)
    patterns = F.interpolate(torch.randn(4, 3, 4, 4), 32, mode="bilinear")
    labels = torch.arange(32) % 4
    model = small(width=8, time_steps=time_steps)
    values = losses(model, patterns[labels] + 0.5 * torch.randn(32, 3, 32, 32), labels, 20)
    assert values[0] > 1.0
    assert values[-1] < 0.2
    model.train()  # by the batch's statistics: the running ones lag behind so few steps
    unseen = patterns[labels] + 0.5 * torch.randn(32, 3, 32, 32)
    with torch.no_grad():
        assert (model(unseen).argmax(1) == labels).float().mean() > 0.8


def test_it_tells_a_window_from_its_reverse() -> None:
    """The frames of both classes are the same, and so is the last one: only the order differs."""
    torch.manual_seed(0)
    first, second, last = F.interpolate(torch.randn(3, 3, 4, 4), 32, mode="bilinear")
    windows = torch.stack(
        [torch.stack([first, second, last], 1), torch.stack([second, first, last], 1)]
    )
    labels = torch.arange(24) % 2
    frames = windows[labels] + 0.3 * torch.randn(24, 3, 3, 32, 32)
    values = losses(small(num_classes=2, width=8, time_steps=3), frames, labels, 20)
    assert values[-1] < 0.2


@pytest.mark.parametrize("norm", ["none", "dendrites", "soma", "both"])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_every_parameter_has_a_gradient(norm: str, time_steps: int) -> None:
    model = small(unit={"norm": norm}, time_steps=time_steps).train()
    # On 32 pixels the left dendrites of the last stage would see nothing but padding.
    loss = F.cross_entropy(model(torch.randn(4, 3, time_steps, 64, 64)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


# --- wherever torch runs it


def test_save_and_load(tmp_path: Path) -> None:
    first = small(unit={"wiring": "claw"}, image_shape=(8, 32, 32), time_steps=2)
    frames = torch.randn(4, 8, 2, 32, 32)
    with torch.no_grad():
        first.train()(frames)  # statistics move
    save_file(first.state_dict(), tmp_path / "weights.safetensors")
    second = small(unit={"wiring": "claw"}, image_shape=(8, 32, 32), time_steps=2)
    second.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(first.eval()(frames), second.eval()(frames))


@pytest.mark.parametrize("time_steps", [1, 3])
def test_bfloat16_is_near_float32_and_trains(time_steps: int) -> None:
    model = small(time_steps=time_steps)
    images = torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model.train()(images), torch.arange(4))
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.dtype == torch.float32
    model.eval()
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = model(images)
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("time_steps", [1, 2])
def test_compiles_in_one_graph(time_steps: int) -> None:
    model = small(time_steps=time_steps).eval()
    frames = torch.randn(2, 3, time_steps, 32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames), model(frames))


@pytest.mark.slow
@pytest.mark.parametrize("time_steps", [1, 2])
def test_exports(time_steps: int) -> None:
    model = small(time_steps=time_steps).eval()
    frames = torch.randn(2, 3, time_steps, 32, 32)
    exported = torch.export.export(model, (frames,)).module()
    torch.testing.assert_close(exported(frames), model(frames))


# --- its keywords


def test_claws_are_the_seeds_and_differ_between_layers() -> None:
    def wirings(seed: int) -> list[Tensor]:
        model = small(image_shape=(8, 32, 32), unit={"wiring": "claw"}, seed=seed)
        return [unit.channels for unit in model.modules() if isinstance(unit, GranuleConv2d)]

    first, again, other = wirings(0), wirings(0), wirings(7)
    assert len(first) == 20
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    layer = small(image_shape=(8, 32, 32), unit={"wiring": "claw"}).blocks[0].branch
    assert not torch.equal(layer[0].channels, layer[1].channels)


def test_projections_are_single_dendrites_without_memory() -> None:
    model = small(time_steps=5, unit={"output": {"mean_wait": 0.5}})
    skips = [block.skip for block in model.blocks if not isinstance(block.skip, nn.Identity)]
    assert len(skips) == 3
    for skip in skips:
        assert isinstance(skip, GranuleConv2d)
        assert skip.kernel_size == (1, 1)
        assert skip.stride == (2, 2)
        assert skip.time_steps == 1
        assert skip.bias is None
    others = [u for u in model.modules() if isinstance(u, GranuleConv2d) and u not in skips]
    assert len(others) == 17
    assert {unit.time_steps for unit in others} == {5}


def test_poisson_dropout_is_of_training_only() -> None:
    images = torch.randn(4, 3, 32, 32)
    model = small(unit={"output": {"mean_wait": 0.5}, "norm": "none"})
    with torch.no_grad():
        assert not torch.equal(model.train()(images), model.train()(images))
        assert torch.equal(model.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"image_shape": (32, 32)}, r"image_shape=\(32, 32\); expected \(channels, height, width"),
        ({"num_classes": 0}, "num_classes=0; expected positive"),
        ({"time_steps": 0}, "time_steps=0; expected positive"),
        ({"width": 0}, "width=0; expected positive"),
        ({"width": 8.0}, "width=8.0; expected positive"),
        ({"unit": {"wiring": "sparse"}}, "wiring='sparse' is unknown; expected one of dense, claw"),
        (
            {"unit": {"norm": "batch"}},
            "norm='batch' is unknown; expected one of none, dendrites, soma, both",
        ),
        ({"unit": {"output": {"mean_wait": -0.5}}}, "mean_wait=-0.5; expected"),
    ],
)
def test_bad_keywords(keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**keywords)


@pytest.mark.parametrize(
    ("time_steps", "shape", "message"),
    [
        (1, (2, 3, 5, 32, 32), r"\(2, 3, 5, 32, 32\); .*no memory .*or build it with time_steps=5"),
        (1, (3, 32, 32), r"images have shape \(3, 32, 32\); expected \(batch, channels, height"),
        (3, (2, 3, 3, 32, 32, 1), r"images have shape \(2, 3, 3, 32, 32, 1\); expected \(batch"),
        (3, (2, 1, 3, 32, 32), r"shape \(2, 1, 3, 32, 32\); expected \(batch, 3 channels"),
    ],
)
def test_bad_images(time_steps: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(time_steps=time_steps)(torch.zeros(shape))
