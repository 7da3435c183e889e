"""Searches the best network of neurons with fewer than 4,000 parameters on MNIST, by validation.

    python experiments/study/search.py runs/search --root DIR --record
    python experiments/study/search.py runs/search_digits --quick

Successive halving over random configurations of `granule_convnet`: many are trained on few images,
the best third of those done on more, and the best of these on all 55,000 that are not held out.
Every trial is a run without the test set, and a line of FOLDER/trials.jsonl, or of search.jsonl
here with --record. The same command goes on where an earlier one ended. FOLDER/winner.toml, or
configs/mnist_full_equal.toml, then compares the winner on fresh seeds with CNNs of as many
parameters, all tuned by the same trials, those of configs/mnist_equal.toml.

What is drawn (`draw`): time steps and encoding, depth, widths, strides, branches and dendrites,
wiring, norms, dendritic spikes, law of summation, the soma's memory, threshold, read-out, learning
rate and weight decay; only networks of 2,500 to 3,999 parameters and at most 12 MFLOP an image. The
first is the zoo's default. A rung ends early where its share of the processor's hours is spent.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

from neuroconv.comparison.match import count_flops
from neuroconv.comparison.runs import train_runs
from neuroconv.training import (
    Config,
    DataConfig,
    RunResult,
    TrainConfig,
    load_config,
    save_config,
)
from neuroconv.training.runs import resolve
from neuroconv.training.tables import as_tuples
from neuroconv.zoo import count_parameters, create_model

PARAMETERS, FLOPS = range(2500, 4000), 12e6
SEEDS = (2000, 2001)  # of the trials; the second joins in the last rung
REPORTED = (20, 21, 22, 23, 24)
HERE = Path(__file__).resolve().parent
WINNER = HERE.parents[1] / "configs" / "mnist_full_equal.toml"


@dataclass(frozen=True)
class Rung:
    trials: int
    images: int | None
    epochs: int
    seeds: tuple[int, ...]
    share: float  # of the time


MNIST = (
    Rung(60, 10_000, 2, SEEDS[:1], 0.3), Rung(18, 20_000, 4, SEEDS[:1], 0.35),
    Rung(4, None, 5, SEEDS, 0.35),
)  # fmt: skip
DIGITS = Rung(3, 200, 1, SEEDS[:1], 0.5), Rung(2, None, 1, SEEDS, 0.5)


def draw(rng: random.Random) -> dict[str, Any]:
    """Draws a network and its settings; flat keys, so that a trial is one line."""
    steps = rng.choice([1, 3, 5, 5])
    depth = rng.choice([2, 3, 3, 4])
    widths = [rng.randint(4, 12)]
    for _ in range(depth - 1):
        widths.append(round(widths[-1] * rng.uniform(1.0, 2.5)))
    unit: dict[str, Any] = {
        "wiring": rng.choice(["claw", "claw", "dense"]),
        "norm": rng.choice(["both", "both", "dendrites", "soma"]),
    }
    if rng.random() < 0.3:
        strength, signal = rng.choice([0.5, 1.0]), rng.choice(["max", "max", "essay"])
        unit["spike"] = {"strength": strength, "signal": signal}
    if rng.random() < 0.3:
        unit["summation"] = rng.choice(["sublinear", "supralinear", "sigmoidal"])
    if steps > 1 and rng.random() < 0.4:
        unit["soma"] = {"time_steps": 1}
    if rng.random() < 0.15:
        unit["threshold"] = rng.choice([2.0, 3.0])
    return {
        "widths": widths, "strides": rng.choice(([2, 2], [2, 1], [1, 2])) + [1] * (depth - 2),
        "kernel_size": rng.choice([[3, 4], [3, 3], [5, 5], [4, 4], [3, 5], [2, 3]]),
        "pool": rng.choice([1, 2, 2, 3]), "unit": unit,
        "encoding": "none" if steps == 1 else rng.choice(["saccade", "saccade", "repeat"]),
        "time_steps": steps,
        "learning_rate": float(f"{10 ** rng.uniform(-2.3, -1.0):.2g}"),
        "weight_decay": rng.choice([1e-4, 1e-2, 1e-1]),
    }  # fmt: skip


DEFAULT = {"encoding": "saccade", "time_steps": 5, "learning_rate": 4e-2, "weight_decay": 1e-2}


def candidates(image_shape: tuple[int, int, int], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the default network, and then random ones that are within the limits."""
    yield DEFAULT
    rng = random.Random(seed)
    while True:
        trial = draw(rng)
        task = {"image_shape": image_shape, "time_steps": trial["time_steps"]}
        keywords = {key: trial[key] for key in ("widths", "strides", "kernel_size", "pool", "unit")}
        with torch.device("meta"):
            parameters = count_parameters(create_model("granule_convnet", **keywords, **task))
        if parameters in PARAMETERS and count_flops("granule_convnet", **keywords, **task) <= FLOPS:
            yield trial


