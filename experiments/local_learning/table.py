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
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import torch

from neuroconv.comparison import Estimate, verdict
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


def main(words: list[str]) -> None:
    table = study()
    files = {Path(word): Path(word).stem for word in words} or {
        HERE / f"{name}.json": title for name, title in RECORDS.items()
    }
    recorded = {title: file.read_text() for file, title in files.items() if file.exists()}
    records = {title: table.checked(json.loads(text)) for title, text in recorded.items()}
    corrected = table.corrected(records)
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


if __name__ == "__main__":
    main(sys.argv[1:])
