"""Training and conversion on CUDA, which the `gpu` tests of each part leave out.

`experiments/gpu/run.py --smoke` compares kernels, zoo entries and counters with the CPU.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuroconv import GranuleConv2d, convert, create_model, list_models
from neuroconv.training import evaluate_model, load_weights, train

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
QUICK: dict[str, Any] = {"device": DEVICE, "batch_size": 4, "progress": False}


class Random(Dataset[Any]):
    """Twelve windows of three frames, and an interruption at the n-th item that is read."""

    def __init__(self, fail_at: int = -1, pixels: int = 12) -> None:
        generator = torch.Generator().manual_seed(0)
        self.frames = torch.rand(12, 1, 3, pixels, pixels, generator=generator)
        self.fail_at, self.reads = fail_at, 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        if self.reads == self.fail_at:
            raise KeyboardInterrupt
        return self.frames[index], index % 10


def build(name: str, seed: int = 0, pixels: int = 12) -> nn.Module:
    """An entry for those windows, where it is large in a small size."""
    torch.manual_seed(seed)
    small = {
        "cerebellum_base": {"purkinje": {"cells": 1}, "granule": {"cells": 200}},
        "resnet18_granule": {"width": 8},
        "vit": {"width": 12, "depth": 2},
    }.get(name, {})
    task = {"image_shape": (1, pixels, pixels), "num_classes": 10, "time_steps": 3}
    return create_model(name, **task, **small)


@pytest.mark.parametrize("name", list_models())
def test_an_entry_trains_in_bfloat16_and_runs_on_the_cpu(name: str, tmp_path: Path) -> None:
    # ResNet's last maps are a pixel on images this small, too few to normalise in bfloat16.
    pixels = 64 if name.startswith("resnet18") else 12
    model, data = build(name, 0, pixels), Random(pixels=pixels)
    before = copy.deepcopy(model).parameters()
    dtypes = set()
    model.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    result = train(model, data, data, epochs=1, learning_rate=1e-3, run_dir=tmp_path, **QUICK)
    assert (result.steps, dtypes) == (3, {torch.bfloat16})
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {(DEVICE, torch.float32)}
    assert not any(torch.equal(a, b.cpu()) for a, b in zip(before, model.parameters(), strict=True))
    again = build(name, 1, pixels)
    load_weights(again, tmp_path / "best.safetensors")
    on_cpu = evaluate_model(again, data, batch_size=4, device="cpu", precision="float32")
    assert result.val.loss == pytest.approx(on_cpu.loss, rel=0.05)


@pytest.mark.parametrize("graph", [False, True])
def test_an_interrupted_run_continues_on_the_device(graph: bool, tmp_path: Path) -> None:
    """And trains as a whole one, which has no graph."""
    keywords = {"epochs": 3, "run_dir": tmp_path, "cuda_graph": graph, **QUICK}
    name = "cerebellum_tiny"
    with pytest.raises(KeyboardInterrupt):
        # An epoch asks for 12 items of training; validation has a data set of its own.
        train(build(name), Random(fail_at=20), Random(), **keywords)
    model = build(name, seed=1)
    result = train(model, Random(), Random(), resume=True, **keywords)
    whole = train(build(name), Random(), Random(), epochs=3, **QUICK)
    assert result.steps == whole.steps == 9
    losses = [[epoch["train_loss"] for epoch in run.history] for run in (result, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # sums on CUDA have no fixed order
    assert next(model.parameters()).device.type == DEVICE


def test_training_gives_the_random_numbers_back() -> None:
    model = build("cerebellum_tiny")
    torch.rand(1, device=DEVICE)
    state = torch.cuda.get_rng_state()
    train(model, Random(), Random(), epochs=1, **QUICK)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_convert_stays_on_the_device() -> None:
    converted, rows = convert(create_model("plain_cnn").to(DEVICE))
    assert len(rows) == sum(isinstance(m, GranuleConv2d) for m in converted.modules()) == 3
    assert {t.device.type for t in (*converted.parameters(), *converted.buffers())} == {DEVICE}
    assert converted(torch.rand(2, 1, 28, 28, device=DEVICE)).isfinite().all()
