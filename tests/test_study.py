"""The study's records: they are those of their configurations, and quick forms keep the sign."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuroconv.comparison import compare
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
