"""Fits the constants by which `auto` chooses a backend of the dendritic convolution.

    python experiments/bench/calibrate.py --seconds 300 --seed 1 [--device cuda] [--json FILE]

Draws shapes at random, times every backend that is not hopeless on each, in two layouts of memory,
forward and with both gradients, and fits, for each way to compute, the seconds that a unit of each
of the model's terms takes: least squares on the logarithms, robust against single shapes, of the
times that come near the best backend's. All threads work, as they do for users: leave the machine
alone. What it prints goes into `neuroconv/kernels/conv/choice.py`.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares

from neuroconv.kernels.conv import Job, conv_macs
from neuroconv.kernels.conv.choice import (
    BACKEND_OF,
    choose_backend,
    constants,
    model_terms,
    runs_native,
)
from neuroconv.layers import dendritic_conv
from neuroconv.training.allocator import keep_freed_memory

SHEETS = (
    (4, 4), (3, 5), (8, 8), (6, 10), (10, 10), (5, 50), (10, 100), (20, 20), (25, 25), (50, 100),
    (100, 100), (30, 300), (100, 1000),
)  # fmt: skip
MOST_NUMBERS = 1.5e7  # of a sheet
SLOWEST_MACS_PER_S = {"direct": 1.5e9, "fft": 1e9, "matmul": 1e10}
SECONDS_AT_MOST = 1.5
# Batch innermost, as synapses give their sheets, and torch's own order.
LAYOUTS = ((1, 4, 3, 2, 0), (0, 1, 2, 3, 4))

NEAR_THE_BEST = 10.0  # times: what is slower still is never chosen, however far off its model is
PULL, FIRMLY, LEAST = 0.3, 1e3, 1e-14  # to a constant's value before; what stands for 0 there
TASKS = ("forward", "forward and backward")

Shape = dict[str, Any]
Times = list[tuple[str, float]]


def drawn(rng: random.Random) -> Shape:
    mode = rng.choice(("same", "same", "valid", "per_dendrite"))
    sites, dendrites = rng.choice(SHEETS)
    across = rng.choice((dendrites, dendrites, max(1, dendrites // 2), min(dendrites, 3)))
    return {
        "mode": mode,
        "batch": rng.choice((1, 1, 2, 8, 32, 32, 128, 256)),
        "neurons": rng.choice((1, 2, 8, 12, 32, 128, 512, 1024, 4096)),
        "sheet": (rng.choice((1, 3, 5, 5, 5, 10, 20)), sites, dendrites),
        "taps": (
            rng.choice((1, 3, 5, 5, 5)),
            min(sites, rng.choice((1, 3, 3, 5, 10))),
            dendrites if mode == "per_dendrite" else across,
        ),
    }


def seconds(call: Callable[[], object], device: str) -> float:
    """The shortest of up to 20 calls, after one."""

    def once() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    once()
    first = once()
    return min([first, *(once() for _ in range(max(1, min(20, int(0.15 / max(first, 1e-6))))))])


def measured(shape: Shape, device: str) -> dict[str, Times]:
    """By task, (backend, seconds) in either layout."""
    mode, batch, neurons = shape["mode"], shape["batch"], shape["neurons"]
    size = (batch, neurons, *shape["sheet"])
    filters = torch.randn(neurons, *shape["taps"], device=device)
    found: dict[str, Times] = {task: [] for task in TASKS}
    for backend, rate in SLOWEST_MACS_PER_S.items():
        sizes = (batch, neurons, shape["sheet"], shape["taps"], mode, backend)
        macs = sum(conv_macs(*sizes).values())
        if macs / rate > SECONDS_AT_MOST or (backend == "matmul" and macs / batch > 4e8):
            continue
        for order in LAYOUTS:
            back = [order.index(axis) for axis in range(5)]
            sheet = torch.randn([size[axis] for axis in order], device=device).permute(back)
            call = lambda: dendritic_conv(sheet, filters, mode, backend)  # noqa: B023, E731
            found["forward"].append((backend, seconds(call, device)))
            if macs / rate > SECONDS_AT_MOST / 10:
                continue
            leaves = sheet.detach().requires_grad_(), filters.detach().requires_grad_()
            push = torch.ones_like(call())
            both = lambda: torch.autograd.grad(  # noqa: E731
                dendritic_conv(*leaves, mode, backend),  # noqa: B023
                leaves,  # noqa: B023
                push,  # noqa: B023
            )
            found["forward and backward"].append((backend, seconds(both, device)))
    return found


def fitted(
    terms: list[tuple[float, ...]],
    times: list[float],
    before: tuple[float, ...],
    last: float | None = None,
) -> tuple[list[float], float]:
    """Seconds for a unit of each term, and the standard deviation of the log of the ratio.

    What the times say nothing about stays near what it was before; the last may be known.
    """
    sizes, taken = np.array(terms, float), np.array(times)
    start = np.log(np.maximum(before if last is None else (*before[:-1], last), LEAST))
    pull = np.full(len(start), PULL)
    pull[-1] = PULL if last is None else FIRMLY

    def missed(logs: Any) -> Any:
        return np.log(sizes @ np.exp(logs)) - np.log(taken)

    def held(logs: Any) -> Any:
        off = missed(logs)
        robust = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))  # as `soft_l1`
        return np.concatenate([robust, pull * (logs - start)])

    found = least_squares(held, start, max_nfev=3000)
    return np.exp(found.x).tolist(), float(missed(found.x).std())


def product_seconds(device: str) -> float:
    """Of one product of small matrices in a batch of them: too few shapes draw so many."""
    left, right = torch.randn(16384, 2, 12, device=device), torch.randn(16384, 12, 8, device=device)
    return seconds(lambda: torch.bmm(left, right), device) / len(left)


def fit_task(rows: list[Shape], task: str, device: str) -> dict[str, Any]:
    """Constants by the way to compute, printed, and what the present ones choose."""
    data: dict[str, tuple[list[tuple[float, ...]], list[float]]] = {}
    ratios = []
    for row in rows:
        times: Times = row["seconds"][task]
        if not times:
            continue
        best: dict[str, float] = {}
        for backend, taken in times:
            best[backend] = min(taken, best.get(backend, taken))
        near = NEAR_THE_BEST * min(best.values())
        sizes = {key: row[key] for key in ("batch", "neurons")}
        job = Job(row["sheet"], row["taps"], row["mode"], **sizes)
        own = runs_native(job, device, task != "forward")
        for name, values in model_terms(job, own).items():
            for backend, taken in times:
                if BACKEND_OF[name] == backend and taken <= near:
                    data.setdefault(name, ([], []))[0].append(values)
                    data[name][1].append(taken)
        chosen = choose_backend(
            row["sheet"], row["taps"], row["mode"],
            gradients=task != "forward", device=device, **sizes,
        )  # fmt: skip
        if chosen in best:
            ratios.append(best[chosen] / min(best.values()))
    before = constants(task != "forward", device)
    product = product_seconds(device) if task == "forward" else None  # both ways other things weigh
    found = {
        name: fitted(*each, before[name], product if name == "unrolled" else None)
        for name, each in data.items()
    }
    print(task)
    for name, (values, spread) in found.items():
        shown = ", ".join(f"{value:.1e}" for value in values)
        print(f'"{name}": ({shown}),  # {len(data[name][1])} times, log deviation {spread:.2f}')
    print(
        f"{len(ratios)} shapes; as it stands the choice takes {np.exp(np.log(ratios).mean()):.3f} "
        f"times the best backend's time on average, {max(ratios):.2f} at worst"
    )
    return found


def timing_parser(doc: str | None, what: str) -> argparse.ArgumentParser:
    """The options of a script that times what it draws."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to measure")
    parser.add_argument("--seed", type=int, default=0, help=f"of the {what}")
    parser.add_argument("--json", type=Path, help=f"file for {what}, times and constants")
    return parser


def main() -> None:
    parser = timing_parser(__doc__, "shapes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    keep_freed_memory()
    rng, end = random.Random(options.seed), time.monotonic() + options.seconds
    rows = []
    while time.monotonic() < end:
        shape = drawn(rng)
        if np.prod([shape["batch"], shape["neurons"], *shape["sheet"]]) > MOST_NUMBERS:
            continue
        rows.append({**shape, "seconds": measured(shape, options.device)})
    found = {task: fit_task(rows, task, options.device) for task in TASKS}
    if options.json is not None:
        options.json.write_text(json.dumps({"shapes": rows, "constants": found}, indent=1))


if __name__ == "__main__":
    main()
