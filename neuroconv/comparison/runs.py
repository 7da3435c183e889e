"""The runs of a comparison: finished ones are read, interrupted ones resumed, others trained."""

import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from neuroconv.core.arguments import Size, as_argument
from neuroconv.core.text import Terminal
from neuroconv.data.datasets import data_kept
from neuroconv.training import (
    Config,
    FailedRun,
    RunError,
    RunFailed,
    RunResult,
    read_outcome,
    resume,
)
from neuroconv.training.lock import locked
from neuroconv.training.runs import CONFIG, RESULT, load_run, new_run
from neuroconv.training.signals import StopSignal
from neuroconv.training.state import FAILURE, METRICS

Outcome = RunResult | FailedRun
_STAYS = ExitStack()  # of a process of the pool


def train_runs(plan: Sequence[Config], *, progress: bool = True, jobs: int = 1) -> list[Outcome]:
    """Returns the outcomes of resolved configurations, which `jobs` processes train at a time.

    Finished runs of equal configuration in the output folders are read, interrupted ones resumed.

    Raises:
        RunError: a run is damaged, or another process writes it.
    """
    jobs = as_argument("jobs", jobs, Size)
    # Interrupted runs first: one that cannot go on, or that another process writes, is named now.
    unfinished = [isinstance(saved_run(config), Path) for config in plan]
    order = sorted(range(len(plan)), key=lambda number: not unfinished[number])
    outcomes: dict[int, Outcome] = {}
    if jobs == 1:
        for number in order:
            outcomes[number] = _run(plan[number], progress)
        return [outcomes[number] for number in range(len(plan))]
    console, before = Terminal(stderr=True, quiet=not progress), {*active_children()}
    stop = StopSignal("ends when the runs have saved their states")
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (jobs,))
    with stop, pool:
        numbers = {pool.submit(_run, plan[number], False): number for number in order}
        pending = {*numbers}
        try:
            while pending and not stop.number:
                done, pending = wait(pending, 1.0, FIRST_COMPLETED)
                for future in done:
                    run = outcomes[numbers[future]] = future.result()
                    console.out(f"{len(outcomes)} of {len(plan)} runs: {run.run_dir.name}")
        finally:
            if pending:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in {*active_children()} - before:
                    child.terminate()  # by SIGTERM, on which its run saves its state
    return [outcomes[number] for number in range(len(plan))]


def _begin(jobs: int) -> None:
    """Begins a process: with its share of the threads, and data that stay for the next run."""
    _STAYS.enter_context(data_kept())
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def _run(config: Config, progress: bool) -> Outcome:
    """Reads or resumes the run of a resolved configuration, or trains it if there is none."""
    with locked(Path(config.train.output), wait=True):  # of two comparisons, one begins the run
        saved = saved_run(config) or new_run(config)
    if not isinstance(saved, Path):
        return saved
    try:
        result = resume(saved, progress=progress)
    except RunFailed:
        return read_outcome(saved)
    return _run(config, progress) if result.resumed_with_changes else result


def saved_run(config: Config) -> RunResult | FailedRun | Path | None:
    """Returns the outcome of a configuration's run, or its folder if it has none yet."""
    name, (seed,) = config.model["name"], config.train.seeds
    for folder in sorted(Path(config.train.output).glob(f"{name}-*-seed{seed}*")):
        if not ((folder / CONFIG).exists() or (folder / METRICS).exists()):
            continue  # a run that another process begins at this moment
        try:
            ended = (folder / RESULT).exists() or (folder / FAILURE).exists()
            outcome = read_outcome(folder) if ended else folder  # which checks its configuration
            if load_run(folder).described() != config.described():
                continue
        except (ValueError, OSError) as error:
            raise RunError(
                f"{folder}: {error}: move or delete it, or compare with another --train.output"
            ) from error
        changes = isinstance(outcome, RunResult) and outcome.resumed_with_changes
        if not changes:
            return outcome
        lines = "; ".join(changes)
        warnings.warn(f"{folder}: resumed with changes ({lines}): not counted", stacklevel=2)
    return None
