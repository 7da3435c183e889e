"""The fused kernels: which trees they take, that they are right, and that they compile."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.kernels import cuda as fused
from neuroconv.kernels.cuda import Sizes, fits
from neuroconv.kernels.cuda.launch import Kernel, recorded
from neuroconv.kernels.effective_filters import TreeOperands, TreeSpec

triton = pytest.importorskip("triton", reason="Triton is not installed: the plain path runs alone")

HERE = Path(__file__).parent
GRANULE = Sizes(axons=4, k_time=5, sites=4, dendrites=4)


def run_cases(**environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    parent = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [*command, str(HERE / "cuda_cases.py")], cwd=HERE.parents[1], env={**parent, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_kernels_as_triton_interprets_them() -> None:
    run_cases(TRITON_INTERPRET="1", NEUROCONV_NATIVE="0")


@pytest.mark.gpu
def test_kernels_on_cuda() -> None:
    run_cases()


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        (GRANULE, True),
        (Sizes(16, 5, 4, 4), True),
        (Sizes(25, 5, 5, 4), True),  # 128 rows x 32 outputs
        (Sizes(25, 5, 9, 4), False),  # 128 x 64
        (Sizes(26, 5, 4, 4), False),  # 130 rows
        (Sizes(1, 1, 128, 2), False),  # 256 outputs
    ],
)
def test_sizes_that_are_taken(sizes: Sizes, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "state", lambda device: "on")
    assert fits(torch.zeros(1, 1, 1), 32, sizes) is taken
    assert not fits(torch.zeros(1, 1, 1), 31, sizes)


def test_the_cpu_has_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for device in ("cpu", "meta"):
        assert not fits(torch.zeros(2, 2, 2, device=device), 4096, GRANULE)
    # A tensor without memory that says it is on CUDA, as tracers use.
    with torch._subclasses.FakeTensorMode():
        assert not fits(torch.zeros(2, 2, 2), 4096, GRANULE)


@pytest.mark.parametrize("mode", ["ieee", "tf32"])
def test_precision_is_what_torch_is_set_to(mode: str) -> None:
    products: Any = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = mode
    try:
        assert fused._precision() == mode
    finally:
        products.fp32_precision = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["current_kernel", "gradient_kernel"])
@pytest.mark.parametrize(
    ("sizes", "reduction"),
    [
        pytest.param(GRANULE, "mean", id="granule"),
        pytest.param(GRANULE, "max", id="max", marks=pytest.mark.slow),
        pytest.param(Sizes(25, 5, 5, 4), "mean", id="most", marks=pytest.mark.slow),
        # Numbers that are 1 become constants of the program.
        pytest.param(Sizes(1, 1, 1, 1), "sum", id="ones"),
    ],
)
def test_kernels_compile_for_a_data_centre_gpu(
    sizes: Sizes,
    reduction: Any,
    kernel: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Triton compiles for compute capability 9.0 where there is no GPU too."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from neuroconv.kernels.cuda import trees

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(trees, kernel)
    arguments, constants, warps = _launch(kernel, sizes, reduction, dtype)
    values = dict(zip(function.arg_names, arguments, strict=False))
    ones = [name for name, value in values.items() if isinstance(value, int) and value == 1]
    constants |= dict.fromkeys(ones, 1)
    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}
    signature = {
        name: names[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        for name, value in values.items()
    }
    source = ASTSource(
        function, {**signature, **dict.fromkeys(constants, "constexpr")}, constexprs=constants
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}
    )
    assert len(compiled.asm["cubin"]) > 0
    # Half precision is multiplied by tensor cores.
    assert ("mma" in compiled.asm["ptx"]) is (dtype == torch.bfloat16)


def _launch(
    kernel: str, sizes: Sizes, reduction: Any, dtype: torch.dtype
) -> tuple[tuple[Any, ...], Any, int]:
    """What a kernel is given: arguments, constants and warps."""
    launches: dict[str, Any] = {}

    def record(kernel: Kernel, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        launches[kernel.name] = (arguments, named)

    with recorded(record):
        batch, steps = (1, 1) if sizes.axons == 1 else (256, 5)
        activity = torch.zeros(batch, 64, steps, dtype=dtype)
        grad = torch.zeros(steps, 32, batch, dtype=dtype)
        wiring = torch.zeros(32, sizes.axons, dtype=torch.int64)
        sheet = (sizes.sites, sizes.dendrites)
        tree = TreeSpec(wiring, sheet, "same", claw=False, reduction=reduction, linear=False)
        filters = torch.zeros(32, sizes.k_time, 1, 1, dtype=dtype)
        bias = torch.zeros(32, sizes.dendrites, dtype=dtype)
        operands = TreeOperands(activity, wiring.to(dtype), filters, bias, tree)
        effective = torch.zeros(32, sizes.k_time * sizes.axons, math.prod(sheet), dtype=dtype)
        fused.current(operands, effective)
        fused.gradients(operands, effective, grad, True)
    values, named = launches[kernel]
    return values, named, named.pop("num_warps")
