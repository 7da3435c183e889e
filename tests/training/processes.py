"""Several Gloo processes that tests hand work to, and the work."""

import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Self

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from neuroconv.data import load_data
from neuroconv.training import TrainResult, evaluate_model, train
from neuroconv.training.distributed import Ranks
from neuroconv.zoo import create_model
from tests.training.small_runs import EpochData

Work = Callable[..., Any]
CLOSE = 1e-9


class Processes:
    """Inside the context, spawned processes that form a group: call(work, ...) runs on them all."""

    def __init__(self, size: int, folder: Path) -> None:
        context = get_context("spawn")
        self.requests = [context.SimpleQueue() for _ in range(size)]
        self.answers = [context.SimpleQueue() for _ in range(size)]
        self.processes = [
            context.Process(
                target=_serve, daemon=True,
                args=(rank, size, folder, self.requests[rank], self.answers[rank]),
            )
            for rank in range(size)
        ]  # fmt: skip

    def __enter__(self) -> Self:
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for requests in self.requests:
            requests.put(None)
        for process in self.processes:
            process.join(10)
            process.kill()

    def call(self, work: Work, *arguments: Any, **keywords: Any) -> list[Any]:
        """Returns the processes' results, in the order of ranks; raises an error of theirs."""
        answers = self.outcomes(work, *arguments, **keywords)
        for good, answer in answers:
            if not good:
                raise AssertionError(answer)
        return [answer for _, answer in answers]

    def outcomes(self, work: Work, *arguments: Any, **keywords: Any) -> list[tuple[bool, Any]]:
        """Returns, for each process, whether the work went well, and its result or the error."""
        for requests in self.requests:
            requests.put((work, arguments, keywords))
        return [answer.get() for answer in self.answers]


