"""The study's records: they are those of their configurations, and quick forms keep the sign."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroconv.comparison import compare
from neuroconv.comparison.statistics import pack
from neuroconv.training import load_config
from tests.scripts import loaded

STUDY = Path(__file__).resolve().parent.parent / "experiments" / "study"
RECORDS = [*sorted(STUDY.glob("*_equal.json")), *STUDY.parent.glob("full_filter/digits_*.json")]
OTHERS = sorted(
    [*STUDY.parent.glob("ablation/*.json"), *STUDY.parent.glob("local_learning/*_local.json")]
)
AT_HAND = ("mnist", "fashion_mnist", "spoken_digits")  # data that are not unpacked first
QUICK = ("--train.epochs=2", "--train.seeds=[10, 11]", "--train.max_steps=60")


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = json.loads(path.read_text())
    return record, record["models"]


@pytest.mark.parametrize("path", [*RECORDS, *OTHERS], ids=lambda path: path.stem)
def test_a_record_is_that_of_its_configuration(path: Path) -> None:
    (record, models), config = read(path), load_config(path.stem)
    table = loaded(STUDY / "table.py")
    table.checked(record)
    tables = (config.model, *config.opponents)
    assert [m["label"] for m in models] == [t.get("label", t["name"]) for t in tables]
    assert [m["primary"] for m in models] == [t.get("primary", False) for t in tables]
    assert record["margin"] == config.compare.margin
    for model in models:
        assert [*model["test_accuracy_fraction_by_seed"]] == [*map(str, config.train.seeds)]
    trials = [len(model["search"]["trials"]) for model in models if model["search"]]
    searched = 0 if config.tune is None else 1 if config.tune.shared else len(models)
    assert trials == trials[:1] * searched


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_quick_form_keeps_the_sign_of_its_comparison(
    path: Path, data_root: Path, tmp_path: Path
) -> None:
    """Of the primary one, or else of that with the CNN: with the recorded settings, in few steps;
    without a sign there is nothing to keep."""
    (_, models), config = read(path), load_config(path.stem, QUICK)
    counts = [number for number, model in enumerate(models) if model["primary"]]
    with_cnn = [number for number, model in enumerate(models) if model["name"] == "plain_cnn"]
    primary = (counts or with_cnn or [1])[0]
    table = loaded(STUDY / "table.py")
    recorded = table.difference(models[primary], models[0])
    if config.data.name not in AT_HAND or recorded.p >= 0.05:
        pytest.skip("the seeds do not separate the two, or the data are not at hand")
    own = {key: models[primary]["settings"][key] for key in ("learning_rate", "weight_decay")}
    opponent = {**config.opponents[primary - 1], "train": own}
    settings = {key: models[0]["settings"][key] for key in own}
    config = replace(
        config, tune=None, opponents=(opponent,),
        data=replace(config.data, root=str(data_root)),
        train=replace(config.train, **settings, output=str(tmp_path)),
    )  # fmt: skip
    difference = compare(config, progress=False)[1].difference
    assert difference.mean * recorded.mean > 0


def test_a_correction_counts_the_rows_of_all_records() -> None:
    table = loaded(STUDY / "table.py")
    records = {path.stem: read(path)[0] for path in RECORDS[:2]}
    corrected = table.corrected(records)
    alone = {
        name: [table.difference(model, record["models"][0]).p for model in record["models"][1:]]
        for name, record in records.items()
    }
    count = sum(map(len, alone.values()))
    smallest = min(p for ps in alone.values() for p in ps)
    assert min(p for ps in corrected.values() for p in ps) == pytest.approx(count * smallest)
    for name, record in records.items():
        rows = table.rows(record, corrected[name])
        assert "p, Holm" in rows[0]
        assert [row.split(" | ")[8] for row in rows[3 : 2 + len(record["models"])]] == [
            table.p_text(p) for p in corrected[name]
        ]


def invented(rights: dict[str, float], primary: str = "") -> dict[str, Any]:
    """Returns a record of five seeds and 20,000 images, with these shares of right answers."""
    draw = np.random.default_rng(0)
    models = []
    for label, share in rights.items():
        right = draw.random((5, 20_000)) < share
        model: dict[str, Any] = {"label": label, "primary": label == primary}
        model["right_answers_by_seed"] = {str(n): pack(row) for n, row in enumerate(right)}
        model["test_images_by_seed"] = model["test_set_sha256_by_seed"] = dict.fromkeys(
            model["right_answers_by_seed"], 20_000
        )
        models.append(model)
    return {"margin": 0.01, "models": models}


@pytest.mark.parametrize(
    ("cells", "delta", "outcomes"),
    [
        (0.99, 0.80, ["holds", "holds", "holds", "holds", "does not hold", "holds"]),
        (0.90, 0.90, ["does not hold"] * 2 + [""] + ["holds"] * 2 + ["does not hold"]),
    ],
)
def test_claims_of_local_learning_follow_from_records(
    cells: float, delta: float, outcomes: list[str]
) -> None:
    table = loaded(STUDY.parent / "local_learning" / "table.py")
    frozen, spikes = "frozen random features, delta rule", "complex spikes, 1 Hz"
    rights = {"cells": cells, frozen: delta, "linear dendrites": delta, "Dale's law": cells - 0.001}
    low = 2 * delta - cells  # spikes lose twice what the delta rule does
    records = {
        table.RECORDS[name]: invented({**rights, spikes: low}, primary=frozen)
        for name in table.TASKS
    }
    if cells > delta:
        records[table.RECORDS["mnist_essay_local"]] = invented({"cells": cells})
    study = table.study()
    lines = table.claims(study, records, study.corrected(records))[2:]
    ends = [line.split(" | ")[-1].strip(" |") for line in lines]
    assert len(ends) == len(outcomes)
    assert ends == outcomes


def test_a_claim_over_tasks_waits_for_those_that_can_decide_it() -> None:
    together = loaded(STUDY.parent / "local_learning" / "table.py").together
    assert together(["better"] * 3, 3, 4) == "holds"
    assert together(["better", "better"], 3, 4) == "inconclusive"  # two are not recorded
    assert together(["better", "equal", "better", "inconclusive"], 3, 4) == "inconclusive"
    assert together(["equal (slightly better)", "worse"], 3, 4) == "does not hold"
