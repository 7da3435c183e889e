"""Several Gloo processes that tests hand work to, and the work."""

import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from neuroconv.data import load_data
from neuroconv.training import TrainResult, train
from neuroconv.zoo import create_model

Work = Callable[..., Any]


class Processes:
    """Inside the context, spawned processes that form a group: call(work, ...) runs on them all."""

    def __init__(self, size: int, folder: Path) -> None:
        context = get_context("spawn")
        self.requests = [context.SimpleQueue() for _ in range(size)]
        self.answers = [context.SimpleQueue() for _ in range(size)]
        self.processes = [
            context.Process(
                target=_serve,
                args=(
                    rank,
                    size,
                    f"file://{folder}/meeting",
                    self.requests[rank],
                    self.answers[rank],
                ),
                daemon=True,
            )
            for rank in range(size)
        ]

    def __enter__(self) -> Self:
        for process in self.processes:
            process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for requests in self.requests:
            requests.put(None)
        for process in self.processes:
            process.join(10)
            process.kill()

    def call(self, work: Work, *arguments: Any, **keywords: Any) -> list[Any]:
        """What each process returned, in the order of ranks; an error of theirs is raised."""
        answers = self.outcomes(work, *arguments, **keywords)
        for good, answer in answers:
            if not good:
                raise AssertionError(answer)
        return [answer for _, answer in answers]

    def outcomes(self, work: Work, *arguments: Any, **keywords: Any) -> list[tuple[bool, Any]]:
        """Whether it went well in each process, and what it returned or the error's text."""
        for requests in self.requests:
            requests.put((work, arguments, keywords))
        return [answer.get() for answer in self.answers]


def _serve(
    rank: int, size: int, meeting: str, requests: SimpleQueue[Any], answers: SimpleQueue[Any]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    while (work := requests.get()) is not None:
        call, arguments, keywords = work
        try:
            answers.put((True, call(*arguments, **keywords)))
        except BaseException:
            answers.put((False, traceback.format_exc()))


class Exact(Dataset[Any]):
    """The digits in float64, and an exception in an epoch (from 0), everywhere or at one rank."""

    def __init__(self, data: Dataset[Any], fail_in: int = -1, fail_at: int | None = None) -> None:
        self.data, self.fail_in, self.fail_at, self.epoch = data, fail_in, fail_at, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        alone = not dist.is_initialized()
        if self.epoch == self.fail_in and (
            self.fail_at is None or alone or dist.get_rank() == self.fail_at
        ):
            raise RuntimeError("power cut")
        image, label = self.data[index]
        return image.double(), int(label)


def digits(start: int, stop: int, **keywords: Any) -> Exact:
    splits = load_data("digits", encoding="saccade", time_steps=3)
    return Exact(Subset(splits.train, range(start, stop)), **keywords)


def granule_net(**keywords: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"time_steps": 3, "widths": (4, 6), "strides": (2, 1), **keywords}
    return create_model("granule_convnet", image_shape=(1, 8, 8), **sizes).double()


def train_digits(
    *, mean_wait: float = 0.0, images: int = 96, fail_in: int = -1, fail_at: int | None = None,
    validation: int = 37, **keywords: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the granule network in float64 on few digits, and say all that came of it."""
    model = granule_net(unit={"output": {"mean_wait": mean_wait}})
    modules = [type(module) for module in model.modules()]
    result = train(
        model,
        digits(0, images, fail_in=fail_in, fail_at=fail_at),
        digits(200, 200 + validation),
        test_data=digits(300, 301),
        **{
            "epochs": 2, "batch_size": 32, "learning_rate": 1e-2, "label_smoothing": 0.1,
            "device": "cpu", "progress": False, **keywords,
        },
    )  # fmt: skip
    assert modules == [type(module) for module in model.modules()]
    return {"weights": model.state_dict(), "result": plain(result)}


def plain(result: TrainResult) -> dict[str, Any]:
    """A result without its times."""
    timing = ("seconds", "images_per_second")
    history = [{k: v for k, v in each.items() if k not in timing} for each in result.history]
    assert result.test is not None
    return {
        "history": history,
        "best_epoch": result.best_epoch,
        "val": (result.val.loss, result.val.accuracy, result.val.images),
        "test": (result.test.loss, result.test.accuracy, result.test.images),
        "steps": result.steps,
    }


def train_compiled(**keywords: Any) -> dict[str, Any]:
    """As `train_digits`, by torch.compile without its C++ code."""
    plain_compile = torch.compile
    torch.compile = partial(plain_compile, backend="aot_eager")
    try:
        return train_digits(compile=True, **keywords)
    finally:
        torch.compile = plain_compile


class Drawing(nn.Module):
    """A linear classifier that remembers what it drew."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 2)
        self.drawn: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.drawn.append(float(torch.rand(())))
        logits: Tensor = self.linear(inputs)
        return logits


def draws(seed: int) -> list[float]:
    model, data = Drawing(), TensorDataset(torch.ones(8, 4), torch.arange(8) % 2)
    train(model, data, data, epochs=2, batch_size=4, seed=seed, device="cpu", progress=False)
    return model.drawn
