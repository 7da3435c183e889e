"""Granule populations on the device: one fused kernel against its rivals, and CUDA graphs."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
from measure import Call, Row, Setup, arithmetic, check, ratios, release, time_calls
from torch import Tensor

from neuroconv.kernels.cuda import fused_kernels
from neuroconv.kernels.tree_sum import Tree, tree_current, tree_responses
from neuroconv.neurons import Granule, graphed

TASKS = ("inference", "forward", "forward_backward")
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def fused(setup: Setup) -> Iterator[Row]:
    """From the axons to the current of 4,096 granule cells: the fused kernel, the same stage by
    batched products, and stage after stage by grouped conv3d.

    "bf16" holds every tensor in bfloat16. In "inference" what weights and taps make together is
    there already. The bytes that must be moved are activity, the axon of each dendrite, weights,
    filters, bias and current, each once.
    """
    torch.manual_seed(0)
    neurons = 64 if setup.quick else 4096
    for batch in (4,) if setup.quick else (32, 256):
        for precision, dtype in _DTYPES.items():
            cells = Granule(neurons, neurons, mean_wait=0.0, backend="direct")
            cells = cells.to(setup.device, dtype)
            activity = torch.rand(batch, neurons, 5, device=setup.device).to(dtype)
            tree = _tree(cells)
            if precision != "tf32":
                yield _error(cells, tree, activity, precision)
            parts = (activity, tree.heard, *_learned(cells))
            moved = sum(part.nbytes for part in parts) + activity.nbytes  # as many currents
            for task in TASKS:
                variants = {
                    name: _call(name, cells, tree, activity, task, precision)
                    for name in ("fused", "plain", "direct")
                }
                rows = time_calls(variants, setup, seconds=0.2)
                if task != "forward_backward":
                    for row in rows.values():
                        if "median_ms" in row:
                            rate = moved / row["median_ms"] * 1e3
                            row["share_of_copy_bandwidth"] = setup.share("copy", rate)
                yield {
                    "benchmark": "granule cells, axons to current", "task": task,
                    "precision": precision, "batch": batch, "cells": neurons, "bytes": moved,
                    "fused_kernel_runs": setup.on_cuda and find_spec("triton") is not None,
                    "variants": rows, **ratios(rows, "fused"),
                }  # fmt: skip
            del cells, activity, variants
            release(setup)


def _tree(cells: Granule) -> Tree:
    synapses, rate = cells.synapses, cells.dendritic_rate
    return Tree(
        synapses.wiring, synapses.sheet_shape, cells.dendrites.mode, synapses.is_claw(),
        rate.reduction, rate.linear,
    )  # fmt: skip


def _learned(cells: Granule) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, filters and resting potentials of the dendrites."""
    bias = cells.dendrites.bias
    assert bias is not None
    return cells.synapses.effective_weight(), cells.dendrites.taps(), bias


def _error(cells: Granule, tree: Tree, activity: Tensor, precision: str) -> Row:
    """At full size, against float64 on the same device, which no fused kernel takes."""
    with torch.no_grad():
        wanted = tree_current(activity.double(), *(p.double() for p in _learned(cells)), tree)
        with arithmetic(precision):
            result = tree_current(activity, *_learned(cells), tree)
    return check(
        "granule current", result, wanted, {"fp32": 1e-5, "bf16": 2e-2}[precision],
        precision=precision, batch=len(activity), cells=cells.out_features,
    )  # fmt: skip


def _call(
    name: str, cells: Granule, tree: Tree, activity: Tensor, task: str, precision: str
) -> Call:
    x = activity.detach().requires_grad_(task == "forward_backward")
    made = None
    if task == "inference":
        with torch.no_grad():
            made = tree_responses(*_learned(cells)[:2], tree)

    def current() -> Tensor:
        if name == "direct":
            rate = cells.dendritic_rate(cells.dendrites(cells.synapses(x)))
            return rate.sum(-1)
        return tree_current(x, *_learned(cells), tree, made)

    wanted = (x, cells.synapses.weight, cells.dendrites.weight, cells.dendrites.bias)

    def call() -> object:
        gradients = task == "forward_backward"
        with (
            arithmetic(precision),
            fused_kernels(name == "fused"),
            torch.set_grad_enabled(gradients),
        ):
            result = current()
            if not gradients:
                return result
            return torch.autograd.grad(result, wanted, torch.ones_like(result))

    return call


def graphs(setup: Setup) -> Iterator[Row]:
    """Small populations in inference: launched operator by operator, and as one CUDA graph."""
    torch.manual_seed(0)
    for neurons in (16,) if setup.quick else (16, 64, 256, 1024, 4096):
        for batch in (1, 32):
            cells = Granule(neurons, neurons, mean_wait=0.0).to(setup.device).eval()
            activity = torch.rand(batch, neurons, 5, device=setup.device)
            with torch.no_grad(), arithmetic("fp32"):
                recorded = graphed(cells, activity)
                yield check(
                    "graphed population", recorded(activity), cells(activity), 1e-5,
                    batch=batch, cells=neurons,
                )  # fmt: skip
                calls = {
                    "graphed": lambda run=recorded, x=activity: run(x),
                    "eager": lambda run=cells, x=activity: run(x),
                }
                rows = time_calls(calls, setup, seconds=0.2)
            yield {
                "benchmark": "graphed population", "batch": batch, "cells": neurons,
                "variants": rows, **ratios(rows, "graphed"),
            }  # fmt: skip
