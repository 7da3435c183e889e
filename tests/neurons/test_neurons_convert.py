"""convert: convolutions of anyone's network into granule layers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

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


def test_a_convolution_used_twice_stays_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = self.first

        def forward(self, image: Tensor) -> Tensor:
            return self.second(self.first(image))

    converted, _ = convert(Twice())
    assert isinstance(converted.first, GranuleConv2d)
    assert converted.first is converted.second


def test_resnet18_becomes_granule_layers_learns_and_profiles() -> None:
    model = torchvision.models.resnet18(num_classes=7)
    converted, rows = convert(model)
    assert len(rows) == 17  # all but the three 1x1 convolutions of the short cuts
    assert sum(isinstance(layer, GranuleConv2d) for layer in converted.modules()) == 17
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


def test_other_errors() -> None:
    with pytest.raises(TypeError, match=r"model is a str; expected a torch\.nn\.Module"):
        convert("resnet18")
    mirrored = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match="layer '0' has padding_mode='reflect'; expected 'zeros'"):
        convert(mirrored)
