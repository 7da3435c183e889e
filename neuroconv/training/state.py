"""Everything that changes during a run, and its way to and from the run's folder."""

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

CHECKPOINT, METRICS, BEST, LAST = (
    "checkpoint.pt",
    "metrics.jsonl",
    "best.safetensors",
    "last.safetensors",
)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records as JSON lines, in one step."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


_NONE = Score(math.inf, -1.0, 0)


@dataclass
class State:
    """A run's model, optimiser and history. Only rank 0 of several processes reads and writes."""

    model: nn.Module
    updater: torch.optim.Optimizer
    settings: TrainConfig
    total_steps: int
    ranks: Ranks
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: Score = _NONE
    best_weights: dict[str, Any] = field(default_factory=dict)

    def finish_epoch(
        self, record: dict[str, Any], val: Score, activity: dict[str, dict[str, float]]
    ) -> None:
        """Add an epoch to the history, and keep its weights if they are the best so far."""
        scores = {"val_loss": val.loss, "val_accuracy": val.accuracy}
        self.history.append({**record, **scores, **({"activity": activity} if activity else {})})
        if (val.accuracy, -val.loss) > (self.best.accuracy, -self.best.loss):
            self.best, self.best_epoch = val, record["epoch"]
            self.best_weights = copy.deepcopy(self.model.state_dict())

    def save(self, folder: Path) -> None:
        """One atomic checkpoint; metrics.jsonl follows it and can always be written again."""
        self.ranks.first(lambda: self._save(folder))

    def _save(self, folder: Path) -> None:
        save_checkpoint(folder / CHECKPOINT, {
            "settings": _identity(self.settings), "step": self.step, "history": self.history,
            "model": self.model.state_dict(), "optimizer": self.updater.state_dict(),
            "best": asdict(self.best), "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        })  # fmt: skip
        write_lines(folder / METRICS, self.history)

    def open(self, folder: Path, resume: bool) -> None:
        """Make the run folder or, to resume, take the state of its checkpoint if it has one."""
        saved = self.ranks.first(lambda: _opened(folder, resume))
        if saved is None:
            return
        path, defaults = (
            folder / CHECKPOINT,
            {each.name: each.default for each in fields(TrainConfig)},
        )
        for key, value in _identity(self.settings).items():
            made_with = saved["settings"].get(key, defaults[key])  # it may be older than the key
            if made_with != value:
                raise CheckpointError(
                    f"{path} was made with {key} = {made_with!r}, not {value!r}: "
                    "resume with the same settings"
                )
        try:
            self.model.load_state_dict(saved["model"])
            self.updater.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} belongs to another model: {error}") from error
        self.step, self.history = saved["step"], saved["history"]
        self.best, self.best_epoch = Score(**saved["best"]), saved["best_epoch"]
        self.best_weights = saved["best_weights"]


def _opened(folder: Path, resume: bool) -> dict[str, Any] | None:
    """The content of a run folder's checkpoint; the folder is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    if not resume:
        raise ValueError(f"{path} exists: pass resume=True to continue it, or another run_dir")
    return load_checkpoint(path)


def _identity(settings: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights, as a checkpoint holds them."""
    kept = {
        key: value for key, value in asdict(settings).items() if key not in ("output", "device")
    }
    return {**kept, "seeds": list(settings.seeds)}
