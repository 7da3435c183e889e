"""What does not depend on data is made once on a device, by no copy from the host."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from neuroconv import list_models
from neuroconv.core.counting import counting
from neuroconv.kernels.constants import constant, derived
from neuroconv.kernels.conv.spectra import fft_size, filter_spectra, taps_of
from neuroconv.layers import PoissonDropout, ReleaseOrWait
from neuroconv.neurons import Granule
from tests.scripts import loaded

trace = loaded(Path(__file__).parents[2] / "experiments" / "gpu" / "trace.py")
QUICK = ("granule_convnet, training", "cerebellum_tiny, training")
ENTRIES = [f"{name}, {way}" for name in list_models() for way in ("training", "evaluation")]
STAGES = {
    "release_or_wait": ReleaseOrWait,
    "every_sleep": partial(ReleaseOrWait, step_ms=5.0),
    **{mode: partial(PoissonDropout, mode=mode) for mode in ("wait", "redraw", "independent")},
    "activity": partial(PoissonDropout, clock="activity"),
    "unit": partial(PoissonDropout, scope="unit"),
}


@pytest.mark.parametrize(
    "workload",
    [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in ENTRIES],
)
def test_no_entry_copies_between_host_and_device(workload: str) -> None:
    assert trace.workloads()[workload]().copies == []


class Streamed(nn.Module):
    """A stage over two stretches of a window."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.stage = STAGES[name]()

    def forward(self, rate: Tensor) -> Tensor:
        first, state = self.stage.stream(rate[:, :, :2])
        return torch.cat([first, self.stage.stream(rate[:, :, 2:], state)[0]], 2)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("name", STAGES)
def test_no_stage_that_waits_copies(name: str, learns: bool) -> None:
    """So that a CUDA graph can record it."""
    shape = (2, 3, 5, 4) if name == "unit" else (2, 3, 5)
    traces = [trace._module(build, *shape, learns=learns) for build in (
        STAGES[name], partial(Streamed, name)
    )]  # fmt: skip
    assert [one.copies for one in traces] == [[], []]
    assert traces[0].launches["addcmul_"] == 0  # the window's law is made once


def test_the_draws_of_a_window_take_two_launches_a_step() -> None:
    launches = [
        trace._module(PoissonDropout, 8, 16, steps).total_launches for steps in (10, 20)
    ]  # fmt: skip
    assert launches[1] - launches[0] <= 20
    assert launches[0] <= 35


def test_a_claws_tables_are_made_once() -> None:
    traced = trace._module(partial(Granule, 64, 64), 4, 64, 5)
    assert traced.launches["arange"] <= 3  # of the dropout and of the soma


class ComplexProducts(TorchDispatchMode):
    """The precision of each product of complex matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::mm", "aten::bmm", "aten::matmul") and args[0].is_complex():
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_no_product_of_spectra_is_open_to_tf32() -> None:
    """Which torch may be set to allow for complex64."""
    with FakeTensorMode(), ComplexProducts() as products:
        filters = torch.empty(2, 3, 4, 6, device=trace.DEVICE)
        spectra = filter_spectra(filters, (6, 8), "same")
        taps = taps_of(spectra[:, 0], fft_size((6, 8), (4, 6), "same"), (4, 6), "same")
    assert products.dtypes == [torch.complex128] * 2
    assert (spectra.dtype, taps.dtype) == (torch.complex64, torch.float32)


def test_a_constant_is_made_once_where_nothing_reads_its_operators() -> None:
    calls = []

    @constant
    def ramp(count: int, device: torch.device) -> Tensor:
        calls.append(count)
        return torch.arange(count, dtype=torch.float32, device=device)

    cpu = torch.device("cpu")
    with torch.inference_mode():
        first = ramp(3, cpu)
    assert not first.is_inference()  # training may use it
    assert ramp(3, cpu) is first
    assert ramp(4, cpu) is not first
    assert calls == [3, 4]
    with counting():
        assert torch.equal(ramp(3, cpu), first)
    torch.func.vmap(lambda x: x + ramp(3, cpu))(torch.zeros(2, 3))
    assert calls == [3, 4, 3, 3]
    assert torch.equal(torch.compile(lambda: ramp(3, cpu) + 1, backend="eager")(), first + 1)
    large = 1 << 20
    assert ramp(large, cpu) is not ramp(large, cpu)


def test_what_is_derived_is_kept_until_its_source_changes() -> None:
    source = torch.tensor([3, 1, 2])

    def compute() -> Tensor:
        return derived(source, "order", lambda: source.argsort())

    first = compute()
    assert compute() is first
    with counting():
        assert compute() is not first
    assert derived(source, "other", source.clone) is not first
    source[0] = 0
    assert compute().tolist() == [0, 1, 2]
    assert compute() is first  # which a CUDA graph may read
    source.data = torch.tensor([2, 1, 0])
    assert compute().tolist() == [2, 1, 0]


def test_populations_hand_on_their_kernels_layout_in_half_precision() -> None:
    cells = nn.Sequential(*[Granule(64, 64, norm="soma") for _ in range(2)])
    traced = trace._module(lambda: cells, 8, 64, 5, precision=torch.bfloat16)
    assert traced.launches["gradient_kernel"] == 2
    assert not traced.launches["clone"]
