"""Options of training, with every network of the zoo."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuroconv.training import evaluate_model, load_weights, train

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
QUICK: dict[str, Any] = {"device": "cpu", "progress": False}


# --- memory format


class Halting(TensorDataset):
    """Images (48, 3, ..., 6, 6), and an exception in an epoch (from 0)."""

    def __init__(self, *steps: int, fail_in: int = -1) -> None:
        images = torch.rand(48, 3, *steps, 6, 6, generator=torch.Generator().manual_seed(0))
        super().__init__(images.double(), torch.arange(48) % 2)
        self.fail_in = fail_in

    def set_epoch(self, epoch: int) -> None:
        if epoch == self.fail_in:
            raise RuntimeError("power cut")


def two_convolutions(axes: int) -> nn.Sequential:
    """Convolutions, and a table of as many axes as their weights, which is none."""
    torch.manual_seed(0)
    conv = {4: nn.Conv2d, 5: nn.Conv3d}[axes]
    norm = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[axes](8)
    layers = conv(3, 8, 3, padding=1, bias=False), norm, nn.ReLU(), conv(8, 4, 3, padding=1)
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2)).double()
    model(Halting(*[2] * (axes - 4)).tensors[0][:2])
    model.register_parameter("table", nn.Parameter(torch.rand(3, 2, *[2] * (axes - 2)).double()))
    return model


@pytest.mark.parametrize("axes", [4, 5])
def test_channels_last_changes_the_layout_and_nothing_else(axes: int, tmp_path: Path) -> None:
    def is_last(x: Tensor) -> bool:
        return not x.is_contiguous() and x.is_contiguous(memory_format=FORMATS[axes])

    steps = [2] * (axes - 4)
    data = Halting(*steps)
    layouts: dict[bool, set[bool]] = {False: set(), True: set()}
    models = {channels_last: two_convolutions(axes) for channels_last in layouts}
    for channels_last, model in models.items():
        model.register_forward_pre_hook(
            lambda _, inputs, seen=layouts[channels_last]: seen.add(is_last(inputs[0]))
        )
        keywords = {"epochs": 3, "batch_size": 16, "channels_last": channels_last, **QUICK}
        result = train(
            model, data, data, test_data=data, run_dir=tmp_path / str(channels_last), **keywords
        )
    first, last = models[False], models[True]
    assert layouts == {False: {False}, True: {True}}
    assert [is_last(first[0].weight), is_last(last[0].weight), is_last(last[3].weight)] == [0, 1, 1]
    assert last.table.is_contiguous()
    for value, other in zip(first.state_dict().values(), last.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-9)

    cut = two_convolutions(axes)
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut, Halting(*steps, fail_in=2), data, run_dir=tmp_path / "cut", **keywords)
    resumed = two_convolutions(axes)
    train(resumed, data, data, run_dir=tmp_path / "cut", resume=True, **keywords)
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "True" / file).read_bytes()

    load_weights(first, tmp_path / "True/best.safetensors")
    assert first[0].weight.is_contiguous()
    assert torch.equal(first[0].weight, last[0].weight)
    score = evaluate_model(first, data, batch_size=16, channels_last=True, device="cpu")
    assert score == result.test
    assert is_last(first[0].weight)
