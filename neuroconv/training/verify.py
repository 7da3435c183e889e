"""The verification of a finished run on this machine: files, model, data, scores and resuming."""

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import Subset

from neuroconv.core.arguments import Rule, as_argument
from neuroconv.data import DataSplits
from neuroconv.data.fingerprint import fingerprint
from neuroconv.training import runs
from neuroconv.training.checkpoint import check_sum, load_weights, read_record
from neuroconv.training.config import Config
from neuroconv.training.distributed import Ranks
from neuroconv.training.environment import environment_diff
from neuroconv.training.evaluation import evaluate_model
from neuroconv.training.loop import train
from neuroconv.training.signals import Interrupted
from neuroconv.training.state import BEST, LAST
from neuroconv.zoo import count_parameters

_STEPS = Annotated[int, Rule("of at least 3", lambda steps: steps > 2)]
_ROUNDING = 1e-4  # of a loss: float32 in another order of sums differs by less
_OTHERS = 2  # answers that may differ by it


class Check(NamedTuple):
    """The outcome of a check: what holds or, if it failed, what that means."""

    name: str
    ok: bool
    message: str


def verify(run_dir: str | Path, *, steps: int = 20, progress: bool = True) -> Iterator[Check]:
    """Checks a finished run where it is now, and yields the outcomes as they come.

    These are "files", by their sums; "model", which takes its weights; "data", by fingerprints;
    "val" and "test", by scores; and "resume": the first `steps` steps, trained in a temporary
    folder, end in the same bits if SIGUSR1 interrupts them. RunError: the run is not finished.
    """
    run = _Run(Path(run_dir), as_argument("steps", steps, _STEPS), progress)
    checks: dict[str, Callable[[], str]] = {
        "files": run.check_files, "model": run.check_model, "data": run.check_data,
        "val": partial(run.check_score, "val"), "test": partial(run.check_score, "test"),
        "resume": run.check_resume,
    }  # fmt: skip
    causes: dict[str, str] = {}
    for name, check in checks.items():
        try:
            outcome = Check(name, True, check())
        except (ValueError, TypeError, OSError, RuntimeError, FloatingPointError) as error:
            cause = causes.setdefault(str(error), name)
            outcome = Check(name, False, str(error) if cause == name else f"as {cause}")
        except Interrupted as stop:
            raise Interrupted("interrupted: verify the run again", stop.signal) from None
        yield outcome


