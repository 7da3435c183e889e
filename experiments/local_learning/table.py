"""Prints the tables of learning rules from the records of `neuroconv compare`.

python experiments/local_learning/table.py                    the records beside this file
python experiments/local_learning/table.py RECORD.json ...    others, of `neuroconv compare --json`

Accuracy, intervals, p (Holm's correction over the comparisons of all records), and the
cost of one update of one sample are computed again. Verdicts are on the row's model, as in
../study/table.py.
"""

import json
import sys
from functools import partial
from math import inf
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import torch

from neuroconv.comparison import Estimate, holm, verdict
from neuroconv.essay import Interval, Quantity
from neuroconv.learning.cost import LearningCost, learning_cost
from neuroconv.training.rules import rule_options
from neuroconv.zoo import create_model

HERE = Path(__file__).parent
RECORDS = {
    "mnist_local": "MNIST, 55,000 images",
    "mnist_essay_local": "MNIST, the essay's 100,000 synapses a cell",
    "mnist_permuted_local": "MNIST, permuted, 20,000 images",
    "fashion_local": "Fashion-MNIST, 20,000 images",
    "spoken_digits_local": "spoken digits, one of six speakers left out",
}
TASKS = {  # whose primary comparisons claim (a) counts; claim (e) the first three
    "mnist_local": "MNIST",
    "mnist_permuted_local": "permuted MNIST",
    "fashion_local": "Fashion-MNIST",
    "spoken_digits_local": "spoken digits",
}
HEAD = (
    "| model and rule | trained | forward | backward | update | signals | kept, bytes "
    "| accuracy, % | points to the first | p, Holm | verdict | core-seconds |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|"
)


def study() -> Any:
    """Returns the module ../study/table.py, whose statistics these tables use."""
    return SimpleNamespace(**run_path(str(HERE.parent / "study" / "table.py")))


def cost(model: dict[str, Any]) -> LearningCost:
    """Counts an update of a recorded model by its rule, for each of two samples."""
    keywords = {key: value for key, value in model["keywords"].items() if key != "name"}
    channels, *sides = keywords["image_shape"]
    steps = [keywords["time_steps"]] if keywords["time_steps"] > 1 else []
    rule, options = rule_options(model["settings"].get("rule", "backprop"))
    network = create_model(model["name"], **keywords)
    return learning_cost(network, rule, torch.zeros(2, channels, *steps, *sides), **options)


def row(
    table: Any, model: dict[str, Any], first: dict[str, Any], margin: float, p: float | None
) -> str:
    update, leads = cost(model), model is first
    estimate = Estimate(None, None, 0) if leads else table.difference(model, first)
    signals = "–" if update.teaching_signals is None else f"{update.teaching_signals:,}"
    flop = (update.forward_flop, update.backward_flop, update.update_flop)
    return (
        f"| {model['label']}{' *' * model['primary']} | {update.parameters:,} "
        f"| {' | '.join(f'{number:,.0f}' for number in flop)} | {signals} "
        f"| {update.kept_bytes:,.0f} | {table.points(table.accuracy(model), '')} "
        f"| {'' if leads else table.points(estimate)} | {'' if leads else table.p_text(p)} "
        f"| {'' if leads else verdict(estimate, margin, p)} "
        f"| {table.core_seconds(model):,.0f} |"
    )


def together(verdicts: list[str], needed: int, tasks: int) -> str:
    """Returns whether a row is better on as many tasks as a claim needs, of those recorded."""
    better = verdicts.count("better")
    lost = sum(told != "inconclusive" for told in verdicts) - better
    if better >= needed:
        return "holds"
    return "does not hold" if tasks - lost < needed else "inconclusive"


def claims(table: Any, records: dict[str, Any], corrected: dict[str, Any]) -> list[str]:
    """Returns the claims of README.md with what is measured, and what follows by rule."""
    by_name = {name: records[title] for name, title in RECORDS.items() if title in records}
    models, gains, p = dict[Any, Any](), dict[Any, Any](), dict[Any, Any]()
    for name, record in by_name.items():
        first, *others = record["models"]
        for model, corrected_p in zip(others, corrected[RECORDS[name]], strict=True):
            key = name, model["label"]
            models[key], p[key] = model, corrected_p
            gains[key] = table.difference(first, model)
    count = [key for key, model in models.items() if model["primary"]]
    p |= zip(count, holm([gains[key].p for key in count]), strict=True)

    def better(label: str, tasks: int) -> tuple[str, str]:
        """Compares the cells with a row on the first tasks; on three of them it must be worse."""
        keys = [(name, label) for name in list(TASKS)[:tasks] if (name, label) in models]
        told = [verdict(gains[key], by_name[key[0]]["margin"], p[key]) for key in keys]
        cells = [
            f"{TASKS[key[0]]} {table.points(gains[key])}, {text}"
            for key, text in zip(keys, told, strict=True)
        ]
        return "; ".join(cells), together(told, 3, tasks)

    def within(name: str, label: str | None, low: float, high: float) -> tuple[str, str]:
        """Compares an accuracy in percent, or the cells' less a row's, with a range."""
        if name not in by_name:
            return "not yet", ""
        value = gains[name, label] if label else table.accuracy(by_name[name]["models"][0])
        measured = Interval.of(value, 100)
        return f"{measured:.2f}", Quantity("", "points", (low, high)).outcome(measured)

    delta, linear = "frozen random features, delta rule", "linear dendrites"
    small, spikes = "mnist_local", "complex spikes, 1 Hz"
    judged = {
        "(a) more than the delta rule, on three of four tasks": better(delta, 4),
        "(b) 97 % on MNIST with 19,810 parameters": within(small, None, 97, inf),
        "(c) 98 % with 100,000 synapses a cell": within("mnist_essay_local", None, 98, inf),
        "(d) Dale's law costs less than a point": within(small, "Dale's law", -inf, 1),
        "(d) complex spikes cost less than a point": within(small, spikes, -inf, 1),
        "(e) more than linear dendrites, on three tasks": better(linear, 3),
    }
    head = "| claim | measured, % or points | outcome |", "|---|---|---|"
    return [*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in judged.items())]


def main(words: list[str]) -> None:
    table = study()
    files = {Path(word): Path(word).stem for word in words} or {
        HERE / f"{name}.json": title for name, title in RECORDS.items()
    }
    recorded = {title: file.read_text() for file, title in files.items() if file.exists()}
    records = {title: table.checked(json.loads(text)) for title, text in recorded.items()}
    corrected = table.corrected(records)
    if not words:
        print("### Claims", "", *claims(table, records, corrected), "", sep="\n")
    print("### Comparisons that count", "", *table.primary_rows(records), "", sep="\n")
    for title, record in records.items():
        first = record["models"][0]
        line = partial(row, table, first=first, margin=record["margin"])
        print(f"### {title}\n\n{HEAD}")
        ps = None, *corrected[title]
        print(*(line(m, p=p) for m, p in zip(record["models"], ps, strict=True)), sep="\n")
        print(
            f"\nSeeds {', '.join(first['test_accuracy_fraction_by_seed'])}. "
            f"Earlier use of the test set: {record['earlier_use'] or 'none'}.\n"
        )
    seconds = (table.core_seconds(m) for record in records.values() for m in record["models"])
    print(f"Trials and runs of these tables took {sum(seconds) / 3600:.1f} core-hours.")


if __name__ == "__main__":
    main(sys.argv[1:])
