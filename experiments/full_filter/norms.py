"""Shows how far the parts of a cerebellum moved in training, and what their gradients were.

    python experiments/full_filter/norms.py runs/full_filter/comparison.json --json norms.json
    python experiments/full_filter/norms.py norms.json       prints it again

Networks are those of the recorded runs, as they were drawn and with their best weights; images are
those of the validation split.

    change      |w - w0| / |w0|
    gradient    |g| |w| / loss of some batches' mean gradient g, before and after training
    agreement   |mean of g| / mean of |g| over these batches: 1 if they agree, and about
                1 / sqrt(batches) if they are noise
    drive       mean square, over that before training, of the change of the Purkinje cells'
                dendritic potentials about their mean over images, on the trained granule rates:
                from the change of the taps alone, of the synapses alone, and of both
    accuracy    on validation: as trained, with the first taps, and with the first synapses; norms
                first take the statistics of the training split
"""

import argparse
import copy
import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neuroconv.training import evaluate_model, rebuild
from neuroconv.training.runs import build

BATCHES = 20
TAPS, SYNAPSES = "purkinje.dendrites.weight", "purkinje.synapses.weight"


def part(name: str) -> str:
    """Returns the part of a parameter: "purkinje taps", "granule synapses" ... or "rest"."""
    *_, cell, stage, kind = ("", "", *name.split("."))
    stages = {"synapses": "synapses", "dendrites": "taps"}
    return f"{cell} {stages[stage]}" if kind == "weight" and stage in stages else "rest"


def norms(model: nn.Module, values: dict[str, Tensor]) -> dict[str, float]:
    """Returns the norm over each part of a tensor for each parameter."""
    squares: dict[str, float] = defaultdict(float)
    for name in dict(model.named_parameters()):
        if name in values:
            squares[part(name)] += values[name].double().square().sum().item()
    return {name: total**0.5 for name, total in squares.items()}


def gradients(model: nn.Module, batches: DataLoader[Any]) -> tuple[Any, Any]:
    """Returns each part's relative gradient, and the agreement of batches."""
    model = copy.deepcopy(model).train()
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    mean = {name: torch.zeros_like(p) for name, p in learned.items()}
    sizes: dict[str, float] = defaultdict(float)
    losses = []
    torch.manual_seed(0)  # of the dropout
    for images, labels in islice(batches, BATCHES):
        loss = F.cross_entropy(model(images), labels)
        grads = dict(zip(learned, torch.autograd.grad(loss, [*learned.values()]), strict=True))
        losses.append(loss.item())
        for name, grad in grads.items():
            mean[name] += grad
        for name, size in norms(model, grads).items():
            sizes[name] += size
    sums, weights = norms(model, mean), norms(model, {k: p.detach() for k, p in learned.items()})
    relative = {name: size * weights[name] / sum(losses) for name, size in sums.items()}
    return relative, {name: size / max(sizes[name], 1e-30) for name, size in sums.items()}


@torch.no_grad()
def drive(model: Any, first: dict[str, Tensor], batches: DataLoader[Any]) -> dict[str, float]:
    """Returns the change of the image-dependent dendritic potentials, by what has changed."""
    swaps = {"before": (TAPS, SYNAPSES), "taps": (SYNAPSES,), "synapses": (TAPS,), "both": ()}
    variants = {name: swapped(model, first, names).eval() for name, names in swaps.items()}
    totals: dict[str, float] = defaultdict(float)
    for images, _ in islice(batches, BATCHES):
        frames = model.as_frames(images)
        rates = variants["both"].granular(frames.transpose(2, 1).flatten(2).transpose(1, 2))
        potentials = {
            name: net.purkinje.dendrites(net.purkinje.synapses(rates))
            for name, net in variants.items()
        }
        before = potentials.pop("before")
        for name, potential in {**potentials, "before": 2 * before}.items():
            change = potential - before
            totals[name] += (change - change.mean(0)).square().sum().item()
    scale = max(totals.pop("before"), 1e-30)
    return {name: total / scale for name, total in totals.items()}


def swapped(model: nn.Module, first: dict[str, Tensor], names: tuple[str, ...]) -> nn.Module:
    """Returns a copy in which these parameters are as they were drawn."""
    twin = copy.deepcopy(model)
    twin.load_state_dict({name: first[name] for name in names}, strict=False)
    return twin


@torch.no_grad()
def calibrated(model: nn.Module, batches: DataLoader[Any]) -> nn.Module:
    """Gives the norms the statistics of some batches."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
    torch.manual_seed(0)  # of the dropout
    for images, _ in islice(batches, 2 * BATCHES):
        model.train()(images)
    return model.eval()


def measure(run: str) -> dict[str, Any]:
    """Returns all numbers of a run."""
    config, model, splits = rebuild(run)
    initial = build(config)
    first = {name: p.detach() for name, p in initial.named_parameters()}
    moved = {name: p.detach() - first[name] for name, p in model.named_parameters()}
    size = config.train.batch_size
    val, train = (DataLoader(data, size) for data in (splits.val, splits.train))
    before, after = gradients(initial, val), gradients(model, val)
    scale = norms(model, first)
    accuracy = {}
    for name, names in (("trained", ()), ("first taps", (TAPS,)), ("first synapses", (SYNAPSES,))):
        twin = calibrated(swapped(model, first, names), train)
        accuracy[name] = evaluate_model(twin, splits.val, **config.evaluation()).accuracy
    return {
        "seed": config.train.seeds[0],
        "change": {name: value / scale[name] for name, value in norms(model, moved).items()},
        "gradient_before": before[0], "gradient_after": after[0],
        "agreement_before": before[1], "agreement_after": after[1],
        "drive": drive(model, first, val), "val_accuracy_fraction": accuracy,
    }  # fmt: skip


def table(label: str, runs: list[dict[str, Any]]) -> str:
    """Returns the means over seeds, as Markdown."""

    def mean(*keys: str) -> str:
        values = [run[keys[0]].get(keys[1]) for run in runs]
        return "" if None in values else f"{sum(values) / len(values):.3g}"

    columns = [key for key in runs[0] if key not in ("seed", "drive", "val_accuracy_fraction")]
    lines = [f"{label}, {len(runs)} seeds", "", f"| part | {' | '.join(columns)} |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name in runs[0]["change"]:
        lines.append(f"| {name} | {' | '.join(mean(key, name) for key in columns)} |")
    for key in ("drive", "val_accuracy_fraction"):
        values = ", ".join(f"{name} {mean(key, name)}" for name in runs[0][key])
        lines.append(f"\n{key}: {values}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", type=Path, help="comparison.json, or recorded norms")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the numbers")
    options = parser.parse_args()
    results = json.loads(options.comparison.read_text())
    if "models" in results:
        results = {
            model["label"]: [measure(run) for run in track(model["run_folders"], model["label"])]
            for model in results["models"]
        }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    print("\n\n".join(table(label, runs) for label, runs in results.items()))


if __name__ == "__main__":
    main()
