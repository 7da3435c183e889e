"""Fits the constants by which a population runs from axons to soma as one stage, or does not.

    python experiments/bench/calibrate_trees.py --seconds 300 --seed 1 [--json FILE]

Draws populations at random and times each as one stage and stage by stage, forward and with all
gradients. It prints the seconds that a unit of each of the model's terms takes as one stage, and
how many times the fastest backend's modelled time the stages take one by one: `"joined"`,
`"joined, native"` and `_STAGE_BY_STAGE` of `neuroconv/kernels/conv/choice.py`. Run `calibrate.py`
first, and leave the machine alone.
"""

import json
import random
import time
from typing import Any

import numpy as np
import torch
from calibrate import TASKS, fitted, seconds, timing_parser

from neuroconv.kernels.conv.choice import (
    constants,
    joined_terms,
    joins_tree,
    model_seconds,
    native_joined_terms,
    runs_native,
)
from neuroconv.neurons import Granule
from neuroconv.training.allocator import keep_freed_memory

SHEETS = ((4, 4), (3, 5), (8, 8), (4, 16), (16, 4), (10, 10), (4, 32), (32, 4), (20, 20))
AXONS = 1_000
MOST_MACS = 2e10  # of the product, all samples and neurons
MOST_RESPONSES = 2e8


def drawn(rng: random.Random) -> dict[str, Any]:
    sites, dendrites = rng.choice(SHEETS)
    across = rng.choice((dendrites, dendrites, max(1, dendrites // 2), min(dendrites, 3)))
    return {
        "mode": rng.choice(("same", "same", "valid")),
        "claw": rng.random() < 0.7,
        "batch": rng.choice((1, 2, 8, 32, 32, 128, 256)),
        "neurons": rng.choice((256, 512, 1024, 2048, 4096)),
        "steps": rng.choice((1, 3, 5, 5, 5, 10, 20)),
        "sheet": (sites, dendrites),
        "taps": (rng.choice((1, 3, 5, 5)), min(sites, rng.choice((1, 3, 3, 5))), across),
    }


def population(shape: dict[str, Any], joined: bool) -> Granule:
    k_time, branches, across = shape["taps"]
    cells = Granule(
        AXONS, shape["neurons"], sheet_shape=shape["sheet"],
        filter_shape=(branches, across, k_time), synapses=shape["sheet"][0] * shape["sheet"][1],
        mode=shape["mode"], claw=shape["claw"], mean_wait=0.0,
        backend="matmul" if joined else "auto",
    )  # fmt: skip
    if not joined:
        cells.dendritic_rate.register_forward_hook(lambda *_: None)  # who watches, divides
    return cells


def timed(cells: Granule, shape: dict[str, Any], task: str) -> float:
    activity = torch.rand(shape["batch"], AXONS, shape["steps"])
    if task == "forward":
        with torch.no_grad():
            return seconds(lambda: cells(activity), "cpu")
    leaf = activity.requires_grad_()
    weights = list(cells.parameters())
    push = torch.ones_like(cells(leaf))
    return seconds(lambda: torch.autograd.grad(cells(leaf), (leaf, *weights), push), "cpu")


def main() -> None:
    options = timing_parser(__doc__, "populations").parse_args()
    keep_freed_memory()
    rng, end = random.Random(options.seed), time.monotonic() + options.seconds
    rows = []
    while time.monotonic() < end:
        shape = drawn(rng)
        one, apart = (population(shape, joined) for joined in (True, False))
        job, axons = one.dendrites.job(shape["batch"], shape["steps"]), one.tree().axons
        terms = joined_terms(job, axons)
        if terms[3] > MOST_MACS or terms[1] > MOST_RESPONSES:
            continue
        own = runs_native(job, "cpu")
        if own:
            terms = native_joined_terms(job, axons)
        if not one.joins_stages(shape["batch"], shape["steps"]):
            continue  # another form of the product
        taken = {task: [timed(cells, shape, task) for cells in (one, apart)] for task in TASKS}
        way = "joined, native" if own else "joined"
        rows.append({**shape, "axons": axons, "way": way, "terms": terms, "seconds": taken})
        rows[-1]["modelled"] = {
            task: min(model_seconds(job, gradients=task != TASKS[0]).values()) for task in TASKS
        }
        rows[-1]["joins"] = {
            task: joins_tree(job, axons, gradients=task != TASKS[0]) for task in TASKS
        }
    found = {}
    for task in TASKS:
        one, apart = (np.array([row["seconds"][task][way] for row in rows]) for way in (0, 1))
        near = one < 10 * apart
        values, around = {}, {}
        for way in ("joined", "joined, native"):
            mine = near & np.array([row["way"] == way for row in rows])
            if not mine.any():
                continue
            used = [row["terms"] for row, close in zip(rows, mine, strict=True) if close]
            before = constants(task != TASKS[0], "cpu")[way]
            values[way], spread = fitted(used, one[mine].tolist(), before)
            shown = ", ".join(f"{value:.1e}" for value in values[way])
            print(f'{task}\n"{way}": ({shown}),  # {mine.sum()} times, log deviation {spread:.2f}')
            stages = apart[mine] / np.array([row["modelled"][task] for row in rows])[mine]
            print(
                f"stage by stage takes {np.exp(np.log(stages).mean()):.2f} times the backend's "
                f"modelled time, quartiles {np.quantile(stages, 0.25):.2f} to "
                f"{np.quantile(stages, 0.75):.2f}"
            )
            around[way] = stages.tolist()
        chosen = np.where([row["joins"][task] for row in rows], one, apart) / np.minimum(one, apart)
        print(
            f"{len(rows)} populations; as it stands the choice takes "
            f"{np.exp(np.log(chosen).mean()):.3f} times the better way's time on average, "
            f"{chosen.max():.2f} at worst"
        )
        found[task] = {**values, "stage_by_stage": around}
    if options.json is not None:
        options.json.write_text(json.dumps({"populations": rows, "constants": found}, indent=1))


if __name__ == "__main__":
    main()
