"""The choice of the dendritic convolution's backend, by a model of their times.

Every backend's time, forward or both ways, is modelled as a sum of a few terms, each a size times a
constant: launching its operators, arithmetic, what is moved. The constants are fitted to measured
times; `experiments/bench/calibrate.py` measures and fits them, and the section `auto` of
`experiments/bench/run.py` compares the choice with the best backend.
"""

import math
import tomllib
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from neuroconv.core.checks import check_choice
from neuroconv.kernels import native
from neuroconv.kernels.conv.costs import fft_products, matmul_form, matmul_macs
from neuroconv.kernels.conv.sizes import (
    BACKENDS,
    Backend,
    ConvProblem,
    axis_pairs,
    output_size,
    step_pairs,
)
from neuroconv.kernels.conv.spectra import few_branches, fft_size
from neuroconv.kernels.native.trees import multiplied_sites

Arguments = ParamSpec("Arguments")
Choice = TypeVar("Choice")

_TIMES = tomllib.loads(Path(__file__).with_name("times.toml").read_text())
# Neurons of a population large enough to make the launch of operators negligible.
MANY_NEURONS = 1024
# The batch assumed where an exporter leaves it open.
_OPEN_BATCH = 32


def concrete_batch(batch: int) -> int:
    """Returns the batch to choose for, 32 for a symbol that an exporter leaves open."""
    return _OPEN_BATCH if isinstance(batch, torch.SymInt) else int(batch)


def _cached(choose: Callable[Arguments, Choice]) -> Callable[Arguments, Choice]:
    """Caches choices by their arguments: modelling the times takes longer than a small kernel."""
    cached = lru_cache(maxsize=4096)(choose)

    @wraps(choose)
    def call(*args: Arguments.args, **keywords: Arguments.kwargs) -> Choice:
        if torch.compiler.is_compiling():  # which warns of a cache
            return choose(*args, **keywords)
        return cached(*args, **keywords)  # type: ignore[arg-type]

    return call


def choose_backend(
    problem: ConvProblem, backend: Backend = "auto", *, gradients: bool = False, device: str = "cpu"
) -> Backend:
    """Returns the backend that `dendritic_conv` runs.

    Args:
        backend: returned as it is unless "auto".
        gradients: whether a backward pass follows.
        device: "cpu" or "cuda"; on "meta" it is the CPU's choice.
    """
    check_choice("backend", backend, BACKENDS)
    if backend != "auto":
        return backend
    problem = problem._replace(batch=concrete_batch(problem.batch))
    return _fastest(problem, runs_native(problem, device, gradients), gradients, device)


@_cached
def _fastest(problem: ConvProblem, with_native: bool, gradients: bool, device: str) -> Backend:
    times = model_seconds(problem, with_native, gradients, device)
    return min(times, key=lambda name: times[name])


def fuses_tree(
    problem: ConvProblem,
    axons: int,
    backend: Backend = "auto",
    *,
    gradients: bool = False,
    device: str = "cpu",
) -> bool:
    """Returns whether a large population runs from axons to soma as one stage (`kernels.tree_sum`).

    With "auto" it does if that is faster than the fastest backend with the stages around it.

    Args:
        problem: for any number of neurons.
        axons: presynaptic axons of a tree, fewer than its synapses where a claw's sites share one.
        backend, gradients, device: as in `choose_backend`.
    """
    check_choice("backend", backend, BACKENDS)
    if backend != "auto":
        return backend == "matmul" and matmul_form(problem) == "toeplitz"
    problem = problem._replace(neurons=MANY_NEURONS)
    with_native = runs_native(problem, device, gradients)
    return _fuses_tree(problem, axons, with_native, gradients, device)


@_cached
def _fuses_tree(
    problem: ConvProblem, axons: int, with_native: bool, gradients: bool, device: str
) -> bool:
    if matmul_form(problem) != "toeplitz":
        return False
    kernel, terms = "fused", fused_terms(problem, axons)
    if with_native:
        kernel, terms = "fused, native", native_fused_terms(problem, axons)
    times = model_seconds(problem, with_native, gradients, device)
    staged = _TIMES["stage_by_stage"][kernel][1 if gradients else 0] * min(times.values())
    return _seconds(kernel, terms, gradients, device) <= staged


def runs_native(problem: ConvProblem, device: str, gradients: bool = True) -> bool:
    """Returns whether products of small matrices run by the C++ kernels (`kernels.native`).

    The result is the same under a tracer, where torch's operators run: a counter that traces has to
    see the same products.

    Args:
        gradients: without them a single sample never counts on the kernels. Models are counted with
            one sample, and the count must not depend on a C++ compiler.
    """
    if torch.compiler.is_compiling() or device == "cuda":
        return False
    return problem.batch > (0 if gradients else 1) and native.state() == "on"


