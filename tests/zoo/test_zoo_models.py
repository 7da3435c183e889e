"""Every entry of the zoo: forward, backward, save and load, bfloat16, compile, export.

Their costs are counted in tests/flops/test_flops_agreement.py.
"""

import ast
import copy
import re
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from neuroconv.flops import count_closed_form, count_exact
from neuroconv.neurons import DeepNuclear, Golgi, Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import (
    Conv3dUnit,
    NuclearReadout,
    SparseLinear,
    StillNet,
    count_parameters,
    create_model,
    default_keywords,
    list_models,
)

NAMES = list_models()
NEURONS = [name for name in NAMES if name.startswith("cerebellum") or "granule" in name]
# A compiler takes seconds: one entry here, the rest in the slow tests.
TRACED = [
    pytest.param(name, marks=() if name == "granule_convnet" else pytest.mark.slow)
    for name in NAMES
]
Shape = tuple[int, int, int]


def cerebellum(granule_cells: int, golgi_cells: int, purkinje_cells: int, purkinje: int) -> int:
    """Trained floats, given those of a Purkinje cell: its synapses, taps, resting potentials, norm.

    Each population has five soma taps besides.
    """
    # 15 synapses, 60 taps, 4 resting potentials, 2 of the norm; 4 synapses from Golgi cells.
    granular = granule_cells * (15 + 60 + 4 + 2 + 4) + 5
    # 100 synapses, 500 taps, the resting potentials of 10 dendrites and of the soma.
    golgi = golgi_cells * (100 + 500 + 10 + 1) + 5
    # A synapse from each Purkinje cell with 5 taps, 4 resting potentials, 2 of the norm.
    nuclei = 12 * (purkinje_cells * (1 + 5) + 4 + 2) + 5
    return granular + golgi + purkinje_cells * purkinje + 5 + nuclei + 10 * (12 + 1)


# Trained floats of every entry with its default keywords, and how they come about.
PARAMETERS = {
    "alexnet": 61_100_840,  # this, and others of torchvision's, are its own figures
    "cerebellum_base": cerebellum(2_000, 8, 4, 100_000 + 50_000 + 1 + 2),
    "cerebellum_small": cerebellum(1_000, 8, 32, 1_000 + 5_000 + 100 + 2),
    "cerebellum_tiny": cerebellum(256, 4, 16, 250 + 1_250 + 50 + 2),
    # 44 branches of 18 synapses, 36 units on branches and memories, 18 memories.
    "elm": 44 * 18 + 36 * (44 + 18 + 1) + 18 * (36 + 1) + 10 * 19,
    # 8, 24 and 15 units: 60 taps, four dendritic norms and one at the soma; 5 soma taps a layer.
    "granule_convnet": 47 * (60 + 8 + 2) + 3 * 5 + 10 * (15 * 4 + 1),
    "granule_convnet_conv3d": 47 * (60 + 2) + 10 * (15 * 4 + 1),
    # 128 dendrites of 16 inputs, 128 somata of one dendrite: the published count.
    "dendritic_ann": 128 * 17 + 128 * 2 + 10 * 129,
    # Ten neurons of 1,023 nodes, each with two weights and a bias, and a soma.
    "k_tree": 10 * (1_023 * 3 + 2),
    # Gates on 49 blocks of pixels and on the units; nn.GRU and nn.LSTM have two biases a gate.
    "gru": 3 * 18 * (49 + 18 + 2) + 10 * 19,
    "lenet5": 6 * 26 + 16 * 151 + 120 * 401 + 84 * 121 + 10 * 85,
    # Synapses on 49 blocks; gain and shift of the norm, a decay a unit, and one of the read-out.
    "lif": 64 * (49 + 2 + 1) + 1 + 10 * 65,
    "linear": 10 * 785,
    "lstm": 4 * 14 * (49 + 14 + 2) + 10 * 15,
    "mlp": 128 * 785 + 10 * 129,
    "perceptron": 10 * 785,
    # 40 sensory neurons; 4 floats of each of 40 * 6 and 113 synapses, 3 of a neuron, 2 of an input.
    "ncp": 40 * 50 + 4 * (40 * 6 + 113) + 3 * 28 + 2 * 40 + 10 * 11,
    "mobilenet_v3_small": 2_542_856,
    "plain_cnn": 8 * 9 + 16 * 72 + 16 * 144 + 2 * 40 + 10 * 65,
    # Ten cells of 60 branches: 32 synapses and a resting potential each; one at the soma.
    "purkinje_classifier": 10 * (60 * (32 + 1) + 1),
    "resnet18": 11_689_512,
    # Its taps; two of each dendrite's norm and a resting potential instead of two of each norm.
    "resnet18_granule": 11_689_512 + 64 * 13 + 4 * 960 * 5,
    "sparse_mlp": 142 * (16 + 2) + 10 * 143,
    # As plain_cnn, and 5 taps and a second norm for each channel.
    "temporal_cnn": 8 * 9 + 16 * 72 + 16 * 144 + 40 * (2 + 5 + 2) + 10 * 65,
    "vit": 86_567_656,  # ViT-B/16
}


