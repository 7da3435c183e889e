"""The records of a run's epochs as curves for TensorBoard, an optional package."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils._pytree import tree_leaves_with_path

from neuroconv.training.config import ConfigError


def check_tensorboard() -> None:
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        remedy = 'pip install "neuroconv-zoo[tensorboard]"'
        raise ConfigError(f"tensorboard = true: {error}: {remedy}") from None


@contextmanager
def tensorboard(run_dir: Path, history: list[dict[str, Any]]) -> Iterator[Any]:
    """Yields a function that writes an epoch's record below a run's folder, a curve for each key.

    The history is written first: TensorBoard leaves out what an earlier process wrote
    (`purge_step`), so that no epoch of a resumed run is missing or drawn twice.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run_dir / "tensorboard", purge_step=1) as writer:

        def write(record: dict[str, Any]) -> None:
            for path, value in tree_leaves_with_path(record):
                tag = "/".join(str(entry.key) for entry in path)  # type: ignore[attr-defined]
                writer.add_scalar(tag, value, record["epoch"])
            writer.flush()

        for record in history:
            write(record)
        yield write