def fused_terms(problem: ConvProblem, axons: int) -> tuple[float, ...]:
    """Returns a fused tree's launches; entries of the effective filters; entries read by all output
    steps; multiply-adds; inputs and outputs."""
    trees = problem.as_columns()
    fan_in = -(-axons // (trees.neurons // problem.neurons))
    outputs = math.prod(output_size(*trees.plane()))
    entries = trees.neurons * fan_in * outputs
    read = entries * step_pairs(problem.sheet[0], problem.taps[0], problem.sheet[0])
    moved = trees.neurons * problem.batch * problem.sheet[0] * (fan_in + outputs)
    return 1, entries * min(problem.taps[0], problem.sheet[0]), read, problem.batch * read, moved


def native_fused_terms(problem: ConvProblem, axons: int) -> tuple[float, ...]:
    """Returns the C++ kernels' launches; multiply-adds without zeros across the dendrites; inputs;
    multiply-adds that pack weights and taps; blocks of branches."""
    trees = problem.as_columns()
    fan_in = -(-axons // (trees.neurons // problem.neurons))
    steps, (rows, cols) = problem.sheet[0], output_size(*trees.plane())
    samples = trees.neurons * native.padded(problem.batch)
    sites = -(-fan_in // trees.sheet[2])  # of a dendrite, with an axon each: of a claw one
    branches, across = trees.taps[1:]
    macs = samples * _native_pairs(trees) * multiplied_sites(sites, rows, branches)
    if sites == 1:
        packed = cols * native.padded(across * rows) * branches
    else:
        packed = (across + 1) * (sites + rows - 1)
    packed *= trees.neurons * problem.taps[0]
    return 1, macs, samples * steps * fan_in, packed, trees.neurons * steps * cols


def _native_pairs(problem: ConvProblem) -> int:
    """Counts the pairs of input and output (step, dendrite) of a problem in columns."""
    across = axis_pairs(problem.sheet[2], problem.taps[2], problem.mode)
    return step_pairs(problem.sheet[0], problem.taps[0], problem.out_steps()) * across


def model_seconds(
    problem: ConvProblem, with_native: bool, gradients: bool, device: str = "cpu"
) -> dict[Backend, float]:
    """Models the seconds of each backend's forward pass, with `gradients` of both passes."""
    return {
        BACKEND_OF[name]: _seconds(name, terms, gradients, device)
        for name, terms in model_terms(problem, with_native).items()
    }


def constants(gradients: bool, device: str) -> dict[str, list[float]]:
    """Returns the seconds for each unit of the terms, by implementation."""
    return _TIMES["cuda" if device == "cuda" else "cpu"]["both" if gradients else "forward"]


def _seconds(name: str, terms: tuple[float, ...], gradients: bool, device: str) -> float:
    seconds = constants(gradients, device)[name]
    return sum(c * size for c, size in zip(seconds, terms, strict=True))


BACKEND_OF: dict[str, Backend] = {
    "direct": "direct",
    "direct, one neuron": "direct",
    "fft": "fft",
    "toeplitz": "matmul",
    "toeplitz, native": "matmul",
    "full_width": "matmul",
}


def model_terms(problem: ConvProblem, with_native: bool = False) -> dict[str, tuple[float, ...]]:
    """Returns the sizes that the model multiplies by constants, for each implementation."""
    problem = problem.as_columns()
    (time_steps, sites, dendrites), (k_time, branches, across) = problem.sheet, problem.taps
    cells, samples, steps = problem.neurons, problem.neurons * problem.batch, problem.out_steps()
    rows, cols = output_size(*problem.plane())
    moved = samples * (time_steps * sites * dendrites + steps * rows * cols)

    macs = samples * steps * rows * cols * k_time * branches * across
    name = "direct, one neuron" if cells == 1 else "direct"
    terms: dict[str, tuple[float, ...]] = {name: (1, macs, macs / cols, moved, samples)}

    size = fft_size(*problem.plane())
    points = size[0] * size[1]
    # Few branches take their share, and as much again for the product along the sites.
    share = min(1.0, 2 * branches / size[0]) if few_branches(branches) else 1.0
    transforms = samples * (time_steps + steps) + share * cells * k_time
    terms["fft"] = (
        1, transforms * points * math.log2(points + 1), fft_products(problem) / 8,
        transforms * size[0], moved,
    )  # fmt: skip

    form = matmul_form(problem)
    macs = samples * matmul_macs(problem)[form]
    if form == "toeplitz" and with_native:
        vectors = cells * native.padded(problem.batch)
        macs = vectors * _native_pairs(problem) * multiplied_sites(sites, rows, branches)
        moved = vectors * (time_steps * sites * dendrites + steps * rows * cols)
        terms["toeplitz, native"] = (1, macs, moved, cells * steps * cols)
    elif form == "toeplitz":
        matrices = cells * min(k_time, time_steps) * sites * dendrites * rows * cols
        terms[form] = (1, steps, macs, matrices, moved, cells * steps)
    else:
        terms[form] = (1, macs, moved, samples * time_steps * sites * k_time * branches, cells)
    return terms
