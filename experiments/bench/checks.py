"""Sections on correctness: the device against float64 on the CPU."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from internals import FORCED
from neurons import purkinje_sizes
from recording import Bench, Row, error, figure, row
from torch import Tensor, nn
from variants import neuroconv
from workloads import CLAW, GRANULE, small_model

from neuroconv.flops import profile
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import list_models

TOLERANCES = {"fp32": 1e-5, "tf32": 5e-3, "bf16 tensors": 2e-2, "bf16 autocast": 2e-2}
_PARTS = {
    "output": "output",
    "sheet_gradient": "sheet's gradient",
    "filter_gradient": "filters' gradient",
}
_ROOT = Path(__file__).resolve().parents[2]
_TESTS_SECONDS = 100.0
_MODES = ("same", "valid", "per_dendrite")
Operands = tuple[Tensor, Tensor]


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Runs float32 products in "tf32", or else in full float32, under autocast if "bf16 autocast".

    Convolutions and matrix products are both set, so that neither has torch's own default.
    """
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16 autocast"):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def with_gradients(
    function: Callable[..., Tensor], operands: Operands, seed: int = 1
) -> dict[str, Tensor]:
    """Returns the output and both gradients, for a random gradient of the output."""
    x, w = (operand.detach().requires_grad_() for operand in operands)
    y = function(x, w)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    results = (y.detach(), *torch.autograd.grad(y, (x, w), grad))
    return dict(zip(_PARTS, results, strict=True))


def errors(results: dict[str, Tensor], exact: dict[str, Tensor], at_most: float) -> dict[str, Any]:
    """Returns the figures of these results' errors."""
    return {
        f"{part}_error_over_largest": figure(
            f"error of the {_PARTS.get(part, part)}", error(result, exact[part]), at_most=at_most
        )
        for part, result in results.items()
    }


def smoke(bench: Bench) -> Iterator[Row]:
    """Checks in seconds that populations and image layers run on the device, both ways."""
    torch.manual_seed(0)
    modules: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "Granule": (Granule(64, 64, output={"mean_wait": 0.0}), (4, 64, 5)),
        "Purkinje": (Purkinje(500, 1, output={"mean_wait": 0.0}), (1, 500, 5)),
        "GranuleConv2d": (GranuleConv2d(2, 4, padding="same"), (2, 2, 5, 12, 12)),
    }
    for name, (module, shape) in modules.items():
        inputs = torch.rand(*shape)
        exact = _module_results(deepcopy(module).double(), inputs.double())
        results = _module_results(module.to(bench.device), inputs.to(bench.device))
        yield row(f"smoke: {name}", figures=errors(results, exact, 1e-4))


