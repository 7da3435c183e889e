"""Measures how fast rules learn, and in how much memory, and counts what an update costs.

    python experiments/local_learning/speed.py OUT.json [--quick]     measures, and prints a table
    python experiments/local_learning/speed.py OUT.json --table       prints a recorded one

A step is the rule's update and plain SGD; local rules run under
`torch.inference_mode()`. Entries take turns, so that a busy machine disturbs all alike, and the
median of the turns counts, in seconds of the process's CPU time, in one thread. Memory is the peak
of what operators allocate in a step, by torch's profiler, beside parameters, gradients and input.
Counts are those of `neuroconv.learning.cost`: at 64 samples, where Purkinje cells run as dense
products, the rule's have the zeros of these, and those of backpropagation the wiring alone. Energy
is an estimate.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from neuroconv.core.version import __version__
from neuroconv.flops.exact import OperatorCounter
from neuroconv.learning import make_rule
from neuroconv.learning.cost import learning_cost
from neuroconv.zoo import create_model

NETWORKS: dict[str, dict[str, Any]] = {
    "Purkinje cells": {"name": "purkinje_classifier"},
    "Purkinje cells, 100,000 synapses": {
        "name": "purkinje_classifier", "purkinje": {"tree": {"sheet": (100, 1000)}},
    },
    "MLP": {"name": "mlp", "width": 25},
}  # fmt: skip
RULES = {
    "purkinje_classifier": ("climbing_fibre", "backprop"),
    "mlp": ("backprop", "feedback_alignment", "direct_feedback"),
}
BATCHES = 1, 64
COLUMNS = {
    "network": "network", "rule": "rule", "parameters": "parameters", "batch": "batch",
    "samples_per_s": "samples/s", "peak_bytes": "peak kB a step", "kept_bytes": "kept kB a sample",
    "forward_mac": "forward MAC", "backward_mac": "sent backward MAC", "update_mac": "update MAC",
    "teaching_signals": "teaching signals", "lowest_joules": "µJ a sample, lowest",
    "highest_joules": "highest",
}  # fmt: skip
SCALES = {"bytes": 1e-3, "joules": 1e6}


def make_step(model: nn.Module, rule: str, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Returns a step of learning of a batch: the rule's update, and SGD."""
    learner = make_rule(model, rule)
    optimizer = torch.optim.SGD(learner.trained(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.inference_mode(rule != "backprop"):
            learner(images, labels)
        optimizer.step()

    return step


def peak_bytes(step: Callable[[], None]) -> int:
    """Returns the most bytes that operators of a step hold at once, above what was held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def flop_per_parameter(kind: Callable[..., torch.optim.Optimizer]) -> float:
    """Returns the FLOPs of an optimiser's second step for each parameter, by the exact counter."""
    parameter, counter = nn.Parameter(torch.zeros(1 << 20, device="meta")), OperatorCounter()
    parameter.grad = torch.zeros_like(parameter)
    optimizer = kind([parameter], lr=1e-3, foreach=False)
    optimizer.step()  # the first one makes its state
    with counter:
        optimizer.step()
    return round(counter.counts("meta").flop / parameter.numel(), 2)


def measure(turns: int, seconds: float) -> list[dict[str, Any]]:
    """Returns a row for each network, rule and batch."""
    rows, steps = [], []
    for network, keywords in NETWORKS.items():
        for rule in RULES[keywords["name"]]:
            for batch in BATCHES:
                torch.manual_seed(0)
                model = create_model(**keywords)
                images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
                row = {"network": network, "batch": batch, "samples_per_s_turns": []}
                row |= vars(learning_cost(model, rule, images))
                step = make_step(model, rule, images, labels)
                step()  # loads kernels, and makes gradients
                steps.append(step)
                rows.append(row | {"peak_bytes": peak_bytes(step)})
    for _ in track(range(turns), "turns"):
        for row, step in zip(rows, steps, strict=True):
            begin, calls = time.process_time(), 0
            while not calls or (spent := time.process_time() - begin) < seconds:
                step()
                calls += 1
            row["samples_per_s_turns"].append(calls * row["batch"] / spent)
    for row in rows:
        row["samples_per_s"] = statistics.median(row["samples_per_s_turns"])
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = [" | ".join(COLUMNS.values()), " | ".join(["---"] * len(COLUMNS))]
    for row in rows:
        cells = []
        for key in COLUMNS:
            value = row[key]
            if isinstance(value, int | float):
                value *= SCALES.get(key.split("_")[-1], 1)
                value = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            cells.append(str(value))
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def measured(quick: bool) -> dict[str, Any]:
    """Returns the rows, and what they were measured with."""
    torch.set_num_threads(1)
    kinds: Any = torch.optim.SGD, torch.optim.AdamW
    return {
        "neuroconv": __version__, "torch": torch.__version__, "python": platform.python_version(),
        "processor": platform.machine(), "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "optimizer_flop_per_parameter": {kind.__name__: flop_per_parameter(kind) for kind in kinds},
        "rows": measure(3, 0.1) if quick else measure(15, 1.0),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--table", action="store_true", help="print what OUT.json has")
    options = parser.parse_args()
    if options.table:
        record = json.loads(options.out.read_text())
    else:
        record = measured(options.quick)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record["rows"]))
    flop = ", ".join(f"{kind} {n:g}" for kind, n in record["optimizer_flop_per_parameter"].items())
    print(
        f"\nA step of the optimiser, FLOP a parameter: {flop}. Version {record['neuroconv']}, torch"
    )
    print(f"{record['torch']}, {record['instructions']}, {record['threads']} thread.")


if __name__ == "__main__":
    main()