def _serve(
    rank: int, size: int, folder: Path, requests: SimpleQueue[Any], answers: SimpleQueue[Any]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/m", rank=rank, world_size=size)
    while (work := requests.get()) is not None:
        call, arguments, keywords = work
        try:
            answers.put((True, call(*arguments, **keywords)))
        except BaseException:
            answers.put((False, traceback.format_exc()))
    dist.destroy_process_group()


class Exact(EpochData):
    """The digits, by default in float64, and an exception in an epoch (from 0)."""

    def __init__(
        self, data: Dataset[Any], fail_in: int = -1, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(data)
        self.fail_in, self.dtype = fail_in, dtype

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.epoch == self.fail_in:
            raise RuntimeError("power cut")
        image, label = self.data[index]
        return image.to(self.dtype), int(label)


def digits(start: int, stop: int, **keywords: Any) -> Exact:
    splits = load_data("digits", encoding="saccade", time_steps=3)
    return Exact(Subset(splits.train, range(start, stop)), **keywords)


def granule_net(**keywords: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"time_steps": 3, "widths": (4, 6), "strides": (2, 1), **keywords}
    return create_model("granule_convnet", image_shape=(1, 8, 8), **sizes).double()


def train_digits(
    *, network: str = "granule_convnet", mean_wait: float = 0.0, images: int = 96,
    fail_in: int = -1, dtype: torch.dtype = torch.float64, bias: float = 0.0, **keywords: Any,
) -> dict[str, Any]:  # fmt: skip
    """Trains a network, by default in float64, on few digits; returns its weights and scores.

    `bias` is the standard deviation of its initial biases.
    """
    output = {"mean_wait": mean_wait}
    if network == "granule_convnet":
        model = granule_net(unit={"output": output})
    else:
        cells = {"granule": {"cells": 20, "norm": "both", "output": output}}
        tables = cells if network.startswith("cerebellum") else {}
        torch.manual_seed(0)
        model = create_model(network, image_shape=(1, 8, 8), time_steps=3, **tables)
    for name, parameter in model.named_parameters():
        if bias and name.endswith("bias"):
            nn.init.normal_(parameter, std=bias)
    modules = [type(module) for module in model.modules()]
    result = train(
        model.to(dtype),
        digits(0, images, fail_in=fail_in, dtype=dtype),
        digits(200, 237, dtype=dtype),
        test_data=digits(300, 301, dtype=dtype),
        **{
            "epochs": 2, "batch_size": 32, "learning_rate": 1e-2, "label_smoothing": 0.1,
            "device": "cpu", "progress": False, **keywords,
        },
    )  # fmt: skip
    spread = "shard" in keywords or "split" in keywords  # which stays so
    assert spread or modules == [type(module) for module in model.modules()]
    return {"weights": model.state_dict(), "result": plain(result)}


SPREAD: dict[str, dict[str, Any]] = {
    "shard": {"shard": True},
    "split": {"split": "neurons", "network": "cerebellum_tiny", "mean_wait": 0.5},  # and draws
}


def train_spread(**keywords: Any) -> dict[str, Any]:
    """Does what `train_digits` does; the weights are those of the run's file."""
    result = train_digits(**keywords)
    return {**result, "weights": load_file(keywords["run_dir"] / "best.safetensors")}


def train_alone(**keywords: Any) -> dict[str, Any]:
    """Does what `train_digits` does, in one process, for the keywords of a model that is spread."""
    return train_digits(**{k: v for k, v in keywords.items() if k not in ("shard", "split")})


def plain(result: TrainResult) -> dict[str, Any]:
    """Returns a result without its times."""
    values = asdict(result)
    if (test := values["test"]) and test["answers"] is not None:
        test["answers"] = test["answers"].tolist()
    for record in values["history"]:
        del record["seconds"], record["images_per_second"]
    del values["changes"], values["accumulate"], values["data_sha256"]
    return values


def assert_close(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    """Checks that weights, statistics, scores and activity are the same up to rounding."""
    for name, value in expected["weights"].items():
        torch.testing.assert_close(
            actual["weights"][name], value, rtol=CLOSE, atol=CLOSE,
            msg=lambda m, n=name: f"{n}: {m}",
        )  # fmt: skip
    assert flat(actual["result"]) == pytest.approx(flat(expected["result"]), rel=CLOSE)


def flat(value: Any, path: str = "") -> dict[str, float]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in pairs for k, v in flat(part, f"{path}/{key}").items()}
    return {} if value is None else {path: value}


def train_compiled(**keywords: Any) -> dict[str, Any]:
    """Does what `train_digits` does, by torch.compile without its C++ code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
        return train_digits(compile=True, **keywords)


def regression(start: int, stop: int) -> TensorDataset:
    """Linear targets with noise, in float64."""
    generator = torch.Generator().manual_seed(0)
    inputs, noise = torch.randn(100, 4, generator=generator, dtype=torch.float64).split([3, 1], 1)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5]).double() + 3 + 0.3 * noise[:, 0]
    return TensorDataset(inputs[start:stop], targets[start:stop])


def train_regression(
    *, validation: tuple[int, int] = (50, 83), test: bool = False, **keywords: Any
) -> dict[str, Any]:
    """Fits a line by plain gradient descent; returns its weights and scores."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    metrics = {"mae": lambda y, t: (y - t).abs(), "mean_error": lambda y, t: (y - t).mean()}
    result = train(
        model,
        regression(0, 45),
        regression(*validation),
        test_data=regression(90, 91) if test else None,
        loss=nn.MSELoss(),
        metrics=metrics,
        **{
            "batch_size": 64, "learning_rate": 0.3, "optimizer": "sgd", "momentum": 0.0,
            "weight_decay": 0.0, "warmup": 0.0, "clip": float("inf"), "device": "cpu",
            "progress": False, **keywords,
        },
    )  # fmt: skip
    return {"weights": model.state_dict(), "result": plain(result)}


def answers(images: int, **keywords: Any) -> list[int]:
    """The classes that a linear network of initial weights predicts."""
    torch.manual_seed(0)
    model = create_model("linear", image_shape=(1, 8, 8), time_steps=3).double()
    score = evaluate_model(
        model, digits(0, images), ranks=Ranks.current(), device="cpu", **keywords
    )
    return score.answers.tolist()


def refuse(record: dict[str, Any]) -> None:
    raise RuntimeError(f"no more room for curves in epoch {record['epoch']}")


class Drawing(nn.Module):
    """A linear classifier that remembers the numbers that it drew."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 2)
        self.drawn: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.drawn.append(float(torch.rand(())))
        return self.linear(inputs)


def draws(seed: int) -> list[float]:
    model, data = Drawing(), TensorDataset(torch.ones(8, 4), torch.arange(8) % 2)
    train(model, data, data, epochs=2, batch_size=4, seed=seed, device="cpu", progress=False)
    return model.drawn