def config(trial: dict[str, Any], folder: Path, options: argparse.Namespace) -> Config:
    """Returns a trial's configuration, without its budget."""
    model = as_tuples({key: value for key, value in trial.items() if key not in DEFAULT})
    data = DataConfig(
        "digits" if options.quick else "mnist", options.root, encoding=trial["encoding"],
        time_steps=trial["time_steps"],
    )  # fmt: skip
    train = TrainConfig(
        epochs=1, learning_rate=trial["learning_rate"], weight_decay=trial["weight_decay"],
        batch_size=64, seeds=REPORTED, output=str(folder / "trials"), test=False,
    )  # fmt: skip
    return Config({"name": "granule_convnet", **model}, data, train)


def measure(base: Config, rung: Rung, seed: int) -> dict[str, Any]:
    """Trains a trial, or reads it, and returns its scores and the processor's seconds."""
    data = replace(base.data, train_limit=rung.images)
    train = replace(base.train, epochs=rung.epochs)
    resolved, _ = resolve(replace(base, data=data, train=train), seed)
    start = time.process_time()
    (run,) = train_runs([resolved], progress=False)
    finished = isinstance(run, RunResult)
    return {
        "seed": seed, "images": rung.images, "epochs": rung.epochs, "run": run.run_dir.name,
        "val_accuracy": run.val_accuracy if finished else 0.0,
        "val_loss": run.val_loss if finished else None,
        "parameters": run.parameters if finished else None,
        "cpu_s": round(time.process_time() - start, 1),
    }  # fmt: skip


def search(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs all rungs and returns the winner."""
    file, rungs = folder / "trials.jsonl", DIGITS if options.quick else MNIST
    file = HERE / "search.jsonl" if options.record else file
    folder.mkdir(parents=True, exist_ok=True)
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(r["rung"], r["number"], r["seed"]): r for r in map(json.loads, lines)}
    drawn = candidates((1, 8, 8) if options.quick else (1, 28, 28))
    trials = dict(enumerate(islice(drawn, rungs[0].trials)))
    numbers, budget = [*trials], options.hours * 3600
    bar = Progress(*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with bar:
        task = bar.add_task("search", total=budget)
        for level, rung in enumerate(rungs):
            scores: dict[int, float] = {}
            spent, planned = 0.0, min(rung.trials, len(numbers))
            for number in numbers[:planned]:
                if scores and spent * (len(scores) + 1) / len(scores) > rung.share * budget:
                    break
                records = []
                for seed in rung.seeds:
                    if (level, number, seed) not in done:
                        record = measure(config(trials[number], folder, options), rung, seed)
                        record |= {"rung": level, "number": number, **trials[number]}
                        with file.open("a") as out:
                            out.write(json.dumps(record) + "\n")
                        done[level, number, seed] = record
                    records.append(done[level, number, seed])
                scores[number] = fmean(record["val_accuracy"] for record in records)
                spent += sum(record["cpu_s"] for record in records)
                best = max(scores, key=scores.__getitem__)
                used = sum(record["cpu_s"] for record in done.values())
                text = f"rung {level}: {len(scores)} of {planned}, best {scores[best]:.2%}"
                bar.update(task, completed=min(used, budget), description=text)
            numbers = sorted(scores, key=lambda number: -scores[number])
        bar.update(task, completed=budget)
    return trials[numbers[0]]


def winner(trial: dict[str, Any], options: argparse.Namespace) -> Config:
    """Returns the winner and its opponents, to be compared on fresh seeds with the same tuning."""
    base = config(trial, options.folder, options)
    cnn = {"name": "plain_cnn", "match": "parameters", "match_rule": "at_most"}
    opponents = (
        {**cnn, "label": "plain CNN, still image", "encoding": "none", "primary": True},
        {**cnn, "label": "plain CNN, five frames", "encoding": "saccade", "time_steps": 5},
    )
    study = load_config("mnist_equal")
    assert study.tune is not None
    tune = replace(study.tune, train_limit=None) if options.quick else study.tune
    output = "runs/mnist_full_equal" if options.record else str(options.folder / "report")
    train = replace(base.train, epochs=6, output=output, test=True)
    data = replace(base.data, root=None if options.record else options.root)
    return replace(
        base, data=data, train=train, opponents=opponents, tune=tune, compare=study.compare
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the runs, trials.jsonl and winner.toml")
    parser.add_argument("--record", action="store_true", help="the trials and the winner's file")
    parser.add_argument("--root", help="folder of MNIST (default: where torchvision has put it)")
    parser.add_argument("--hours", type=float, default=2.0, help="of the processor (default 2)")
    parser.add_argument("--quick", action="store_true", help="few trials, on the digits")
    options = parser.parse_args()
    trial = search(options.folder, options)
    file = WINNER if options.record else options.folder / "winner.toml"
    save_config(winner(trial, options), file)
    print(json.dumps(trial, indent=2))


if __name__ == "__main__":
    main()
