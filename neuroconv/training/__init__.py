"""Training: configuration files, the loop, run folders and comparisons."""

from neuroconv.training.checkpoint import CheckpointError, load_weights, save_weights
from neuroconv.training.comparison import Estimate, ModelResult, compare, mean_interval
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
from neuroconv.training.linear import linear_baseline
from neuroconv.training.loop import TrainResult, train
from neuroconv.training.optimizer import learning_rate_at
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
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataConfig",
    "Estimate",
    "ModelResult",
    "Ranks",
    "RunError",
    "RunResult",
    "Score",
    "TrainConfig",
    "TrainResult",
    "compare",
    "evaluate",
    "evaluate_model",
    "launched",
    "learning_rate_at",
    "linear_baseline",
    "load_config",
    "load_weights",
    "mean_interval",
    "read_result",
    "rebuild",
    "resume",
    "run",
    "save_config",
    "save_weights",
    "train",
    "train_seeds",
]
