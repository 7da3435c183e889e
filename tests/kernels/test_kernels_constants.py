"""What does not depend on data is made once on a device, by no copy from the host."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from neuroconv.core.counting import counting
from neuroconv.kernels.constants import constant, derived
from neuroconv.kernels.conv.spectra import filter_spectra, site_waves
from neuroconv.layers import PoissonDropout, ReleaseOrWait
from neuroconv.layers.step_norm import StepBatchNorm
from neuroconv.neurons import Granule
from tests.scripts import loaded

trace = loaded(Path(__file__).parents[2] / "experiments" / "gpu" / "trace.py")
QUICK = ("granule_convnet, training", "cerebellum_tiny, training")
ENTRIES = [f"{name}, {way}" for name in trace.traceable() for way in ("training", "evaluation")]
STAGES = {
    "release_or_wait": partial(ReleaseOrWait, step_ms=5.0),
    **{mode: partial(PoissonDropout, mode=mode) for mode in ("wait", "redraw", "independent")},
    "activity": partial(PoissonDropout, clock="activity"),
}


@pytest.mark.parametrize(
    "workload", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in ENTRIES]
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
def test_a_graph_can_record_a_stage_that_waits(name: str, learns: bool) -> None:
    whole, streamed = (
        trace._module(build, 2, 3, 5, learns=learns)
        for build in (STAGES[name], partial(Streamed, name))
    )
    assert whole.copies == streamed.copies == []
    assert whole.launches["addcmul_"] == 0  # probabilities of a window from its start


def test_what_a_call_makes_anew() -> None:
    assert trace._module(partial(Granule, 64, 64), 4, 64, 5).launches["arange"] <= 2
    assert trace._module(partial(StepBatchNorm, 3, momentum=None), 2, 3, 5).copies == []
    ten, twenty = (trace._module(PoissonDropout, 8, 16, steps) for steps in (10, 20))
    assert twenty.total_launches - ten.total_launches == 20  # two for each step


def test_no_product_of_spectra_is_open_to_tf32() -> None:
    with FakeTensorMode():  # torch may be set to allow it for complex64
        spectra = filter_spectra(torch.empty(2, 3, 4, 6, device=trace.DEVICE), (6, 8), "same")
        assert spectra.dtype == torch.complex64
        assert site_waves(4, 6, 1, spectra).dtype == torch.complex128


def test_a_constant_is_made_once_where_nothing_reads_its_operators() -> None:
    calls, cpu = [], torch.device("cpu")

    @constant
    def ramp(count: int, device: torch.device) -> Tensor:
        calls.append(count)
        return torch.arange(count, dtype=torch.float32, device=device)

    with torch.inference_mode():
        first = ramp(3, cpu)
    assert not first.is_inference()  # training may use it
    assert ramp(3, cpu) is first
    with counting():
        assert torch.equal(ramp(3, cpu), first)
    torch.func.vmap(lambda x: x + ramp(3, cpu))(torch.zeros(2, 3))
    assert calls == [3, 3, 3]
    assert ramp(1 << 20, cpu) is not ramp(1 << 20, cpu)  # too large to keep
    with torch.inference_mode():
        assert ramp(1 << 20, cpu).is_inference()  # made by the caller: no thread waits for it


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
