"""Prints how long one checkpoint of each zoo entry holds training: python -m tests.training.saving

The checkpoint is that after an epoch, with the best weights beside it and AdamW's state in it; the
time is the longest of five, each synchronised with the disk of the temporary folder.
"""

import tempfile
import time
from pathlib import Path

import torch

from neuroconv.training import Score, TrainConfig
from neuroconv.training.distributed import Ranks
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.state import State
from neuroconv.zoo import create_model, list_models


def seconds(name: str) -> float:
    model = create_model(name)
    optimizer = make_optimizer(model, TrainConfig(epochs=1, learning_rate=1e-3))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    times = []
    with tempfile.TemporaryDirectory() as folder:
        state = State(model, optimizer, Ranks(), torch.device("cpu"), folder=Path(folder))
        for epoch in range(1, 6):
            state.step += 1
            state.finish_epoch({"epoch": epoch}, Score(1.0, epoch / 10, 10), {})
            start = time.perf_counter()
            state.save()
            times.append(time.perf_counter() - start)
    return max(times)


if __name__ == "__main__":
    for name in list_models():
        print(f"{name:<24}{seconds(name):>6.2f} s", flush=True)