def _module_results(module: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    x, weights = inputs.requires_grad_(), list(module.parameters())
    y = module.train()(x)
    grads = torch.autograd.grad(y, (x, *weights), torch.ones_like(y))
    sizes = torch.stack([grad.double().norm() for grad in grads[1:]])
    return {"output": y, "input_gradient": grads[0], "norms_of_weight_gradients": sizes}


# (mode, batch, neurons, sheet, taps); the reference is the direct convolution in float64.
_CASES = (
    *((mode, 3, 4, (5, 10, 12), (5, 4, 12)) for mode in _MODES),
    ("same", 8, 256, GRANULE, CLAW),
)


def accuracy(bench: Bench) -> Iterator[Row]:
    """Checks every backend, mode and precision, output and both gradients, against float64."""
    torch.manual_seed(0)
    for precision in [name for name in TOLERANCES if bench.on_cuda or name != "tf32"]:
        for backend in FORCED:
            worst = dict.fromkeys(_PARTS, 0.0)
            for mode, batch, neurons, sheet, taps in bench.pick(_CASES, _CASES[:3]):
                sizes = (batch, neurons, *sheet), (neurons, *taps)
                current = _conv_errors(bench, mode, backend, precision, sizes, "direct")
                worst = {part: max(worst[part], current[part]) for part in _PARTS}
            yield _accuracy_row(backend, precision, worst)
    shape, taps = purkinje_sizes(bench)
    # The FFT in float64 is the reference here: the direct convolution takes a minute.
    worst = _conv_errors(bench, "same", "auto", "fp32", ((1, 1, *shape), (1, *taps)), "fft")
    yield _accuracy_row("Purkinje of full size, auto", "fp32", worst)


def _accuracy_row(name: str, precision: str, worst: dict[str, float]) -> Row:
    figures = {
        f"{part}_error_over_largest": figure(
            f"error of the {text}", worst[part], at_most=TOLERANCES[precision]
        )
        for part, text in _PARTS.items()
    }
    sizes = {"precision": precision, "modes": list(_MODES)}
    return row(f"accuracy of {name}, {precision}", sizes, {}, figures)


def _conv_errors(
    bench: Bench, mode: str, backend: str, precision: str,
    sizes: tuple[tuple[int, ...], tuple[int, ...]], reference: str,
) -> dict[str, float]:  # fmt: skip
    """Returns errors by part; bf16 tensors are compared with their own values in float64."""
    dtype = torch.bfloat16 if precision == "bf16 tensors" else torch.float32
    operands = [torch.randn(size).to(dtype) for size in sizes]
    exact = with_gradients(neuroconv(mode, reference), [operand.double() for operand in operands])
    with arithmetic(precision, bench.device):
        moved = [operand.to(bench.device) for operand in operands]
        results = with_gradients(neuroconv(mode, backend), moved)
    return {part: error(results[part], exact[part]) for part in _PARTS}


def synapse_gradient(bench: Bench) -> Iterator[Row]:
    """Checks the gradient that hundreds of synapses sum on an axon, its activity in bfloat16."""
    torch.manual_seed(0)
    axons, cells = bench.pick((2_000, 8), (500, 1))
    module = Purkinje(axons, cells).synapses
    activity = torch.rand(2, axons, 5).bfloat16()
    exact_input = activity.double().requires_grad_()
    sheet = deepcopy(module).double()(exact_input)
    grad = torch.randn(sheet.shape)
    (exact,) = torch.autograd.grad(sheet, exact_input, grad.double())
    module = module.to(bench.device)
    for precision, dtype, tolerance in (
        ("fp32", torch.float32, 1e-5), ("bf16", torch.bfloat16, 1e-2)
    ):  # fmt: skip
        x = activity.to(bench.device, dtype).requires_grad_()
        y = module(x)
        (result,) = torch.autograd.grad(y, x, grad.to(y))
        sizes = {"synapses_per_axon": sheet[0, :, 0].numel() // axons}
        figures = errors({"axon_gradient": result}, {"axon_gradient": exact}, tolerance)
        yield row(f"synapses, gradient to the axons, {precision}", sizes, figures=figures)


def zoo(bench: Bench) -> Iterator[Row]:
    """Checks every entry: eval against float32 on the CPU, counters, a training step in bf16."""
    for name in list_models():
        large = name.startswith("resnet18")
        pixels = (bench.pick(224, 64) if large else 28,) * 2
        images = torch.rand(4, 3 if large else 1, *pixels)
        model = small_model(name, bench.quick, image_shape=images.shape[1:], num_classes=10)
        model.eval()
        with torch.no_grad():
            exact = model(images)
        counted = profile(model, images, name=name, device=bench.device.type,
                          fvcore_device=bench.device.type)  # fmt: skip
        figures = {"counters_that_disagree": figure(
            "counters disagree", len(counted.disagreements) + len(counted.skipped), at_most=0
        )}  # fmt: skip
        model.to(bench.device)
        for precision, tolerance in (("fp32", 1e-4), ("tf32", 2e-2), ("bf16 autocast", 1e-1)):
            with torch.no_grad(), arithmetic(precision, bench.device):
                logits = model(images.to(bench.device))
            figures[f"{precision.partition(' ')[0]}_error_over_largest"] = figure(
                f"error of the logits in {precision}", error(logits, exact), at_most=tolerance
            )
        figures["still_or_not_finite"] = figure(
            "parameters that a step in bf16 leaves as they were, or not finite",
            _training_step(model.train(), images.to(bench.device), bench), at_most=0,
        )  # fmt: skip
        yield row(f"zoo: {name}", {"images": list(images.shape)}, figures=figures)


def _training_step(model: nn.Module, images: Tensor, bench: Bench) -> int:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = [weight.detach().clone() for weight in model.parameters()]
    labels = torch.arange(len(images), device=bench.device)
    with arithmetic("bf16 autocast", bench.device):
        logits = model(images)
    F.cross_entropy(logits.float(), labels).backward()
    optimizer.step()
    return sum(
        torch.equal(old, new) or new.grad is None or not bool(new.grad.isfinite().all())
        for old, new in zip(before, model.parameters(), strict=True)
    )


def tests(bench: Bench) -> Iterator[Row]:
    """Runs the project's tests that are marked `gpu`, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-m", "gpu and not slow", "-q", "--tb=line"),
            *("-p", "no:cacheprovider", f"--junitxml={report}", "tests"),
        ]
        try:
            done = subprocess.run(
                command, cwd=_ROOT, capture_output=True, text=True, timeout=_TESTS_SECONDS,
                check=False,
            )  # fmt: skip
            notes = done.stdout.splitlines()[-20:] if done.returncode not in (0, 5) else []
        except subprocess.TimeoutExpired:
            notes = [f"out of time after {_TESTS_SECONDS:g} s"]
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        ends = [(case, {child.tag for child in case}) for case in cases]
    failed = [f"{case.get('classname')}::{case.get('name')}" for case, tags in ends
              if tags & {"failure", "error"}]  # fmt: skip
    skipped = sum("skipped" in tags for _, tags in ends)
    figures = {
        "passed_tests": figure("tests passed", len(ends) - len(failed) - skipped),
        "failed_tests": figure(
            "tests failed, or none came to its end", len(failed) or int(bool(notes)), at_most=0
        ),
        "skipped_tests": figure("tests skipped", skipped),
    }
    yield row("pytest -m gpu", {"failed": failed}, figures=figures, notes=notes)
