"""Training: configuration files, the loop and run folders."""

from neuroconv.core.files import WriteError
from neuroconv.training.checkpoint import CheckpointError, load_weights, save_weights
from neuroconv.training.config import (
    Config,
    ConfigError,
    DataConfig,
    TrainConfig,
    load_config,
    save_config,
)
from neuroconv.training.config_names import find_config, list_configs
from neuroconv.training.diagnostics import diagnose
from neuroconv.training.distributed import Ranks, launched
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.lock import RunError
from neuroconv.training.loop import TrainResult, train
from neuroconv.training.optimizer import learning_rate_at
from neuroconv.training.runs import (
    FailedRun,
    RunResult,
    evaluate,
    read_outcome,
    read_result,
    rebuild,
    resume,
    run,
    train_seeds,
)
from neuroconv.training.sharding import clip_gradients, shard
from neuroconv.training.signals import Interrupted
from neuroconv.training.task import Task
from neuroconv.training.trainer import RunFailed

__all__ = [
    "CheckpointError", "Config", "ConfigError", "DataConfig", "FailedRun", "Interrupted", "Ranks",
    "RunError", "RunFailed", "RunResult", "Score", "Task", "TrainConfig", "TrainResult",
    "WriteError", "clip_gradients", "diagnose", "evaluate", "evaluate_model", "find_config",
    "launched", "learning_rate_at", "list_configs", "load_config", "load_weights", "read_outcome",
    "read_result", "rebuild", "resume", "run", "save_config", "save_weights", "shard", "train",
    "train_seeds",
]  # fmt: skip
