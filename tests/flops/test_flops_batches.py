"""Counting takes no longer for a larger batch, and stays exact at any size."""

from collections.abc import Callable
from cProfile import Profile
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuroconv import GranuleConv2d, Purkinje, create_model, list_models
from neuroconv.core.counting import blocks, repeats
from neuroconv.flops import count_closed_form, count_exact, exact
from neuroconv.flops.exact import OperatorCounter
from neuroconv.flops.machine.traffic import measure_traffic
from neuroconv.kernels import columns
from neuroconv.kernels.conv import full_width, spectra, toeplitz
from neuroconv.neurons import Population
from neuroconv.zoo import default_keywords
from tests.flops.calling import Call
from tests.neurons.conftest import IMAGE_LAYERS, POPULATIONS

HUGE = 2**31 + 5


population = partial(Purkinje, 8, 40, tree={"sheet": (6, 5), "filter": (3, 3, 2)})
# Each runs by one of the loops over blocks: its model, and the shape of a sample.
BLOCKWISE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "columns": (lambda: GranuleConv2d(2, 3, (2, 3), time_steps=3, norm="both"), (2, 3, 5, 7)),
    "columns_bias": (lambda: GranuleConv2d(2, 3, (2, 3), time_steps=1), (2, 7, 8)),
    "fft": (lambda: population(taps={"backend": "fft"}), (8, 4)),
    "tree_sum": (lambda: population(taps={"backend": "matmul"}), (8, 4)),
    "toeplitz": (lambda: population(taps={"backend": "matmul"}, norm="dendrites"), (8, 4)),
    "full_width": (
        lambda: Call(lambda x: full_width.full_width_conv(x, x[0, :, :2, :3], 3)), (3, 4, 6, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("length", "width"), [(0, 3), (3, 3), (9, 3), (10, 3), (HUGE, 1000)])
def test_three_blocks_on_meta_stand_for_all(length: int, width: int) -> None:
    shown = [(block.stop - block.start, repeats()) for block in blocks(length, width, True)]
    assert len(shown) <= 3
    assert sum(size * times for size, times in shown) == length
    assert sum(times for _, times in shown) == -(-length // width)


def test_a_loop_that_an_error_ends_leaves_no_repeats() -> None:
    loop = blocks(100, 3, True)
    assert [(next(loop).start, repeats()) for _ in range(2)] == [(0, 1), (3, 32)]
    del loop
    assert repeats() == 1


@pytest.mark.parametrize("name", BLOCKWISE)
def test_blocks_on_meta_count_as_those_that_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOPs, bytes and peak of many small blocks on the CPU, where each one runs."""
    monkeypatch.setattr(columns, "_CHUNK_FLOATS", 300)
    monkeypatch.setattr(toeplitz, "_CHUNK_FLOATS", 100)
    monkeypatch.setattr(toeplitz, "_LEAST_NEURONS", 7)
    monkeypatch.setattr(full_width, "_LARGE_SHEET", 1)
    monkeypatch.setitem(spectra.CHUNK_POINTS, "cpu", 1440)
    seen: list[int] = []
    monkeypatch.setattr(exact, "repeats", lambda: seen.append(repeats()) or repeats())
    build, shape = BLOCKWISE[name]
    model, inputs = build(), torch.rand(11, *shape, requires_grad=True)

    def measured(device: str) -> list[Any]:
        counter = OperatorCounter()
        traffic = measure_traffic(
            model, inputs, device=device, backward=True, training=True, counter=counter
        )
        forward = counter.counts("")
        counts = [(c.macs, c.flops, c.operators, c.uncounted) for c in (forward, forward.backward)]
        return [*counts, replace(traffic, device="")]

    on_cpu = measured("cpu")
    assert max(seen) == 1
    assert measured("meta") == on_cpu
    assert max(seen) > 1


def calls(function: Callable[[], object]) -> int:
    """Counts calls, and rounds of loops over blocks, each of which resumes a generator."""
    profile = Profile()
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats())


class Dispatched(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def dispatched(function: Callable[[], object]) -> int:
    with Dispatched() as mode:
        function()
    return mode.number


NETWORKS = [name for name in list_models() if name != "ncp"]  # whose steps take hundreds of calls
CASES = {
    **{f"population {name}": build for name, build in POPULATIONS.items()},
    **{f"image layer {name}": build for name, build in IMAGE_LAYERS.items()},
    **{f"network {name}": partial(create_model, name) for name in NETWORKS},
}


def cases(*quick: str) -> list[Any]:
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in CASES]


def model_and_sample(name: str) -> tuple[Any, Tensor]:
    """A model on meta, and an input of one sample that takes no memory however it is expanded."""
    with torch.device("meta"):
        model: Any = CASES[name]()
    if name.startswith("network"):
        task = default_keywords(name.split()[1])
        channels, *sides = task["image_shape"]
        steps = () if task["time_steps"] == 1 else (task["time_steps"],)
        shape = (channels, *steps, *sides)
    elif isinstance(model, Population):
        shape = (model.in_features, 6)
    else:
        shape = (model.in_channels, model.time_steps, 9, 11)
    return model.float(), torch.empty(1, *shape, device="meta")


@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", cases("image layer norm"))
def test_a_larger_batch_takes_no_more_work(name: str, training: bool) -> None:
    """Three blocks of samples, three of neurons, and the steps of large ones one by one."""
    model, sample = model_and_sample(name)

    def run(batch: int) -> None:
        inputs = sample.expand(batch, *sample.shape[1:])
        count_exact(model, inputs, backward=True, training=training)
        model.train(training)(inputs).sum().backward()  # as another counter runs it

    few, huge = (calls(partial(run, batch)) for batch in (64, HUGE))
    assert huge <= 20 * few
    if "fft" not in name:  # its steps run in groups, by the size of the last block of samples
        assert dispatched(partial(run, 2**20 + 5)) == dispatched(partial(run, HUGE))


@pytest.mark.parametrize("name", cases("image layer norm", "network plain_cnn"))
def test_counts_of_a_huge_batch_are_exact(name: str) -> None:
    """The closed form's integers; and what two small batches extrapolate to, backward too."""
    model, sample = model_and_sample(name)

    def counted(batch: int) -> list[Any]:
        inputs = sample.expand(batch, *sample.shape[1:])
        counts = count_exact(model, inputs, backward=True, training=True)
        return [counts.macs, counts.backward.macs]

    huge_inputs = sample.expand(HUGE, *sample.shape[1:])
    assert count_exact(model, huge_inputs).macs == count_closed_form(model, huge_inputs).counts.macs
    for one, two, huge in zip(*map(counted, (4096, 4097, HUGE)), strict=True):
        assert huge == {key: n + (two[key] - n) * (HUGE - 4096) for key, n in one.items()}


def test_a_tensor_of_more_bytes_than_torch_can_address() -> None:
    with torch.device("meta"):
        model, image = create_model("mlp", width=4096), torch.empty(1, 1, 28, 28)
    assert count_exact(model, image.expand(2**40, -1, -1, -1)).mac == 2**40 * 794 * 4096
    with pytest.raises(ValueError, match=r"2\^63 bytes or more: count a smaller batch"):
        count_exact(model, image.expand(2**50, -1, -1, -1))
