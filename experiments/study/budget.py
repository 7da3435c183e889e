"""Prints what comparisons will cost on one core, from a few measured steps of each model.

    python experiments/study/budget.py configs/*_equal.toml [--data.root=DIR ...]

For each model: seconds of processor time in an epoch of [train], its validation included; for the
trials of [tune] and for all seeds, in hours. Rates and decays are counted as the files have them:
a search whose best rate is at the edge of the list goes on for all models. What finished runs cost
is in their result.json.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from neuroconv.comparison.train import _opponent
from neuroconv.training import Config, load_config
from neuroconv.training.batches import epoch_batches
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.runs import build, resolve

STEPS, LEAST_SECONDS = 3, 0.3  # that are measured, after one that is not


def seconds(call: Callable[[int], Any]) -> float:
    """Returns the median of processor seconds of call(0), call(1), ..., at least three of them."""
    call(0)
    spent: list[float] = []
    while len(spent) < STEPS or sum(spent) < LEAST_SECONDS:
        start = time.process_time()
        call(len(spent) + 1)
        spent.append(time.process_time() - start)
    return median(spent)


def measure(config: Config) -> tuple[float, float, int, int, int]:
    """Returns the seconds of a step and of scoring a batch; training, validation, test images."""
    resolved, data = resolve(config, config.train.seeds[0])
    model, size = build(resolved), config.train.batch_size
    optimizer = make_optimizer(model, resolved.train)
    loss = getattr(model, "training_loss", cross_entropy)
    batches = epoch_batches(data.train, len(data.train), size, 0, 0)

    def step(number: int) -> None:
        images, labels = data.train.batch(batches[number % len(batches)])
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def score(number: int) -> None:
        with torch.no_grad():
            model(data.val.batch(range(min(size, len(data.val))))[0])

    of_step = seconds(step)
    model.eval()
    return of_step, seconds(score), len(data.train), len(data.val), len(data.test)


def hours(path: Path, words: list[str]) -> float:
    """Prints the plan of a file, and returns its hours."""
    config = load_config(path, words)
    train, tune, total = config.train, config.tune, 0.0
    print(f"\n{path.stem}: {len(train.seeds)} seeds of {train.epochs} epochs")
    print(f"{'model':34} {'s an epoch':>10} {'tuning, h':>10} {'seeds, h':>10}")
    for table in (config.model, *config.opponents):
        first = table is config.model
        entrant = config if first else _opponent(table.get("label", ""), config, table).config
        of_step, of_scores, images, val, test = measure(entrant)
        size = train.batch_size
        validation = of_scores * -(-val // size)
        epoch = of_step * max(1, images // size) + validation
        runs = len(train.seeds) * (train.epochs * epoch + of_scores * -(-test // size)) / 3600
        trials = 0.0
        if tune is not None:
            trial_images = min(tune.train_limit or images, images)
            of_epoch = of_step * max(1, trial_images // size) + validation
            count = len(tune.seeds) * (len(tune.learning_rate) + len(tune.weight_decay) - 1)
            trials = count * tune.epochs * of_epoch / 3600
        label = str(table.get("label", table["name"]))
        print(f"{label:34} {epoch:10.1f} {trials:10.3f} {runs:10.3f}", flush=True)
        total += trials + runs
    print(f"{'all':34} {'':10} {total:21.3f}", flush=True)
    return total


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    overrides = [word for word in words if word.startswith("--")]
    paths = [Path(word) for word in words if not word.startswith("--")]
    if not paths:
        sys.exit(__doc__)
    print(f"\n{sum(hours(path, overrides) for path in paths):.2f} hours of one core in all")


if __name__ == "__main__":
    main(sys.argv[1:])
