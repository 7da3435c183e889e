"""convert: convolutions of anyone's network into granule layers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.feature_extraction import create_feature_extractor

from neuroconv.flops import profile
from neuroconv.neurons import Conversion, GranuleConv2d, convert


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 6, (3, 1)), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 2, (2, 3), 2)),
    )


def test_default_replaces_kernels_of_more_than_one_column() -> None:
    model = small()
    model[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    converted, rows = convert(model)
    assert [row.name for row in rows] == ["0", "2.2"]
    # Taps stay; with a bias each of the columns gets one of its own.
    assert rows[0] == Conversion("0", 4 * 27, 4 * 27)
    assert rows[1] == Conversion("2.2", 2 * 24 + 2, 2 * 24 + 3 * 2 + 2)
    assert isinstance(converted, nn.Sequential)
    assert isinstance(converted[0], GranuleConv2d)
    assert isinstance(converted[2][0], nn.Conv2d)
    assert [p.requires_grad for p in converted[0].parameters()] == [False]  # it stays frozen
    assert all(p.requires_grad for p in converted[2].parameters())
    image = torch.rand(2, 3, 9, 9)
    assert converted(image).shape == model(image).shape
    # The original is untouched.
    assert all(type(layer) is not GranuleConv2d for layer in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_taps_are_copied_or_redrawn() -> None:
    conv = nn.Conv2d(3, 4, 3).double()
    copied, _ = convert(conv)
    assert isinstance(copied, GranuleConv2d)  # a bare convolution converts too
    assert torch.equal(copied.weight.squeeze(2), conv.weight)
    image = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    columns = [F.conv2d(image[..., k : k + 5], conv.weight[..., k : k + 1]) for k in range(3)]
    expected = (sum(column.relu() for column in columns) + conv.bias[:, None, None]).relu()
    torch.testing.assert_close(copied(image), expected, rtol=0, atol=1e-12)
    fresh, _ = convert(conv, copy_weights=False)
    assert isinstance(fresh, GranuleConv2d)
    assert not torch.equal(fresh.weight.squeeze(2), conv.weight)


def test_select_chooses_by_name_and_layer() -> None:
    visited: list[tuple[str, Any]] = []

    def choose(name: str, conv: nn.Conv2d) -> bool:
        visited.append((name, conv.kernel_size))
        return name == "2.0"

    converted, rows = convert(small(), choose)
    assert visited == [("0", (3, 3)), ("2.0", (3, 1)), ("2.1", (1, 1)), ("2.2", (2, 3))]
    assert [row.name for row in rows] == ["2.0"]
    assert isinstance(converted.get_submodule("2.0"), GranuleConv2d)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(
    "keywords",
    [{"padding": "same", "dilation": 2}, {"stride": (2, 1), "padding": (1, 0)}, {"groups": 2}],
)
def test_contract_is_kept(keywords: Any) -> None:
    conv = nn.Conv2d(4, 8, (3, 4), **keywords).double().eval()
    unit, _ = convert(conv)
    image = torch.rand(2, 4, 11, 12, dtype=torch.float64)
    assert unit(image).shape == conv(image).shape
    assert unit(image).dtype == torch.float64
    assert not unit.training


class Twice(nn.Module):
    """Two convolutions and a norm, with the given attributes tied."""

    def __init__(self, tied: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, (3, 3), padding=1)
        self.norm = nn.BatchNorm2d(3)
        if tied == "layer":
            self.second = self.first
        if "weight" in tied:
            self.second.weight = self.first.weight
        if "bias" in tied:
            self.second.bias = self.norm.bias = self.first.bias

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.second(self.first(image)))


@pytest.mark.parametrize("copy_weights", [True, False])
@pytest.mark.parametrize("tied", ["layer", "weight", "bias", "weight and bias"])
def test_what_is_tied_stays_tied(tied: str, copy_weights: bool) -> None:
    model = Twice(tied)
    converted: Any = convert(model, lambda name, _: name == "first" or tied != "layer",
                             copy_weights=copy_weights)[0]  # fmt: skip
    first, second = converted.first, converted.second
    assert isinstance(first, GranuleConv2d)
    assert (first is second) == (tied == "layer")
    assert (first.weight is second.weight) == (tied != "bias")
    assert (first.bias is second.bias) == (tied != "weight")
    assert (first.dendritic_bias is second.dendritic_bias) == (tied != "weight")
    assert (first.bias is converted.norm.bias) == ("bias" in tied)
    assert torch.equal(first.weight.squeeze(2), model.first.weight) == copy_weights
    assert converted(torch.rand(2, 3, 5, 5)).shape == (2, 3, 5, 5)


def test_a_weight_shared_with_what_stays_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'first' shares its weight with 'second.weight', which"):
        convert(Twice("weight"), lambda name, _: name == "first")


def test_requires_grad_of_weight_and_bias_apart() -> None:
    for weight, bias in ((True, False), (False, True)):
        conv = nn.Conv2d(3, 4, 3)
        conv.weight.requires_grad_(weight)
        conv.bias.requires_grad_(bias)  # type: ignore[union-attr]
        unit = convert(conv)[0]
        needs = {name: p.requires_grad for name, p in unit.named_parameters()}
        assert needs == {"weight": weight, "bias": bias, "dendritic_bias": bias}


def test_hooks_stay_with_the_layer() -> None:
    calls: list[tuple[str, type]] = []

    def note(kind: str) -> Any:
        return lambda module, *_: calls.append((kind, type(module)))

    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_pre_hook(note("pre"))
    conv.register_forward_hook(note("forward"))
    conv.register_full_backward_hook(note("backward"))
    conv.register_state_dict_pre_hook(note("state"))
    conv.register_load_state_dict_pre_hook(note("load"))
    unit = convert(nn.Sequential(conv))[0]
    unit(torch.rand(1, 3, 4, 4, requires_grad=True)).sum().backward()
    unit.load_state_dict(unit.state_dict())
    kinds = ("pre", "forward", "backward", "state", "load")
    assert calls == [(kind, GranuleConv2d) for kind in kinds]


def _pruned(conv: nn.Conv2d) -> nn.Module:
    prune.random_unstructured(conv, "weight", 0.5)
    return conv


def _patched(conv: Any) -> nn.Module:
    conv.forward = lambda x: x
    return conv  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")  # of torch's, about old ways
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (parametrizations.weight_norm, "computes its weight by a parametrization; remove it by"),
        (parametrizations.spectral_norm, "computes its weight by a parametrization; remove it by"),
        (nn.utils.weight_norm, "holds weight_g, weight_v besides weight and bias; remove what"),
        (nn.utils.spectral_norm, "holds weight_orig, weight_u, weight_v besides weight and bias"),
        (_pruned, "holds weight_mask, weight_orig besides weight and bias; remove what"),
        (_patched, "has a forward of its own; restore"),
        (lambda _: nn.Conv2d(3, 3, 3, padding_mode="reflect"), "has padding_mode='reflect'; expec"),
        (torch.jit.script, "is scripted or traced; convert before"),
        (lambda _: nn.LazyConv2d(3, 3), "has no weights yet; call the network on a sample"),
        (lambda _: torch.ao.nn.quantized.Conv2d(3, 3, 3), "is a quantised Conv2d; convert before"),
        (lambda conv: conv.to(torch.complex64), "has weights of torch.complex64; expected"),
    ],
)
def test_what_cannot_be_kept_is_refused_or_left_out(wrap: Any, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(wrap(nn.Conv2d(3, 3, 3))))
    with pytest.raises(ValueError, match=f"^layer '1.0' {message}.*, or leave it out with select$"):
        convert(model)
    converted: Any = convert(model, lambda name, _: name == "0")[0]
    assert type(converted[1][0]) is type(model[1][0])
    layer: Any = model[1][0]
    if not isinstance(layer, nn.LazyConv2d) and "complex" not in message and message[:4] != "is a":
        image = torch.rand(2, 3, 7, 7)
        torch.testing.assert_close(converted.eval()[1](image), model.eval()[1](image))


def test_layers_that_a_list_holds_are_replaced_there() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 3, 3))
    model.layers = [model[0]]
    model.outputs = {"conv": [model(torch.rand(2, 3, 5, 5))]}  # with a graph
    converted: Any = convert(model)[0]
    assert type(converted[0]) is GranuleConv2d
    assert converted.layers[0] is converted[0]
    assert type(model.layers[0]) is nn.Conv2d


def test_subclasses_are_left_out_with_a_warning() -> None:
    class Loud(nn.Conv2d):
        pass

    model = nn.Sequential(nn.Conv2d(3, 3, 3), Loud(3, 3, 3))
    with pytest.warns(UserWarning, match=r"layer '1' stays a Loud: a subclass of nn\.Co") as caught:
        converted, rows = convert(model)
    assert caught[0].filename == __file__
    assert [row.name for row in rows] == ["0"]
    assert type(converted.get_submodule("1")) is Loud


# --- graphs and memory formats


@pytest.fixture(scope="module")
def converted() -> nn.Module:
    torch.manual_seed(0)
    convs = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, (2, 3), 2, groups=2)
    return convert(nn.Sequential(convs[0], nn.BatchNorm2d(4), nn.ReLU(), convs[1]).eval())[0]


def _exported(model: nn.Module, image: Tensor) -> Any:
    program = torch.export.export(model, (image,), dynamic_shapes=({0: torch.export.Dim("b")},))
    operators = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert {operator.namespace for operator in operators} == {"aten"}  # which any reader knows
    return program.module()


def _channels_last(model: nn.Module, image: Tensor) -> Any:
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert (
        last.get_parameter("0.weight").squeeze(2).is_contiguous(memory_format=torch.channels_last)
    )
    return lambda x: last(x.to(memory_format=torch.channels_last))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "through",
    [
        lambda model, _: torch.fx.symbolic_trace(model),
        lambda model, _: torch.fx.symbolic_trace(torch.fx.symbolic_trace(model)),
        lambda model, _: lambda x: create_feature_extractor(model, ["0", "3"])(x)["3"],
        _channels_last,
        lambda model, image: torch.jit.trace(model, (image,)),
        pytest.param(
            lambda model, image: torch.compile(model, backend="eager", fullgraph=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(_exported, marks=pytest.mark.slow),
    ],
    ids=["fx", "fx twice", "features", "channels_last", "jit", "compile", "export"],
)
def test_a_converted_network_passes_through(through: Any, converted: nn.Module) -> None:
    image = torch.rand(4, 3, 9, 9)
    torch.testing.assert_close(through(converted, image[:2])(image), converted(image))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx(dynamo: bool, converted: nn.Module, tmp_path: Path) -> None:
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library)
    runtime = pytest.importorskip("onnxruntime")
    image, file = torch.rand(2, 3, 9, 9), tmp_path / "converted.onnx"
    torch.onnx.export(converted, (image,), file, dynamo=dynamo)
    session = runtime.InferenceSession(file)
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), converted(image))


def test_a_bare_layer_is_no_graph() -> None:
    with pytest.raises(TypeError, match="GranuleConv2d is a single node in graphs"):
        torch.fx.symbolic_trace(convert(nn.Conv2d(3, 3, 3))[0])


# --- batch norms in evaluation


def deep(layers: int = 8) -> nn.Sequential:
    torch.manual_seed(1)
    stages: list[nn.Module] = []
    for channels in (3, *[12] * (layers - 1)):
        stages += [nn.Conv2d(channels, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*stages)


def pass_batches(model: nn.Module, passes: int) -> Tensor:
    """Returns the last batch."""
    images = torch.rand(passes, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for image in images:
            model.train()(image)
    return images[-1]


def test_a_deep_network_is_alive_in_evaluation() -> None:
    model: Any = convert(deep())[0]
    silent: Any = copy.deepcopy(model)
    for norm in silent[1::3]:
        norm._forward_pre_hooks.clear()
        norm._forward_hooks.clear()
    for passes in (1, 14):
        image = pass_batches(model, passes)
        active = (model(image) > 0).double().mean()
        assert 0.5 < (model.eval()(image) > 0).double().mean() / active < 2
        pass_batches(silent, passes)
    assert not (silent.eval()(image) > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_vgg11_is_alive_in_evaluation(seed: int) -> None:
    torch.manual_seed(seed)
    model = convert(torchvision.models.vgg11_bn().features)[0]
    images = torch.rand(15, 8, 3, 32, 32)
    with torch.no_grad():
        for image in images:
            features = model.train()(image)
        active = (model.eval()(images[-1]) > 0).double().mean()
    assert 0.5 < active / (features > 0).double().mean() < 2


def test_running_statistics_are_weighted_averages_of_the_batches() -> None:
    norm = nn.BatchNorm2d(12, momentum=0.3)
    pretrained = nn.Sequential(nn.Conv2d(3, 12, 3), norm)
    pass_batches(pretrained, 5)
    model: Any = convert(pretrained)[0]
    assert torch.equal(model[1].running_mean, norm.running_mean)  # until the first pass
    inputs: list[Tensor] = []
    handle = model[1].register_forward_pre_hook(lambda _, x: inputs.append(x[0].double()))
    model[1].train()(torch.rand(8, 12, 4, 4))
    pass_batches(model, 2)
    handle.remove()
    weights = [0.7**2 * 0.3, 0.7 * 0.3, 0.3]
    for statistic, running in (("mean", "running_mean"), ("var", "running_var")):
        values = [getattr(x, statistic)((0, 2, 3)) for x in inputs]
        expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        torch.testing.assert_close(getattr(model[1], running).double(), expected)
    before = copy.deepcopy(model[1].state_dict())
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model[1](torch.rand(1, 12, 1, 1))  # it counts a batch, and no more
    model[1].eval()  # a frozen norm
    model[0].train()(torch.rand(8, 3, 5, 5))
    model[1](torch.rand(8, 12, 4, 4))
    assert all(torch.equal(model[1].get_buffer(k), before[k]) for k in before if "running" in k)


def test_norms_are_corrected_once_and_outside_of_neurons() -> None:
    within = GranuleConv2d(3, 3, norm="both", time_steps=1)
    model = nn.Sequential(within, nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, (3, 2)))
    partly = convert(model, lambda name, _: name == "1")[0]
    wholly: Any = convert(partly)[0]
    assert len(wholly[2]._forward_hooks) == len(wholly[2]._forward_pre_hooks) == 1
    assert not any(part._forward_hooks for part in wholly[0].modules())


# --- networks


def residual() -> nn.Sequential:
    """The stem, two blocks and the head of a small ResNet."""
    block, shortcut = torchvision.models.resnet.BasicBlock, nn.Conv2d(4, 8, 1, 2, bias=False)
    stem, head = nn.Conv2d(3, 4, 7, 2, 3, bias=False), (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(
        stem, nn.BatchNorm2d(4), block(4, 4), block(4, 8, 2, shortcut), *head, nn.Linear(8, 7)
    )


@pytest.mark.parametrize(
    ("build", "layers"),  # all but the 1x1 convolutions of the short cuts
    [
        (residual, 5),
        pytest.param(
            lambda: torchvision.models.resnet18(num_classes=7), 17, marks=pytest.mark.slow
        ),
    ],
    ids=["small", "resnet18"],
)
def test_a_residual_network_learns_and_profiles(build: Any, layers: int) -> None:
    model = build()
    converted, rows = convert(model)
    assert len(rows) == layers
    assert sum(isinstance(layer, GranuleConv2d) for layer in converted.modules()) == layers
    assert not any(isinstance(layer, GranuleConv2d) for layer in model.modules())
    assert all(row.parameters_before == row.parameters_after for row in rows)  # it has no biases
    logits = converted(torch.rand(4, 3, 48, 48))
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in converted.parameters())
    result = profile(converted, torch.zeros(1, 3, 48, 48))
    assert result.agree is True
    assert result.shared == ("convolution", "matmul")
    assert result.skipped == {}
    # A unit's columns multiply what its convolution did.
    plain = profile(model, torch.zeros(1, 3, 48, 48), counters=("exact",))
    assert result.counts["exact"].macs == plain.counts["exact"].macs
    assert result.dendritic_neurons > 0


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Linear(2, 2)])
def test_nothing_selected_is_an_error(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"no convolution of {type(model).__name__} was selected"):
        convert(model)


def test_a_name_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"model='resnet18'; expected a Module"):
        convert("resnet18")
