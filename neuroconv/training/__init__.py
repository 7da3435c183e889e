"""Training: configuration files, the loop and run folders."""

from neuroconv.training.checkpoint import CheckpointError, load_weights, save_weights
from neuroconv.training.config import (
    Config,
    ConfigError,
    DataConfig,
    TrainConfig,
    load_config,
    save_config,
)
from neuroconv.training.distributed import Ranks, launched
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.loop import TrainResult, learning_rate_at, train
from neuroconv.training.runs import (
    RunError,
    RunResult,
    evaluate,
    read_result,
    rebuild,
    resume,
    run,
    train_seeds,
)

__all__ = [
    "CheckpointError", "Config", "ConfigError", "DataConfig", "Ranks", "RunError", "RunResult",
    "Score", "TrainConfig", "TrainResult", "evaluate", "evaluate_model", "launched",
    "learning_rate_at", "load_config", "load_weights", "read_result", "rebuild", "resume", "run",
    "save_config", "save_weights", "train", "train_seeds",
]  # fmt: skip
