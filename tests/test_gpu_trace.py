"""What the code for CUDA launches and moves, traced on tensors without data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from neuroconv import __version__
from neuroconv.kernels import cuda
from neuroconv.neurons import Granule
from tests.scripts import loaded

FOLDER = Path(__file__).parent.parent / "experiments" / "gpu"
trace: Any = loaded(FOLDER / "trace.py")
WORKLOADS = trace.workloads()


def traced(run: Callable[[Tensor], object]) -> Any:
    with FakeTensorMode(), trace.traced() as result:
        run(torch.empty(8, 3, device="cuda:0", requires_grad=True))
    return result


@pytest.mark.parametrize(
    ("run", "launches", "numbers"),
    [
        pytest.param(lambda x: x.t()[1:].detach(), 0, 0, id="views"),
        pytest.param(lambda x: x + x[:, :1].expand(8, 3), 1, 24 + 8 + 24, id="broadcast"),
        pytest.param(lambda x: x.detach().zero_(), 1, 24, id="overwritten"),
        pytest.param(lambda x: torch.empty_like(x), 0, 0, id="allocation"),
        # A product, a sum; ones, a product with them for each factor, and their sum.
        pytest.param(
            lambda x: trace.backward((x * x).sum()), 6, 2 * 24 + 25 + 1 + 2 * 49 + 3 * 24,
            id="backward",
        ),
    ],
)  # fmt: skip
def test_launches_and_bytes(run: Any, launches: int, numbers: int) -> None:
    result = traced(run)
    assert result.copies == []
    assert (result.total_launches, result.total_bytes) == (launches, 4 * numbers)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.to("cpu"),
        lambda x: torch.zeros(3, device="cuda:0").copy_(torch.ones(3)),
        lambda x: x.detach()[:, 0].__setitem__(0, 1.0),
    ],
    ids=["to", "copy", "assigned"],
)
def test_copies_between_host_and_device_are_seen(run: Any) -> None:
    result = traced(run)
    assert len(result.copies) == 1
    assert "test_gpu_trace" not in result.copies[0]


@pytest.mark.skipif(not cuda._HAS_TRITON, reason="Triton is not installed")
@pytest.mark.parametrize(
    ("workload", "most"),
    [
        ("granule cells, training", 90),
        ("granule cells, training, bf16", 90),
        ("Purkinje convolution, forward", 300),
        ("Purkinje cells, forward", 300),
    ],
)
def test_launches_of_the_large_workloads(workload: str, most: int) -> None:
    result = WORKLOADS[workload]()
    assert 0 < result.total_launches <= most
    assert result.copies == []


@pytest.mark.skipif(not cuda._HAS_TRITON, reason="Triton is not installed")
def test_a_backward_pass_has_the_context_of_its_forward_pass() -> None:
    """On a device it runs on a thread of torch's own, as here outside of the context."""
    cells = Granule(64, 64)
    with FakeTensorMode(), trace.traced() as result:
        trace.on_fake_cuda(cells)
        with cuda.fused_kernels(False):
            rate = cells(torch.empty(4, 64, 5, device="cuda:0", requires_grad=True))
        trace.backward(rate)
    assert "bmm" in result.launches
    assert not [name for name in result.launches if name.endswith("_kernel")]


def test_the_page_holds_what_was_recorded() -> None:
    record = json.loads((FOLDER / "trace.json").read_text())
    assert __version__ in record
    missing = record[__version__]["workloads"].keys() ^ WORKLOADS.keys()
    assert {name.partition(",")[0] for name in missing} <= {"ncp"}  # whose package is optional
    assert trace.markdown(record) in (FOLDER / "README.md").read_text()
