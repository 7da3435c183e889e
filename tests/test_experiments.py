"""The index of the experiments' folder, and the page of the ablations."""

import json
from pathlib import Path

from neuroconv.training import load_config
from neuroconv.zoo import count_parameters, create_model
from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def test_the_index_names_every_experiment() -> None:
    index = (EXPERIMENTS / "README.md").read_text()
    folders = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.md"))
    assert [name for name in folders if f"({name}/README.md)" not in index] == []
    assert "bench" in folders


def test_the_ablations_page_holds_what_was_recorded() -> None:
    folder = EXPERIMENTS / "ablation"
    table = loaded(folder / "table.py")
    page = (folder / "README.md").read_text()
    assert table.filled(page) == page
    for name in ("granule", "cerebellum"):
        models = json.loads((folder / name / "comparison.json").read_text())["models"]
        files = [table.file_name(model["label"]) for model in models]
        assert len(set(files)) == len(files) > 10
        for file, model in zip(files, models, strict=True):
            config = load_config(folder / name / f"{file}.toml")
            assert config.model["name"] == model["name"]
            assert config.data.train_limit == 10_000
            assert model["parameters_trained"] == count_parameters(create_model(**config.model))
