"""Learning: three of the project's configurations, trained on the device."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from measure import Row, Setup

from neuroconv.training import Config, load_config, run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PURKINJE_SECONDS = 60.0  # of training
_SMALL = (
    *("--model.granule_cells", "60", "--model.purkinje_cells", "1"),
    *("--model.purkinje_sheet", "[10, 60]", "--model.purkinje_filter", "[4, 60]"),
    *("--train.max_steps", "1", "--train.epochs", "1"),
)


def mnist(setup: Setup) -> Iterator[Row]:
    """The granule network of configs/mnist_granule.toml, from each of its seeds."""
    words = ["--data.train_limit", "500", "--train.epochs", "1"] if setup.quick else []
    config = _config(setup, "mnist_granule.toml", *words, "--data.root", str(setup.data))
    for seed in config.train.seeds[: 1 if setup.quick else None]:
        yield _run(config, seed, "granule_convnet")


def digits(setup: Setup) -> Iterator[Row]:
    """The full Purkinje filter against the same network with its filters frozen, by seed."""
    config = _config(
        setup,
        "digits_cerebellum_base.toml",
        *((*_SMALL, "--train.batch_size", "4") if setup.quick else ()),
    )
    frozen = {key: value for key, value in config.opponents[0].items() if key != "label"}
    models = {"trained filters": config.model, "frozen filters": {**config.model, **frozen}}
    for seed in config.train.seeds[: 1 if setup.quick else None]:
        for label, model in models.items():
            yield _run(replace(config, model=model), seed, label)


def mnist_purkinje(setup: Setup) -> Iterator[Row]:
    """The essay's full filter of configs/mnist_purkinje.toml, for as many steps as fit in a minute.

    A few steps tell how many those are; the configuration's epochs are the most.
    """
    words = (*_SMALL, "--train.batch_size", "250") if setup.quick else ()
    config = _config(setup, "mnist_purkinje.toml", *words, "--data.root", str(setup.data))
    first = _run(_steps(config, 1 if setup.quick else 10), config.train.seeds[0], "first steps")
    yield first
    if not setup.quick:
        steps = int(PURKINJE_SECONDS * first["images_per_second"] / config.train.batch_size)
        began = time.perf_counter()
        row = _run(_steps(config, max(1, steps)), config.train.seeds[0], "full Purkinje filter")
        yield {**row, "most_steps": steps, "seconds": time.perf_counter() - began}


def _steps(config: Config, steps: int) -> Config:
    return replace(config, train=replace(config.train, max_steps=steps))


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