FROZEN = {"purkinje_classifier": ["purkinje.dendrites.weight", "purkinje.soma.weight"]}


def build(name: str, *, image_shape: Shape = (1, 8, 8), **keywords: Any) -> nn.Module:
    """A network of the zoo, where it is large in a small size."""
    small = {
        "cerebellum_base": {"purkinje": {"cells": 1}, "granule": {"cells": 200}},
        "resnet18_granule": {"width": 8},
        "alexnet": {"width": 256},
        "mobilenet_v3_small": {"width": 256},
        "vit": {"width": 12, "depth": 2},
    }
    keywords = small.get(name, {}) | keywords
    model = create_model(name, image_shape=image_shape, **keywords)
    if name == "perceptron":  # whose weights begin at zero
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    if name == "vit":  # whose classifier starts at zero
        nn.init.normal_(model.get_classifier().weight)  # type: ignore[operator]
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_have_the_declared_parameters_and_run_on_meta(name: str) -> None:
    defaults = default_keywords(name)
    with torch.device("meta"):
        model = create_model(name)
        logits = model.eval()(torch.empty(1, *defaults["image_shape"]))
    assert logits.shape == (1, defaults["num_classes"])
    assert sorted(PARAMETERS) == NAMES
    assert count_parameters(model) == PARAMETERS[name]
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert frozen == FROZEN.get(name, [])
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    ("image_shape", "num_classes", "time_steps"), [((1, 9, 11), 2, 1), ((3, 16, 16), 7, 3)]
)
@pytest.mark.parametrize("name", NAMES)
def test_still_images_frames_and_gradients(
    name: str, image_shape: Shape, num_classes: int, time_steps: int
) -> None:
    task = {"image_shape": image_shape, "num_classes": num_classes, "time_steps": time_steps}
    model = build(name, **task).train()
    channels, height, width = image_shape
    frames = torch.rand(3, channels, time_steps, height, width)
    logits = model(frames)
    assert logits.shape == (3, num_classes)
    F.cross_entropy(logits, torch.arange(3) % num_classes).backward()
    gradients = {
        key: p.grad for key, p in model.named_parameters() if key not in FROZEN.get(name, [])
    }
    for key, gradient in gradients.items():
        assert gradient.isfinite().all(), key
    assert any(gradient.any() for gradient in gradients.values())
    model.eval()
    with torch.no_grad():
        repeated = frames[:, :, :1].repeat(1, 1, time_steps, 1, 1)
        torch.testing.assert_close(model(frames[:, :, 0]), model(repeated))


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_meet_in_evaluation(name: str) -> None:
    model = build(name, image_shape=(1, 12, 12), time_steps=3).eval()
    frames = torch.rand(3, 1, 3, 12, 12)
    with torch.no_grad():
        together = model(frames)
        alone = torch.cat([model(frames[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_features_and_head_are_the_network(name: str) -> None:
    model: Any = build(name, image_shape=(1, 12, 12), num_classes=10, time_steps=3).eval()
    frames = torch.rand(2, 1, 3, 12, 12)
    with torch.no_grad():
        features = model.forward_features(frames)
        values = model.forward_head(features, pre_logits=True)
        logits = model.forward_head(features)
        assert torch.equal(logits, model(frames))
        assert torch.equal(logits, model.get_classifier()(values))
        last = model.classifier_path
        extracted = model.extract_features(frames, [*dict(model.named_modules())])
    torch.testing.assert_close(extracted[last], logits)  # where hooks watch, other kernels run
    assert len(extracted) > 1
    assert not any(module._forward_hooks for module in model.modules())
    assert features.shape[1 if features.dim() != 3 else 2] == model.num_features
    assert values.shape == (2, model.head_hidden_size)
    kinds = {"k_tree": SparseLinear, "purkinje_classifier": NuclearReadout}
    assert (model.num_classes, type(model.get_classifier())) == (10, kinds.get(name, nn.Linear))
    names, frames = list(model.state_dict()), frames.double()
    if name == "purkinje_classifier":  # whose read-out has no weights until it is replaced
        names += ["classifier.weight", "classifier.bias"]
    model.double().reset_classifier(7)
    assert list(model.state_dict()) == names
    assert model(frames).shape == (2, model.num_classes) == (2, 7)
    if hasattr(model, "complex_spikes"):
        assert model.complex_spikes(model(frames), torch.tensor([6, 0])).isfinite().all()
    model.reset_classifier(0)
    assert model(frames).shape == values.shape
    assert model.num_classes == 0
    model.reset_classifier(3)
    assert model.get_classifier().weight.shape == (3, model.head_hidden_size)


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    first = build(name, image_shape=(1, 12, 12), time_steps=3)
    with torch.no_grad():
        first.train()(torch.rand(4, 1, 3, 12, 12))  # statistics move
    torch.manual_seed(1)
    second = build(name, image_shape=(1, 12, 12), time_steps=3)
    save_file(first.state_dict(), tmp_path / "weights.safetensors")
    second.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    frames = torch.rand(2, 1, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(first.eval()(frames), second.eval()(frames))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lif"])
def test_bfloat16_is_near_float32(name: str) -> None:
    """A rounding of 2**-9 a stage, a dozen stages: 2 % of the largest logit at most.

    Near its threshold rounding decides whether a unit of `lif` fires.
    """
    model = build(name, image_shape=(1, 12, 12)).eval()
    images = torch.rand(4, 1, 12, 12)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = model(images)
    assert (near.float() - exact).abs().max() < 0.02 * exact.abs().max()


@torch._dynamo.config.patch(allow_rnn=True)  # else lstm and gru break the graph
@pytest.mark.parametrize("name", TRACED)
def test_compiles_into_one_graph(name: str) -> None:
    """Without a break, and with the numbers and gradients of the model itself."""
    model = build(name, time_steps=2).train().double()  # norms of few values: 5e-5 in float
    twin = copy.deepcopy(model)
    frames = torch.rand(3, 1, 2, 8, 8, dtype=torch.float64)
    torch._dynamo.reset()
    results = []
    for run in (model, torch.compile(twin, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        logits = run(frames)
        F.cross_entropy(logits, torch.arange(3)).backward()
        results.append([logits, *(parameter.grad for parameter in run.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.layers")  # of nn.LSTM and nn.GRU
@pytest.mark.parametrize("name", TRACED)
def test_exports(name: str) -> None:
    model = build(name, time_steps=2).eval()
    frames = torch.rand(2, 1, 2, 8, 8)
    with torch.no_grad():
        exported = torch.export.export(model, (torch.zeros_like(frames),))
        torch.testing.assert_close(exported.module()(frames), model(frames))


@pytest.mark.parametrize("name", NEURONS)
def test_the_wiring_is_the_seeds_and_the_weights_torchs(name: str) -> None:
    def wirings(seed: int) -> list[torch.Tensor]:
        sparse = {"unit": {"wiring": "claw"}} if name == "resnet18_granule" else {}
        model = build(name, image_shape=(3, 9, 9), seed=seed, **sparse)
        indices = ("wiring", "channels")
        return [b for key, b in model.named_buffers() if key.rpartition(".")[2] in indices]

    first, again, other = wirings(0), wirings(0), wirings(1)
    assert first
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


# --- what each network is


def test_cerebellum_is_the_chain() -> None:
    with torch.device("meta"):
        base: Any = create_model("cerebellum_base")
    cells = (base.granular.granule, base.granular.golgi, base.purkinje, base.nuclei)
    assert [type(part) for part in cells] == [Granule, Golgi, Purkinje, DeepNuclear]
    sizes = [(part.in_features, part.out_features) for part in cells]
    assert sizes == [(64, 2_000), (2_000, 8), (2_000, 4), (4, 12)]
    assert [part.output.mean_wait for part in cells] == [0.5, 0.0, 0.0, 0.0]
    assert base.purkinje.dendrites.mode == "valid"
    # Each nucleus receives each Purkinje cell, by a synapse on one of its four dendrites.
    assert base.nuclei.synapses.synapses == 4
    assert base.nuclei.dendrites.sheet_shape == (1, 4)
    assert base.classifier.in_features == 12


def test_cerebellum_reads_the_pixels_in_order() -> None:
    model = create_model("cerebellum_tiny", image_shape=(2, 3, 4), time_steps=2)
    inputs: list[torch.Tensor] = []
    synapses = model.get_submodule("granular.granule.synapses")
    synapses.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    frames = torch.rand(1, 2, 2, 3, 4)
    model(frames)
    for channel, step, row, column in [(0, 0, 0, 0), (1, 0, 2, 3), (0, 1, 1, 2), (1, 1, 0, 3)]:
        axon = (channel * 3 + row) * 4 + column
        assert inputs[0][0, axon, step] == frames[0, channel, step, row, column]


def test_frozen_filters_are_a_control() -> None:
    model = create_model("cerebellum_tiny", purkinje={"taps": {"trainable": False}})
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["purkinje.dendrites.weight"]
    whole = create_model("cerebellum_tiny")
    assert count_parameters(whole) - count_parameters(model) == 16 * 5 * 50 * 5


@pytest.mark.parametrize("wiring", ["claw", "dense"])
def test_control_has_the_taps_and_the_wiring_one_for_one(wiring: str) -> None:
    keywords = {"image_shape": (3, 14, 14), "time_steps": 3}
    granule: Any = create_model("granule_convnet", **keywords, unit={"wiring": wiring})
    control: Any = create_model("granule_convnet_conv3d", **keywords, unit={"wiring": wiring})
    for cell, unit in zip(granule.units, control.units, strict=True):
        assert (type(cell), type(unit)) == (GranuleConv2d, Conv3dUnit)
        assert unit.weight.shape == cell.weight.shape
        if cell.channels is not None:
            assert torch.equal(unit.channels, cell.channels)
    inputs: list[Any] = []
    for model in (granule, control):
        model.last_step.register_forward_pre_hook(lambda m, args: inputs.append(args[0].shape))
        model(torch.rand(2, 3, 3, 14, 14))
    assert inputs[0] == inputs[1]


@pytest.mark.parametrize(
    ("channels", "wiring", "taps", "training", "norm_over"),
    [
        (4, "claw", 3, False, "window"), (4, "claw", 3, True, "window"),
        (4, "claw", 1, True, "window"), (4, "claw", 3, True, "step"),
        (1, "claw", 3, True, "window"), (40, "dense", 3, True, "window"),
        (3, "dense", 1, False, "window"),
    ],
)  # fmt: skip
def test_control_unit_is_a_causal_conv3d_norm_and_relu(
    channels: int, wiring: Any, taps: int, training: bool, norm_over: Any
) -> None:
    keywords: dict[str, Any] = {"time_steps": taps, "wiring": wiring, "norm_over": norm_over}
    cell = GranuleConv2d(channels, 6, (3, 4), 2, (1, 2), norm="both", **keywords)
    unit = Conv3dUnit(cell).double().train(training)
    nn.init.normal_(unit.norm.running_mean)
    nn.init.uniform_(unit.norm.weight)
    nn.init.normal_(unit.norm.bias)
    twin = copy.deepcopy(unit)
    frames = torch.randn(2, channels, 5, 9, 10, dtype=torch.float64, requires_grad=True)
    padded = F.pad(frames, (2, 2, 1, 1, taps - 1, 0))
    expected = twin.norm(F.conv3d(padded, twin.kernel(), stride=(1, 2, 2))).relu()
    rates, push = unit(frames), torch.randn_like(expected)
    torch.testing.assert_close(rates, expected)
    results, exact = (
        torch.autograd.grad(out, [frames, *module.parameters()], push)
        for out, module in ((rates, unit), (expected, twin))
    )
    torch.testing.assert_close(results, exact)
    for name, buffer in unit.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))
    changed = frames.detach().clone()
    changed[:, :, 3] += 1
    if not training or norm_over == "step":
        assert torch.equal(unit(frames)[:, :, :3], unit(changed)[:, :, :3])


@pytest.mark.parametrize(("wiring", "inputs"), [("claw", (1, 1, 1)), ("dense", (3, 8, 24))])
def test_control_makes_the_products_of_the_granule_layer(
    wiring: str, inputs: tuple[int, ...]
) -> None:
    frames, neurons = torch.zeros(2, 3, 5, 12, 12), (8 * 6 * 7, 24 * 3 * 4, 15 * 3 * 5)
    for name in ("granule_convnet", "granule_convnet_conv3d"):
        model = create_model(name, image_shape=(3, 12, 12), unit={"wiring": wiring})
        closed = count_closed_form(model, frames).counts.macs
        assert count_exact(model, frames).macs == closed
        # Two samples of five steps; a neuron has 60 taps for each channel that it reads.
        read = sum(map(prod, zip(neurons, inputs, strict=True)))
        assert closed["convolution"] == 2 * 5 * 60 * read


TORCHVISION = {"alexnet": "alexnet", "mobilenet_v3_small": "mobilenet_v3_small",
               "resnet18": "resnet18", "vit": "vit_b_16"}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_photographs_are_seen_by_torchvisions_own_networks(name: str) -> None:
    with torch.device("meta"):
        model, own = create_model(name), getattr(torchvision.models, TORCHVISION[name])()
    shapes = {f"network.{key}": value.shape for key, value in own.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    strides = [[getattr(m, "stride", 0) for m in net.modules()] for net in (model.network, own)]
    assert strides[0] == strides[1]


@pytest.mark.parametrize(
    ("name", "small", "large", "features"),
    [
        ("alexnet", {"width": 37}, {"width": 163}, (4, 4)),
        ("mobilenet_v3_small", {"width": 29}, {"width": 181}, (4, 4)),
        ("vit", {"width": 6, "depth": 7}, {"width": 34, "depth": 4}, None),
        ("lenet5", {"width": 29}, {"width": 120}, None),
    ],
)
def test_narrow_networks_of_small_images(
    name: str, small: Any, large: Any, features: tuple[int, int] | None
) -> None:
    for keywords, parameters in ((large, 61_706), (small, 4_000)):
        for side in (64, 32, 28):
            task = {"image_shape": (1, side, side), "num_classes": 10, **keywords}
            model: Any = create_model(name, **task)
            maps = model.eval().forward_features(torch.rand(2, 1, side, side))
            assert features is None or maps.shape[1:] == (model.num_features, *features)
        assert abs(count_parameters(model) / parameters - 1) < 0.03
        values = model.forward_head(model.forward_features(torch.rand(9, 1, 28, 28)), True)
        assert values.std(0).any()  # the images can still be told apart


def test_baselines_see_frames_as_channels() -> None:
    model = create_model("linear", image_shape=(2, 3, 3), num_classes=4, time_steps=5)
    assert count_parameters(model) == 4 * (2 * 5 * 9 + 1)


@pytest.mark.parametrize("name", NAMES)
def test_images_that_a_network_was_not_built_for(name: str) -> None:
    with torch.device("meta"):
        model = build(name, image_shape=(1, 12, 10), time_steps=5)
    expected = "expected (batch, 1, 12, 10), or frames (batch, 1, 5, 12, 10)"
    for shape, remedy in (
        ((2, 1, 4, 12, 10), "; or build the network with time_steps=4"),
        ((2, 1, 6, 12, 10), "; or build the network with time_steps=6"),
        ((2, 1, 14, 14), "; or build the network with image_shape=(1, 14, 14)"),
        ((2, 1, 10, 12), "; or build the network with image_shape=(1, 10, 12)"),
        ((2, 3, 5, 12, 10), "; or build the network with image_shape=(3, 12, 10)"),
        ((2, 3, 1, 12, 9), "; or build the network with image_shape=(3, 12, 9), time_steps=1"),
        ((12, 10), ""), ((1, 12, 10), ""), ((1, 1, 1, 5, 12, 10), ""), ((), ""),
    ):  # fmt: skip
        message = re.escape(f"images have shape {shape}; {expected}{remedy}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            model(torch.empty(shape, device="meta"))
        if remedy and name in ("granule_convnet", "plain_cnn"):  # it does what it says
            words = dict(re.findall(r"(\w+)=(\(.*?\)|\d+)", remedy))
            task = {"image_shape": (1, 12, 10), "time_steps": 5}
            task |= {key: ast.literal_eval(word) for key, word in words.items()}
            with torch.device("meta"):
                assert build(name, **task)(torch.empty(shape)).shape == (2, 10)
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=rf"images are {dtype}; expected floating point: im"):
            model(torch.empty(2, 1, 12, 10, dtype=dtype, device="meta"))


def test_a_network_of_any_image() -> None:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = StillNet(pool, 1)
    assert model(torch.ones(3, 2, 9, 4)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"\(batch, channels, 1, height, width\); or build"):
        model(torch.ones(3, 2, 2, 9, 4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"image_shape": (1, 0, 8)}, r"image_shape=\(1, 0, 8\); expected 3 values"),
        ({"image_shape": (8, 8)}, r"image_shape=\(8, 8\).*expected .*channels, height, width"),
        ({"num_classes": 0}, "num_classes=0; expected an integer"),
        ({"time_steps": 0}, "time_steps=0; expected an integer"),
    ],
)
def test_bad_tasks(name: str, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **keywords)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("granule_convnet", {"widths": (8, 24)}, r"widths=\[8, 24\] and strides=\[2, 2, 1\] diff"),
        ("granule_convnet", {"widths": (8, 0, 4)}, r"widths=\(8, 0, 4\); expected values, each"),
        ("cerebellum_base", {"purkinje": 4}, "purkinje=4; expected"),
        ("granule_convnet", {"pool": 0}, "pool=0; expected an integer"),
        ("plain_cnn", {"width": 0}, "width=0; expected an integer"),
        ("cerebellum_tiny", {"granule": {"cells": 0}}, "granule: cells=0; expected an integer"),
        ("cerebellum_tiny", {"nuclei": {"cells": -1}}, "nuclei: cells=-1; expected .* at least 0"),
    ],
)
def test_bad_keywords(name: str, keywords: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        create_model(name, **keywords)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu(name: str) -> None:
    model = build(name, image_shape=(1, 12, 12), time_steps=3).eval()
    frames = torch.rand(4, 1, 3, 12, 12)
    with torch.no_grad():
        expected = model(frames)
        result = model.cuda()(frames.cuda()).cpu()
    assert (result - expected).abs().max() < 1e-2 * expected.abs().max()  # TF32 is allowed
