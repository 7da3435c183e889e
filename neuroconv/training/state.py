"""The state of a run: all that changes during it, written to and read from its folder."""

import copy
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroconv.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_text,
)
from neuroconv.training.config import TrainConfig
from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import Score

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"
BEST, LAST = "best.safetensors", "last.safetensors"
_NONE = Score(math.inf, -1.0, 0)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


@dataclass
class State:
    """A run's model, optimiser and history; rank 0 alone reads and writes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    settings: TrainConfig
    total_steps: int
    ranks: Ranks
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: Score = _NONE
    best_weights: dict[str, Any] = field(default_factory=dict)

    def finish_epoch(self, record: dict[str, Any], val: Score, activity: dict[str, Any]) -> None:
        """Adds an epoch to the history, and keeps its weights if they are the best so far."""
        scores = {"val_loss": val.loss, "val_accuracy": val.accuracy}
        self.history.append({**record, **scores, **({"activity": activity} if activity else {})})
        if (val.accuracy, -val.loss) > (self.best.accuracy, -self.best.loss):
            self.best, self.best_epoch = val, record["epoch"]
            self.best_weights = copy.deepcopy(self.model.state_dict())

    def save(self, folder: Path) -> None:
        """Writes a checkpoint, and then metrics.jsonl, which the checkpoint can restore."""
        save_checkpoint(folder / CHECKPOINT, {
            "settings": _decisive(self.settings), "step": self.step, "history": self.history,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "best": asdict(self.best), "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        })  # fmt: skip
        write_lines(folder / METRICS, self.history)

    def open(self, folder: Path, resume: bool) -> None:
        """Creates the run folder or, to resume, loads its checkpoint if it has one."""
        path = folder / CHECKPOINT

        def read() -> dict[str, Any] | None:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and not resume:
                raise ValueError(f"{path} exists: pass resume=True, or another run_dir")
            return load_checkpoint(path) if path.exists() else None

        saved = self.ranks.first(read)
        if saved is None:
            return
        defaults = {entry.name: entry.default for entry in fields(TrainConfig)}
        for key, value in _decisive(self.settings).items():
            before = saved["settings"].get(key, defaults[key])  # it may be older than the key
            if before != value:
                raise CheckpointError(
                    f"{path} was made with {key} = {before!r}, not {value!r}: "
                    "resume with the same settings"
                )
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} belongs to another model: {error}") from error
        self.step, self.history = saved["step"], saved["history"]
        self.best, self.best_epoch = Score(**saved["best"]), saved["best_epoch"]
        self.best_weights = saved["best_weights"]


def _decisive(settings: TrainConfig) -> dict[str, Any]:
    """Returns the settings that decide the weights, as a checkpoint records them."""
    values = {k: v for k, v in asdict(settings).items() if k not in ("output", "device")}
    return {**values, "seeds": list(settings.seeds)}
