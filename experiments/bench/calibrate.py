"""Fits the constants by which "auto" chooses how a dendritic convolution and a population run.

    python experiments/bench/calibrate.py backends --seconds 300 --seed 1 [--device cuda]
    python experiments/bench/calibrate.py trees --seconds 300 --seed 1

`backends` draws shapes at random and times every backend that is not hopeless, in two layouts of
memory; `trees` draws populations and times each as one stage and stage by stage. For each way to
compute, the seconds that a unit of each of the model's terms takes are fitted: least squares on the
logarithms, robust against single shapes, of the times that come near the best. What is printed goes
into `neuroconv/kernels/conv/times.toml`; run `backends` first. All threads work, as they do for
users: leave the machine alone.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from internals import FORCED, choice, keep_freed_memory, problem_macs, tree_problem, with_backend
from scipy.optimize import least_squares
from torch import nn
from variants import TASKS, kernel_variant, module_variant, neuroconv, with_layout
from workloads import BATCH_INNERMOST

from neuroconv.layers import TreeShape
from neuroconv.neurons import Granule

SHEETS = (
    (4, 4), (3, 5), (8, 8), (6, 10), (10, 10), (5, 50), (10, 100), (20, 20), (25, 25), (50, 100),
    (100, 100), (30, 300), (100, 1000),
)  # fmt: skip
TREE_SHEETS = ((4, 4), (3, 5), (8, 8), (4, 16), (16, 4), (10, 10), (4, 32), (32, 4), (20, 20))
MOST_NUMBERS = {"cpu": 1.5e7, "cuda": 2e8}  # of a sheet
SLOWEST_MACS_PER_S = {
    "cpu": {"direct": 1.5e9, "fft": 1e9, "matmul": 1e10},
    "cuda": {"direct": 1e11, "fft": 1e11, "matmul": 1e12},
}
SECONDS_AT_MOST = {"cpu": 1.5, "cuda": 0.1}
LAYOUTS = (BATCH_INNERMOST, range(5))
AXONS = 1_000
MOST_MACS, MOST_WEIGHTS = 2e10, 2e8  # of a tree's product; of what weights and taps make together
NEAR_THE_BEST = 10.0  # times: what is slower still is never chosen, however far off its model is
PULL, FIRMLY, LEAST = 0.3, 1e3, 1e-14  # to a constant's value before; what stands for 0 there

Shape = dict[str, Any]


def seconds(call: Callable[[int], float]) -> float:
    """Returns the shortest of up to 20 calls, after one."""
    call(1)
    first = call(1)
    return min([first, *(call(1) for _ in range(max(1, min(20, int(0.15 / max(first, 1e-6))))))])


def draw_shape(rng: random.Random) -> Shape:
    mode = rng.choice(("same", "same", "valid", "per_dendrite"))
    sites, dendrites = rng.choice(SHEETS)
    width = rng.choice((dendrites, dendrites, max(1, dendrites // 2), min(dendrites, 3)))
    return {
        "mode": mode,
        "batch": rng.choice((1, 1, 2, 8, 32, 32, 128, 256)),
        "neurons": rng.choice((1, 2, 8, 12, 32, 128, 512, 1024, 4096)),
        "sheet": (rng.choice((1, 3, 5, 5, 5, 10, 20)), sites, dendrites),
        "taps": (
            rng.choice((1, 3, 5, 5, 5)),
            min(sites, rng.choice((1, 3, 3, 5, 10))),
            dendrites if mode == "per_dendrite" else width,
        ),
    }


def measure_shape(shape: Shape, device: str) -> Shape | None:
    """Returns the shape with (backend, seconds) by task, in either layout; None if too large."""
    size = (shape["batch"], shape["neurons"], *shape["sheet"])
    if np.prod(size) > MOST_NUMBERS[device]:
        return None
    filters = torch.randn(shape["neurons"], *shape["taps"], device=device)
    times: dict[str, list[tuple[str, float]]] = {task: [] for task in TASKS}
    for backend in FORCED:
        macs = sum(problem_macs(choice.ConvProblem(**shape), backend).values())
        estimate = macs / SLOWEST_MACS_PER_S[device][backend]
        if estimate > SECONDS_AT_MOST[device] or (
            backend == "matmul" and macs / shape["batch"] > 4e8
        ):
            continue
        for layout in LAYOUTS:
            sheet = with_layout(torch.randn(size, device=device), layout)
            for task in TASKS if estimate <= SECONDS_AT_MOST[device] / 10 else TASKS[:1]:
                function = neuroconv(shape["mode"], backend)
                variant = kernel_variant(function, sheet, filters, task)
                times[task].append((backend, seconds(variant.block)))
    return {**shape, "seconds": times}


def fit(
    terms: Sequence[tuple[float, ...]], times: Sequence[float], before: tuple[float, ...],
    last: float | None = None,
) -> tuple[list[float], float]:  # fmt: skip
    """Returns seconds for a unit of each term, and the standard deviation of the log of the ratio.

    What the times say nothing about stays near its value before.

    Args:
        last: the last constant, where it has been measured by itself.
    """
    sizes, logs_of_times = np.array(terms, float), np.log(times)
    start = np.log(np.maximum(before if last is None else (*before[:-1], last), LEAST))
    pull = np.full(len(start), PULL)
    pull[-1] = PULL if last is None else FIRMLY

    def residuals(logs: Any) -> Any:
        return np.log(sizes @ np.exp(logs)) - logs_of_times

    def robust(logs: Any) -> Any:
        off = residuals(logs)
        soft = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))  # as `soft_l1`
        return np.concatenate([soft, pull * (logs - start)])

    solution = least_squares(robust, start, max_nfev=3000).x
    return np.exp(solution).tolist(), float(residuals(solution).std())


def print_constants(name: str, values: Sequence[float], spread: float, count: int) -> None:
    shown = ", ".join(f"{value:.1e}" for value in values)
    print(f'"{name}" = [{shown}]  # {count} times, log deviation {spread:.2f}')


def geometric_mean(ratios: Any) -> float:
    return float(np.exp(np.log(ratios).mean()))


def fit_backends(rows: Sequence[Shape], task: str, device: str) -> dict[str, Any]:
    """Prints and returns the constants by way to compute, and prints what "auto" now loses."""
    gradients = task != TASKS[0]
    data: dict[str, tuple[list[tuple[float, ...]], list[float]]] = {}
    losses = []
    for row in rows:
        times = row["seconds"][task]
        if not times:
            continue
        best = {backend: min(taken for name, taken in times if name == backend)
                for backend, _ in times}  # fmt: skip
        sizes = {key: row[key] for key in ("batch", "neurons")}
        job = choice.ConvProblem(row["sheet"], row["taps"], row["mode"], **sizes)
        native = choice.runs_native(job, device, gradients)
        for name, values in choice.model_terms(job, native).items():
            for backend, taken in times:
                near = taken <= NEAR_THE_BEST * min(best.values())
                if choice.BACKEND_OF[name] == backend and near:
                    data.setdefault(name, ([], []))[0].append(values)
                    data[name][1].append(taken)
        chosen = choice.choose_backend(job, gradients=gradients, device=device)
        if chosen in best:
            losses.append(best[chosen] / min(best.values()))
    # Seconds of one product of small matrices in a batch of them: too few shapes draw enough.
    left, right = torch.randn(16384, 2, 12, device=device), torch.randn(16384, 12, 8, device=device)
    product = kernel_variant(lambda x, w: torch.bmm(x, w), left, right, TASKS[0]).block
    last = None if gradients else seconds(product) / len(left)  # both ways other things weigh
    print(f"[{device}.{'both' if gradients else 'forward'}]")
    constants = {}
    for name, (terms, times) in data.items():
        before = choice.constants(gradients, device)[name]
        constants[name], spread = fit(terms, times, before, last if name == "toeplitz" else None)
        print_constants(name, constants[name], spread, len(times))
    print(
        f"# {len(losses)} shapes; as it stands the choice takes {geometric_mean(losses):.3f} times "
        f"the best backend's time on average, {max(losses):.2f} at worst"
    )
    return constants


def draw_tree(rng: random.Random) -> Shape:
    sites, dendrites = rng.choice(TREE_SHEETS)
    width = rng.choice((dendrites, dendrites, max(1, dendrites // 2), min(dendrites, 3)))
    return {
        "mode": rng.choice(("same", "same", "valid")),
        "claw": rng.random() < 0.7,
        "batch": rng.choice((1, 2, 8, 32, 32, 128, 256)),
        "neurons": rng.choice((256, 512, 1024, 2048, 4096)),
        "steps": rng.choice((1, 3, 5, 5, 5, 10, 20)),
        "sheet": (sites, dendrites),
        "taps": (rng.choice((1, 3, 5, 5)), min(sites, rng.choice((1, 3, 3, 5))), width),
    }


def build_tree(shape: Shape, as_one_stage: bool) -> nn.Module:
    k_time, branches, width = shape["taps"]
    cells = with_backend(
        Granule, AXONS, shape["neurons"],
        tree=TreeShape(shape["sheet"], (branches, width, k_time), mode=shape["mode"]),
        wiring={"claw": shape["claw"]}, output={"mean_wait": 0.0},
        backend="matmul" if as_one_stage else "auto",
    )  # fmt: skip
    if not as_one_stage:
        cells.dendritic_rate.register_forward_hook(lambda *_: None)  # a hook keeps stages apart
    return cells


def measure_tree(shape: Shape, device: str) -> Shape | None:
    """Returns the population with its terms, and by task the seconds as one stage and by stages.

    None where it is too large, or where another form of the product runs.
    """
    cells = {as_one: build_tree(shape, as_one) for as_one in (True, False)}
    whole = cells[True]
    job, axons, joins = tree_problem(whole, shape["batch"], shape["steps"])
    terms, way = choice.fused_terms(job, axons), "fused"
    if terms[3] > MOST_MACS or terms[1] > MOST_WEIGHTS or not joins:
        return None
    if choice.runs_native(job, device):
        terms, way = choice.native_fused_terms(job, axons), "fused, native"
    row = {**shape, "axons": axons, "way": way, "terms": terms, "seconds": {}, "modelled": {},
           "joins": {}}  # fmt: skip
    activity = torch.rand(shape["batch"], AXONS, shape["steps"])
    for task in TASKS:
        gradients = task != TASKS[0]
        row["seconds"][task] = [
            seconds(module_variant(population, activity, task).block)
            for population in cells.values()
        ]
        times = choice.model_seconds(job, choice.runs_native(job, "cpu", gradients), gradients)
        row["modelled"][task] = min(times.values())
        row["joins"][task] = choice.fuses_tree(job, axons, gradients=gradients)
    return row


def fit_trees(rows: Sequence[Shape], task: str, device: str) -> dict[str, Any]:
    """Prints and returns the constants as one stage, and how many times the fastest backend's
    modelled time the stages take one by one."""
    fused, staged = (np.array([row["seconds"][task][side] for row in rows]) for side in (0, 1))
    modelled = np.array([row["modelled"][task] for row in rows])
    constants: dict[str, Any] = {}
    print(f"[{device}.{'forward' if task == TASKS[0] else 'both'}]")
    for way in ("fused", "fused, native"):
        used = np.array([row["way"] == way for row in rows]) & (fused < NEAR_THE_BEST * staged)
        if used.any():
            terms = [row["terms"] for row, use in zip(rows, used, strict=True) if use]
            before = choice.constants(task != TASKS[0], device)[way]
            constants[way], spread = fit(terms, fused[used], before)
            print_constants(way, constants[way], spread, int(used.sum()))
            stages = staged[used] / modelled[used]
            low, high = np.quantile(stages, (0.25, 0.75))
            print(
                f"# stage by stage takes {geometric_mean(stages):.2f} times the backend's modelled "
                f"time, quartiles {low:.2f} to {high:.2f}"
            )
            constants[f"{way}, stage by stage"] = stages.tolist()
    losses = np.where([row["joins"][task] for row in rows], fused, staged) / np.minimum(
        fused, staged
    )
    print(
        f"# {len(rows)} populations; as it stands the choice takes {geometric_mean(losses):.3f} "
        f"times the better way's time on average, {losses.max():.2f} at worst"
    )
    return constants


def measurements(
    draw: Callable[[random.Random], Shape], measure: Callable[[Shape, str], Shape | None],
    options: argparse.Namespace,
) -> Iterator[Shape]:  # fmt: skip
    rng, end = random.Random(options.seed), time.monotonic() + options.seconds
    while time.monotonic() < end:
        row = measure(draw(rng), options.device)
        if row is not None:
            yield row


STEPS = {
    "backends": (draw_shape, measure_shape, fit_backends),
    "trees": (draw_tree, measure_tree, fit_trees),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=STEPS)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to measure")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="file for what is drawn, times and constants")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    draw, measure, fit_task = STEPS[options.what]
    rows = list(measurements(draw, measure, options))
    constants = {task: fit_task(rows, task, options.device) for task in TASKS}
    if options.json is not None:
        options.json.write_text(
            json.dumps({"drawn": rows, "constants": constants}, indent=1, allow_nan=False)
        )


if __name__ == "__main__":
    main()
