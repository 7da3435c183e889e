"""Learning: two of the project's configurations, trained on the device."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from measure import Row, Setup

from neuroconv.training import Config, load_config, run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def mnist(setup: Setup) -> Iterator[Row]:
    """The granule network of configs/mnist_granule.toml, from each of its seeds."""
    words = ["--data.train_limit", "500", "--train.epochs", "1"] if setup.quick else []
    config = _config(setup, "mnist_granule.toml", *words, "--data.root", str(setup.data))
    for seed in config.train.seeds[: 1 if setup.quick else None]:
        yield _run(config, seed, "granule_convnet")


def digits(setup: Setup) -> Iterator[Row]:
    """The full Purkinje filter against the same network with its filters frozen, by seed."""
    words = ["--model.purkinje_cells", "1", "--model.granule_cells", "60", "--train.max_steps", "1"]
    words += ["--train.epochs", "1", "--train.batch_size", "4"]
    words += ["--model.purkinje_sheet", "[10, 60]", "--model.purkinje_filter", "[4, 60]"]
    config = _config(setup, "digits_cerebellum_base.toml", *(words if setup.quick else []))
    frozen = {key: value for key, value in config.opponents[0].items() if key != "label"}
    models = {"trained filters": config.model, "frozen filters": {**config.model, **frozen}}
    for seed in config.train.seeds[: 1 if setup.quick else None]:
        for label, model in models.items():
            yield _run(replace(config, model=model), seed, label)


def _config(setup: Setup, name: str, *words: str) -> Config:
    if setup.data is None or not setup.data.is_dir():
        raise FileNotFoundError(f"--data {setup.data}: expected a folder that is there")
    return load_config(CONFIGS / name, [*words, "--train.device", setup.device.type])


def _run(config: Config, seed: int, label: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, seed=seed, run_dir=Path(folder) / "run", progress=False)
    return {
        "model": label,
        "data": config.data.name,
        "seed": seed,
        "parameters": result.parameters,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "val_accuracy": result.val_accuracy,
        "test_accuracy": result.test_accuracy,
        "test_images": result.test_images,
        "seconds_per_epoch": result.seconds_per_epoch,
        "images_per_second": result.history[-1]["images_per_second"],
        "peak_memory_mib": result.peak_memory_mib,
    }
