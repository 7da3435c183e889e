"""Prints the study's tables from its records, computing intervals and verdicts again.

python experiments/study/table.py                       all records
python experiments/study/table.py --primary             the comparisons that count alone
python experiments/study/table.py runs/x/comparison.json  some, of `neuroconv compare`
python experiments/study/table.py --holm FILE ...         with p corrected over all their rows
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from neuroconv.comparison import Estimate, holm, verdict
from neuroconv.comparison.statistics import estimate_by_test_set, unpack

HERE = Path(__file__).parent
Model = dict[str, Any]
TASKS = {
    "mnist_equal": "MNIST",
    "fashion_equal": "Fashion-MNIST",
    "fashion_permuted_equal": "Fashion-MNIST, permuted",
    "cifar10_equal": "CIFAR-10, sample",
    "imagenette_equal": "Imagenette, 64 pixels",
    "spoken_digits_equal": "spoken digits",
    "moving_digits_equal": "moving digits",
    "mnist_full_equal": "MNIST, all images, the search's winner",
    "digits_cerebellum_base": "digits, full 10x1000x5 filter",
}  # in the order of the page


def right(model: Model) -> dict[int, Any]:
    """Returns by seed, as 0 or 1, which test images a model has right (N,)."""
    images = model["test_images_by_seed"]
    return {
        int(seed): unpack(text, images[seed]).astype(float)
        for seed, text in model["right_answers_by_seed"].items()
    }


def accuracy(model: Model) -> Estimate:
    return estimate_by_test_set(right(model), test_sets(model))


def difference(model: Model, other: Model) -> Estimate:
    """Returns the estimate of a model's accuracy less the other's, paired by seed and image."""
    ours, theirs = right(model), right(other)
    paired = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    return estimate_by_test_set(paired, test_sets(model))


def test_sets(model: Model) -> dict[int, str | None]:
    return {int(seed): sha256 for seed, sha256 in model["test_set_sha256_by_seed"].items()}


def core_seconds(model: Model) -> float:
    """Returns what the trials and runs of a model took."""
    trials = (model["search"] or {"trials": ()})["trials"]
    seconds = [*model["core_seconds_by_seed"].values(), *(t["core_seconds"] for t in trials)]
    return sum(second or 0 for second in seconds)


def points(value: Estimate, sign: str = "+") -> str:
    """Returns a mean and its interval in points: hundredths of the test set."""
    if value.mean is None:
        return "–"
    half = "" if value.half_width is None else f" ± {100 * value.half_width:.2f}"
    return f"{100 * value.mean:{sign}.2f}{half}"


def p_text(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def primary_rows(records: dict[str, Any]) -> list[str]:
    """Returns the table of the primary comparisons, Holm's correction over all of them."""
    rows = []
    for title, record in records.items():
        first = record["models"][0]
        for model in record["models"][1:]:
            if model["primary"]:
                rows.append((title, record["margin"], first, model, difference(first, model)))
    corrected = holm([row[-1].p for row in rows])
    lines = [
        "| task | neurons | accuracy, % | opponent | accuracy, % | points | margin | p, Holm "
        "| the neurons are |",
        "|---|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for (title, margin, first, model, estimate), p in zip(rows, corrected, strict=True):
        limit = "none" if margin is None else f"{100 * margin:g}"
        lines.append(
            f"| {TASKS.get(title, title)} | {first['label']} | {points(accuracy(first), '')} "
            f"| {model['label']} | {points(accuracy(model), '')} | {points(estimate)} | {limit} "
            f"| {p_text(p)} | {verdict(estimate, margin, p)} |"
        )
    return lines


def corrected(records: dict[str, Any]) -> dict[str, list[float | None]]:
    """Returns the p of each record's rows but the first, by Holm's method over all records."""
    alone = {
        name: [difference(model, record["models"][0]).p for model in record["models"][1:]]
        for name, record in records.items()
    }
    together = iter(holm([p for values in alone.values() for p in values]))
    return {name: [next(together) for _ in values] for name, values in alone.items()}


def rows(record: dict[str, Any], together: list[float | None] | None = None) -> list[str]:
    """Returns the table of one record: what each model costs, reaches, and differs by.

    `together` are the p that decide the verdicts; without them each row's is its own, uncorrected.
    """
    first, lines = record["models"][0], [
        "| model | parameters | MAC, wired | MAC, executed | axons | wires | accuracy, % "
        f"| points to the first | p{'' if together is None else ', Holm'} | verdict "
        "| learning rate | weight decay | core-seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]  # fmt: skip
    for number, model in enumerate(record["models"]):
        costs = [
            "–" if model[key] is None else f"{model[key]:,}"
            for key in ("parameters_trained", "mac_wired", "mac_executed", "axons", "wires")
        ]
        estimate = Estimate(None, None, 0) if model is first else difference(model, first)
        p = estimate.p if together is None or model is first else together[number - 1]
        told = "" if model is first else verdict(estimate, record["margin"], p)
        settings, search = model["settings"], model["search"] or {"at_edge": False, "trials": []}
        edge = " (edge)" if search["at_edge"] else ""
        lines.append(
            f"| {model['label']}{' *' * model['primary']} | {' | '.join(costs)} "
            f"| {points(accuracy(model), '')} "
            f"| {'' if model is first else points(estimate)} | {p_text(p)} | {told} "
            f"| {settings['learning_rate']:g}{edge} | {settings['weight_decay']:g} "
            f"| {core_seconds(model):,.0f} |"
        )
        failed = model["failed_seeds"]
        lines += [f"| … seed {seed} failed: {why} |" for seed, why in failed.items()]
    linear = record["linear_test_accuracy_fraction"]
    trials = len((first["search"] or {"trials": ()})["trials"])
    shared = trials and not any(model["search"] for model in record["models"][1:])
    tuned = "of the first, whose settings all have" if shared else "a model"
    notes = [
        f"Seeds {', '.join(first['test_accuracy_fraction_by_seed'])}; {trials} trials {tuned};",
        "* the primary comparison; all others exploratory, p not corrected."
        if together is None
        else "p by Holm's method over the rows of all tables.",
        "" if linear is None else f"Logistic regression on the still images {100 * linear:.2f} %.",
        f"Chance {100 * record['chance_test_accuracy_fraction']:.2f} %.",
        f"Earlier use of the test set: {record['earlier_use'] or 'none'}.",
    ]
    return [*lines, "", " ".join(note for note in notes if note)]


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record whose means are those of its right answers; raises if they are not."""
    for model in record["models"]:
        means = {str(seed): float(np.mean(answers)) for seed, answers in right(model).items()}
        recorded = model["test_accuracy_fraction_by_seed"]
        if any(abs(means[seed] - recorded[seed]) > 1e-9 for seed in recorded):
            raise ValueError(f"{model['label']}: recorded {recorded}, from its answers {means}")
    return record


def main(files: list[str]) -> None:
    if primary_alone := files == ["--primary"]:
        files = []
    if together := files[:1] == ["--holm"]:
        files = files[1:]
    recorded = {path.stem: path for path in sorted(HERE.glob("*.json"))}
    ordered = [recorded[name] for name in TASKS if name in recorded]
    others = [path for name, path in recorded.items() if name not in TASKS]
    paths = [*map(Path, files)] or [*ordered, *others]
    stems = [path.stem for path in paths]
    names = stems if len({*stems}) == len(stems) else [str(path) for path in paths]
    loaded = {n: json.loads(path.read_text()) for n, path in zip(names, paths, strict=True)}
    records = {name: checked(record) for name, record in loaded.items() if "models" in record}
    if not records:
        sys.exit("no record of `neuroconv compare` yet")
    if primary_alone:
        print(*primary_rows(records), sep="\n")
        return
    p = corrected(records) if together else {}
    if not together:
        print("### Primary comparisons\n", *primary_rows(records), sep="\n")
    hours = sum(core_seconds(m) for record in records.values() for m in record["models"]) / 3600
    print(f"\nTrials and runs of the tables below took {hours:.1f} core-hours.")
    if not files:
        trials = [json.loads(line) for line in (HERE / "search.jsonl").read_text().splitlines()]
        hours = sum(trial["cpu_s"] for trial in trials) / 3600
        print(f"The search's {len(trials)} trials took {hours:.1f} core-hours.")
    for name, record in records.items():
        print(f"\n### {Path(name).stem}\n", *rows(record, p.get(name)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
