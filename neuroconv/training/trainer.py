"""The epochs of a run: its steps and scores, and the checkpoints, signals and failures between."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroconv.core.checks import out_of_memory
from neuroconv.learning import Rule
from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import Data, derived_seed, epoch_batches, load
from neuroconv.training.config import TrainConfig
from neuroconv.training.distributed import Ranks, data_parallel, split
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.memory import OutOfMemory
from neuroconv.training.metrics import EpochMetrics, Problem, TrainingBar
from neuroconv.training.optimizer import learning_rate_at
from neuroconv.training.sharding import save_whole
from neuroconv.training.signals import Interrupted, StopSignal
from neuroconv.training.state import BEST, LAST, METRICS, State, write_lines
from neuroconv.training.step import GraphedStep, Step
from neuroconv.training.task import Task

Callback = Callable[[dict[str, Any]], object]  # of an epoch's record

# What processes agree on at each step, the largest number for all: 0, these, or between them the
# number of a signal by which they end.
_SAVE, _FAIL = 1, 1000


class RunFailed(FloatingPointError):
    """The end of a run by a loss, gradient or score that is not finite.

    Attributes:
        epoch, step: where it happened, both from 1; the weights are those of the step before.
        run_dir: the run's folder, which is marked as failed.
    """

    def __init__(self, reason: str, epoch: int, step: int) -> None:
        super().__init__(reason)
        self.reason, self.epoch, self.step = reason, epoch, step
        self.run_dir = Path()


class Trainer:
    """One call of `train`: its epochs, and what may end them early."""

    def __init__(
        self, state: State, config: TrainConfig, task: Task, data: dict[str, Data],
        images: int, seed: int, workers: int, progress: bool, callbacks: Sequence[Callback],
        rule: Rule | None = None,
    ) -> None:  # fmt: skip
        self.state, self.config, self.task, self.data = state, config, task, data
        self.images, self.seed, self.workers = images, seed, workers
        self.callbacks = callbacks
        self.model, self.device, self.ranks = state.model, state.device, state.ranks
        self.readers = state.readers
        self.epoch_steps = max(1, images // config.batch_size)
        self.total_steps = config.epochs * self.epoch_steps
        self.last_step = min(self.total_steps, config.max_steps or self.total_steps)
        self.bar = TrainingBar(
            state.folder.name if state.folder else type(self.model).__name__,
            epochs=config.epochs, steps=self.last_step, done=state.step,
            shown=progress and self.ranks.leads,
        )  # fmt: skip
        then = f"saves {state.folder} and ends" if state.folder else "ends"
        self.stop = StopSignal(f"finishes this step, {then}" if self.ranks.leads else None)
        # The compiled model has the tensors of the plain one, which stays as it is.
        compiled: Any = torch.compile(self.model) if config.compile else None
        self.compiled: nn.Module | None = compiled
        if isinstance(config.compile, str):  # not for scores: monitors keep what graphs overwrite
            compiled = torch.compile(self.model, mode=config.compile)
        alone = Ranks() if config.spread else self.ranks
        learner = data_parallel(self.model if compiled is None else compiled, alone)
        step = Step(learner, state, config, task, min(images, config.batch_size), rule)
        self.step = GraphedStep(step) if config.cuda_graph else step

    def run(self) -> Score | None:
        """Trains, and returns the score on the test data; the model ends with the best weights."""
        state, folder = self.state, self.state.folder
        try:
            with self.bar, self.stop:
                while len(state.history) * self.epoch_steps < self.last_step:
                    self._epoch(len(state.history))
                if folder is not None:
                    save_whole(self.model, folder / LAST, self.ranks)
                self.model.load_state_dict(state.best_weights)
                test = self._score("test_data")[0] if "test_data" in self.data else None
                if folder is not None:
                    final = {**test.record("test"), "test_images": test.images} if test else {}
                    lines = [*state.history, {"best_epoch": state.best_epoch, **final}]
                    save_whole(self.model, folder / BEST, self.ranks)
                    self.ranks.first(lambda: write_lines(folder / METRICS, lines))
        except RunFailed as error:
            state.fail({"reason": error.reason, "epoch": error.epoch, "step": error.step})
            error.run_dir = folder or Path()
            raise
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            inputs = -(-self.config.batch_size // (self.config.parts * self.readers.size))
            remedy = f"; continue with: neuroconv resume {folder} --force" if folder else ""
            raise OutOfMemory(
                f"out of memory at step {state.step + 1}, in {inputs} inputs at once "
                f"({str(error).partition(chr(10))[0]}): set [train] accumulate = "
                f'"auto" or {2 * self.config.parts}, which keeps the batch size{remedy}'
            ) from error
        except KeyboardInterrupt as stop:
            number, done = getattr(stop, "signal", signal.SIGINT), len(state.history)
            remedy = f"; continue with: neuroconv resume {folder}" if folder else ""
            raise Interrupted(
                f"interrupted by {signal.Signals(number).name} at step {state.step}, with {done} "
                f"epoch{'' if done == 1 else 's'} finished{remedy}",
                number,
            ) from None
        self.model.eval()
        return test

    def _epoch(self, epoch: int) -> None:
        """Trains and validates an epoch, or what is left of it, and saves the state."""
        state, config, readers = self.state, self.config, self.readers
        batches = epoch_batches(
            self.data["train_data"], self.images, config.batch_size, self.seed, epoch
        )
        if readers.size > 1:
            torch.manual_seed(derived_seed(self.seed, epoch, readers.rank))  # of dropout
        first = epoch * self.epoch_steps
        parts = [
            readers.share(part)
            for batch in batches[state.step - first : self.last_step - first]
            for part in split(batch, config.parts)
        ]
        self.metrics = EpochMetrics(
            epoch + 1, self.task.measures, self.step.interval, self.bar, readers, state.sums()
        )
        steps = min(self.epoch_steps, self.last_step - first)
        self.bar.show("training", state.step - first, steps)
        words = self.seed, epoch
        stream = load(self.data["train_data"], parts, self.workers, self.device, words)
        state.restore_random()  # of a run that goes on within an epoch
        with closing(stream):
            self._steps(stream, parts)
        problem = self.metrics.read()
        self._agree(_FAIL if problem else 0, problem)
        record = self.metrics.record()
        self._check("train_data", record)
        val, activity = self._score("val_data")
        state.finish_epoch(record, val, activity)
        state.save()
        self.bar.epoch(state.history[-1])
        self.ranks.first(self._report)

    def _report(self) -> None:
        for callback in self.callbacks:
            callback({**self.state.history[-1]})

    def _steps(self, stream: Iterator[Any], indices: Sequence[list[int]]) -> None:
        """Takes the steps of an epoch, `accumulate` parts of the stream each."""
        state, config, count = self.state, self.config, self.config.parts
        self.model.train()
        for number, first in enumerate(stream):
            rate = learning_rate_at(
                state.step, self.total_steps, config.learning_rate, config.warmup
            )
            for group in state.optimizer.param_groups:
                memory = group["lr"]
                group["lr"] = memory.fill_(rate) if isinstance(memory, torch.Tensor) else rate
            numbers, images = self.step(chain([first], islice(stream, count - 1)))
            batch = [*chain(*indices[number * count :][:count])]
            problem = self.metrics.add(state.step + 1, rate, numbers, images, batch)
            wanted = self._agree(self._due() if problem is None else _FAIL, problem)
            if self.step.interval == 1:
                state.optimizer.step()
            state.step += 1
            self._save(wanted)

    def _due(self) -> int:
        """Returns the number of a signal that came, or whether the next step is saved."""
        state, config = self.state, self.config
        by_steps = config.save_steps and (state.step + 1) % config.save_steps == 0
        by_time = time.monotonic() - state.saved_at > 60 * config.save_minutes
        return self.stop.number or (_SAVE if by_steps or by_time else 0)

    def _agree(self, wanted: int, problem: Problem | None = None) -> int:
        """Returns the largest number of all processes; RunFailed if one of them has a problem."""
        wanted = self.ranks.agree(wanted)
        if wanted < _FAIL:
            return wanted
        problems = [p for p in self.ranks.gather(problem) if p is not None]
        step, text, _ = min(problems)
        indices = [i for p in problems if p.step == step for i in p.indices]
        words = self.seed, self.metrics.epoch - 1
        stream = load(self.data["train_data"], [[i] for i in indices], 0, self.device, words)
        images = [i for i, pair in zip(indices, stream, strict=True) if not all_finite(pair)]
        remedy = (
            f"inputs {images} of the training data, or their targets, are not finite" if images else
            "lower the learning rate, or lengthen the warm-up"
        )  # fmt: skip
        batch = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
        reason = f"epoch {self.metrics.epoch}, step {step}, inputs {batch}: {text}: {remedy}"
        raise RunFailed(reason, self.metrics.epoch, step)

    def _save(self, wanted: int) -> None:
        """Saves the state if that is wanted, and ends the run by a signal."""
        if wanted:
            problem = self.metrics.read()
            self._agree(_FAIL if problem else 0, problem)
            self.state.save(self.metrics.sums())
        if wanted > _SAVE:
            raise Interrupted("", wanted)

    def _score(self, role: str) -> tuple[Score, dict[str, dict[str, float]]]:
        """Scores the model; a signal ends this, and the run, between batches."""

        def between(done: int, total: int) -> None:
            self.bar.show("validation" if role == "val_data" else "test", done, total)
            wanted = self._agree(self.stop.number)
            if role == "val_data":
                self._save(wanted)
            elif wanted:  # all is saved after the last epoch
                raise Interrupted("", wanted)

        # Always monitored: torch.compile would reuse a graph without the hooks.
        with ActivityMonitor(self.model) as monitor:
            score = evaluate_model(
                self.model, self.data[role], loss=self.task.loss, metrics=self.task.metrics,
                **self.config.evaluation(), workers=self.workers, monitor=monitor,
                runner=self.compiled, ranks=self.readers, between=between,
            )  # fmt: skip
        monitor.merge(self.readers)
        activity = monitor.summary()
        self._check(role, {**asdict(score), "activity": activity})
        return score, activity

    def _check(self, role: str, numbers: dict[str, Any]) -> None:
        """Raises RunFailed if one of the means over a data set is not finite."""
        epoch = len(self.state.history) + (role != "test_data")  # whose record is not there yet
        if bad := [f"{name} {value}" for name, value in numbers.items() if not all_finite(value)]:
            raise RunFailed(
                f"{role} in epoch {epoch}: {', '.join(bad)}: lower the learning rate, or look for "
                f"inputs and targets in {role} that are not finite", epoch, self.state.step
            )  # fmt: skip


def all_finite(value: Any) -> bool:
    """Returns whether all numbers in nested tables, lists and tensors are finite."""
    if isinstance(value, dict | list | tuple):
        return all(map(all_finite, value.values() if isinstance(value, dict) else value))
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)