class _Run:
    def __init__(self, folder: Path, steps: int, progress: bool) -> None:
        self.folder, self.steps, self.progress = folder, steps, progress
        if Ranks.current().size > 1 or threading.current_thread() is not threading.main_thread():
            raise runs.RunError("a run is verified in one process, and in its main thread")
        if not (folder / runs.RESULT).exists():
            runs.load_run(folder)
            failed: Any = runs.read_outcome(folder)  # raises if there is none
            raise runs.RunError(f"{folder} failed: {failed.reason}; expected a finished run")

    @cached_property
    def result(self) -> dict[str, Any]:
        return read_record(self.folder / runs.RESULT, unsummed=runs.OLD_RESULT)

    @cached_property
    def resolved(self) -> tuple[Config, DataSplits]:
        config = runs.with_parts(runs.load_run(self.folder), self.result.get("accumulate"))
        return runs.resolve(config, config.train.seeds[0])

    @cached_property
    def model(self) -> nn.Module:
        model = runs.build(self.resolved[0])
        load_weights(model, self.folder / BEST)
        return model

    def check_files(self) -> str:
        problems: list[str] = []
        for name, sha256 in self.result["sha256"].items():
            try:
                check_sum(self.folder / name, sha256)
            except (ValueError, OSError) as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return f"{', '.join(self.result['sha256'])} have the sums of {runs.RESULT}"

    def check_model(self) -> str:
        number, recorded = count_parameters(self.model), self.result["parameters"]
        if number != recorded:
            raise ValueError(f"{number:,} parameters, recorded {recorded:,}: its code has changed")
        return f"{self.result['name']} takes its weights; {number:,} parameters, as recorded"

    def check_data(self) -> str:
        recorded = self.result.get("data_sha256", {})
        sums = {split: fingerprint(getattr(self.resolved[1], split)) for split in recorded}
        if changed := [split for split in sums if sums[split] != recorded[split]]:
            raise ValueError(f"{', '.join(changed)}: other images or labels than in training")
        return f"{', '.join(sums)} as in training" if sums else "not recorded by that version"

    def check_score(self, split: str) -> str:
        config, splits = self.resolved
        if split == "test" and not config.train.test:
            return "not scored, by [train] test = false"
        score = evaluate_model(self.model, getattr(splits, split), **config.evaluation())
        loss, accuracy = self.result[f"{split}_loss"], self.result[f"{split}_accuracy"]
        text = f"accuracy {score.accuracy:.2%}, cross entropy {score.loss:.4f} nats"
        file, others = self.folder / runs.ANSWERS, 0
        if split == "test" and file.exists():
            others = int((np.load(file) != score.answers).sum())
            text += f", {others} other answers" if others else ""
        if (score.loss, score.accuracy, others) == (loss, accuracy, 0):
            return f"{text}, as recorded, to the bit"
        changes = environment_diff(self.folder / runs.ENVIRONMENT, config.train)
        where = "; ".join(changes) or "in the recorded environment"
        text = f"{text}, recorded {accuracy:.2%}, {loss:.4f} ({where})"
        difference = abs(score.loss - loss) / max(abs(loss), 1e-9)
        if score.accuracy != accuracy or others > _OTHERS or not difference < _ROUNDING:
            raise ValueError(f"more than rounding, {difference:.1e} of the loss: {text}")
        return f"rounded otherwise, by {difference:.1e} of the loss: {text}"

    def check_resume(self) -> str:
        taken = count(1)

        def stop(*_: object) -> None:
            if next(taken) == last:
                signal.raise_signal(signal.SIGUSR1)

        with TemporaryDirectory(prefix="neuroconv-verify-") as folder:
            whole = self._train(Path(folder, "whole"))
            steps = whole[0]
            last = SystemRandom().randint(1, max(1, steps - 2))  # one is left after the next
            hook = register_optimizer_step_post_hook(stop)
            try:
                self._train(Path(folder, "interrupted"))
                raise ValueError(f"SIGUSR1 in step {last} did not end the training")
            except Interrupted as interruption:
                if interruption.signal != signal.SIGUSR1:
                    raise
            finally:
                hook.remove()
            text = f"{steps} steps, interrupted after SIGUSR1 in step {last} and resumed"
            if self._train(Path(folder, "interrupted")) == whole:
                return f"{text}: weights and history as without, to the bit"
            repeats = self._train(Path(folder, "repeated")) == whole
        cause = (
            "checkpoints lack a state of the model or the data: make it a buffer" if repeats else
            "as without interruption: model, data or device draw numbers that no seed decides"
        )  # fmt: skip
        raise ValueError(f"{text}: other weights or history; {cause}")

    def _train(self, folder: Path) -> tuple[int, list[Any], bytes, bytes]:
        """Trains the first steps, or their rest: returns their number, history and weights."""
        config, splits = self.resolved
        steps = min(self.steps, config.train.max_steps or self.steps)
        few = range(min(len(splits.val), 3 * config.train.batch_size))
        trained = train(
            runs.build(config), splits.train, Subset(splits.val, few), run_dir=folder, resume=True,
            seed=config.train.seeds[0], workers=config.data.workers, progress=self.progress,
            **asdict(replace(config.train, max_steps=steps)),
        )  # fmt: skip
        for record in trained.history:
            del record["seconds"], record["images_per_second"]
        best, last = ((folder / file).read_bytes() for file in (BEST, LAST))
        return trained.steps, trained.history, best, last
