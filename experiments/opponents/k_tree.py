"""Trains k-trees of Jones and Kording (2021) on MNIST's 3 against 5, and records each neuron.

python experiments/opponents/k_tree.py K NEURONS EPOCHS     such as 1 10 2000, then 32 3 200
python experiments/opponents/k_tree.py                      prints the table of README.md

As in their code: Adam at 1e-3, batches of 256, 965 training images (a tenth of those that a
validation set of the test set's size leaves), the best validation loss. The neurons are those of
one network with a loss of its own for each, so that they learn as if alone; they share the images,
of which in their code each seed has another tenth. There training ends 60 epochs after the best
one, of 2,000 at most; here it is judged every fifth epoch, and ends after the given ones.
"""

import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neuroconv.data import load_data
from neuroconv.zoo import create_model

RECORD = Path(__file__).with_suffix(".json")
PUBLISHED = {1: ".922 +- .018 of 7, .805 of all 10", 32: ".9635 +- .0043"}


def batch(part: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(part[i] for i in range(len(part))), strict=True)
    return torch.stack(images), torch.tensor(labels).unsqueeze(1).float()


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean loss of each neuron."""
    expected = labels.expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, expected, reduction="none").mean(0)


def run(trees: int, neurons: int, epochs: int) -> list[dict[str, Any]]:
    data = load_data("mnist", classes=["3", "5"], encoding="none", train_limit=965)
    (images, labels), validation, test = map(batch, (data.train, data.val, data.test))
    torch.manual_seed(0)
    model = create_model("k_tree", num_classes=neurons, width=trees)
    if neurons == 2:  # one neuron would tell two classes
        raise ValueError("NEURONS = 2; expected 1, or 3 or more")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    best, best_epoch = torch.full((neurons,), torch.inf), torch.zeros(neurons, dtype=torch.int64)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(images)).split(256):
            optimizer.zero_grad()
            losses(model(images[rows]), labels[rows]).sum().backward()
            optimizer.step()
        if epoch % 5:
            continue
        with torch.no_grad():
            loss = losses(model(validation[0]), validation[1])
        better = loss < best
        best[better], best_epoch[better] = loss[better], epoch
        for name, value in model.state_dict().items():  # a neuron's trees lie side by side
            kept[name].view(neurons, -1)[better] = value.view(neurons, -1)[better]
        if epoch % 50 == 0:
            print(epoch, [round(value, 3) for value in loss.tolist()], flush=True)
    model.load_state_dict(kept)
    with torch.no_grad():
        right = ((model(test[0]) > 0) == test[1]).float().mean(0).tolist()
    parameters = sum(value.numel() for value in kept.values()) // neurons
    rows = zip(range(neurons), best_epoch.tolist(), best.tolist(), right, strict=True)
    common = {"trees": trees, "parameters": parameters, "epochs": epochs}
    names = ("neuron", "best_epoch", "val_loss", "test_accuracy")
    return [common | dict(zip(names, row, strict=True)) for row in rows]


def spread(accuracies: list[float]) -> str:
    if not accuracies:
        return "-"
    deviation = f" +- {stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    return f"{fmean(accuracies):.3f}{deviation} of {len(accuracies)}"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the means over neurons, of all and of those that learned: 80 % right or more."""
    lines = ["| k | parameters | all neurons | those above 80 % | published |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for trees in sorted({row["trees"] for row in rows}):
        every = [row for row in rows if row["trees"] == trees]
        tests = [row["test_accuracy"] for row in every]
        cells = (spread(tests), spread([accuracy for accuracy in tests if accuracy > 0.8]))
        row = (str(trees), f"{every[0]['parameters']:,}", *cells, PUBLISHED.get(trees, ""))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) not in (1, 4):
        sys.exit(__doc__)
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else []
    if len(sys.argv) == 4:
        trees, neurons, epochs = map(int, sys.argv[1:])
        recorded = [row for row in recorded if row["trees"] != trees]
        recorded += run(trees, neurons, epochs)
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
    print(table(recorded))
