"""The state of a run: all that changes during it, written to and read from its folder."""

import copy
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.files import remove_temporaries, write_text, writing
from neuroconv.training.checkpoint import (
    CheckpointError,
    load_parts,
    load_tensors,
    read_record,
    save_parts,
    save_tensors,
    write_record,
)
from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import Score
from neuroconv.training.sharding import as_parts

CHECKPOINTS, METRICS, FAILURE = "checkpoints", "metrics.jsonl", "failure.json"
BEST, LAST = "best.safetensors", "last.safetensors"
_NONE = Score(math.inf, -1.0, 0)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


@dataclass
class State:
    """A run's model, optimiser and history; rank 0 alone reads and writes.

    A checkpoint is a file of tensors and, written after it, a record that makes it count: with the
    tensors' sum, and the name and sum of the best weights, which are a file of their own. If
    processes hold parts of the model, or might, these are folders, to which each writes its part.

    Attributes:
        readers: the processes that read different parts of a batch.
        spread: whether processes hold parts of the model.
        described: what decides the weights, by name; a resumed run must be of the same.
        keep: the number of checkpoints that stay.
        partial: sums over the steps of an epoch that has not ended, of each process.
        random: the generators' states of each process, from the checkpoint that was loaded.
        changes: differences in spite of which the run was resumed, one line each.
        accumulate: the number of parts of a step that memory asked for.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ranks: Ranks
    device: torch.device
    readers: Ranks
    spread: bool = False
    described: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    keep: int = 2
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: Score = _NONE
    best_weights: dict[str, Any] = field(default_factory=dict)
    partial: list[Any] | None = None
    random: list[dict[str, Tensor]] | None = None
    changes: list[str] = field(default_factory=list)
    accumulate: int = 1
    saved_at: float = field(default_factory=time.monotonic)  # seconds, of the process's clock
    _newest: str = ""  # checkpoint
    _saved: dict[str, str] = field(default_factory=dict)  # checkpoints, and their best weights
    _best_file: tuple[str, Any] = ("", "")  # name and sum, or sums

    def finish_epoch(self, record: dict[str, Any], val: Score, activity: dict[str, Any]) -> None:
        """Adds an epoch to the history, and keeps its weights if they are the best so far."""
        scores = val.record("val")
        self.history.append({**record, **scores, **({"activity": activity} if activity else {})})
        self.partial = None
        if (val.accuracy or 0.0, -val.loss) > (self.best.accuracy or 0.0, -self.best.loss):
            self.best, self.best_epoch = replace(val, answers=None), record["epoch"]
            self.best_weights = copy.deepcopy(self.model.state_dict())
            self._best_file = "", ""

    def save(self, sums: dict[str, Any] | None = None) -> None:
        """Writes a checkpoint, and metrics.jsonl. All processes must call this.

        Within an epoch `sums` are those of this process over its steps.
        """
        if self.folder is not None and self._name != self._newest:
            self.partial = None if sums is None else self.readers.gather(sums)
            random = self.readers.gather(_random_state(self.device))
            parts = self._write_parts(random) if self.spread else None
            self.ranks.first(lambda: self._write(random, parts))
            self._newest = self._name
        self.saved_at = time.monotonic()

    @property
    def _name(self) -> str:
        return f"epoch-{len(self.history):06}-step-{self.step:010}"  # sorted, the last is newest

    def _write_parts(self, random: list[dict[str, Tensor]]) -> dict[str, str]:
        """Writes the folders of tensors; returns the sums of the checkpoint's files."""
        assert self.folder is not None
        folder = self.folder / CHECKPOINTS
        if self.best_weights and not self._best_file[0]:
            name, weights = f"best-{self.best_epoch:04}", as_parts(self.model, self.best_weights)
            self._best_file = name, save_parts(folder / name, weights, self.ranks)
        return save_parts(folder / self._name, self._tensors(random), self.ranks)

    def _write(self, random: list[dict[str, Tensor]], parts: dict[str, str] | None) -> None:
        assert self.folder is not None
        folder = self.folder / CHECKPOINTS
        with writing(folder):
            folder.mkdir(exist_ok=True)
        if parts is None and self.best_weights and not (folder / self._best_file[0]).is_file():
            name = f"best-{self.best_epoch:04}.safetensors"
            self._best_file = name, save_tensors(folder / name, self.best_weights)
        path = folder / f"{self._name}.safetensors"
        sums = save_tensors(path, self._tensors(random)) if parts is None else parts
        best_name, best_sum = self._best_file
        write_record(folder / f"{self._name}.json", {
            "sha256": sums,
            "described": self.described, "changes": self.changes,
            "accumulate": self.accumulate,
            "step": self.step, "history": self.history, "partial": self.partial,
            "best_epoch": self.best_epoch, "best": asdict(self.best) if best_name else None,
            "best_file": best_name, "best_sha256": best_sum,
        })  # fmt: skip
        self._saved[self._name] = best_name
        self._prune(folder)
        write_lines(self.folder / METRICS, self.history)

    def _tensors(self, random: Sequence[dict[str, Tensor]] = ()) -> dict[str, Tensor]:
        """Returns all tensors of a checkpoint, or this process's parts of them."""
        weights = as_parts(self.model, self.model.state_dict())
        tensors, trained = {f"model.{name}": x for name, x in weights.items()}, self._trained()
        for index, values in self.optimizer.state_dict()["state"].items():
            path = trained[index][0]
            tensors |= {
                f"optimizer.{path}.{name}": as_parts(self.model, {path: torch.as_tensor(x)})[path]
                for name, x in values.items() if x is not None
            }  # fmt: skip
        for rank, states in enumerate(random):
            tensors |= {f"random.{rank}.{name}": value for name, value in states.items()}
        return tensors

    def _prune(self, folder: Path) -> None:
        """Removes all but the last checkpoints, and best weights that none of them names."""
        self._saved = dict(sorted(self._saved.items())[-self.keep :])
        names = {f"{name}{ending}" for name in self._saved for ending in (".json", ".safetensors")}
        names |= {*self._saved, *self._saved.values()}  # folders, and best weights
        # Records first: a checkpoint without one does not count.
        for path in sorted([*folder.glob("best-*"), *folder.glob("epoch-*")]):
            if path.name not in names and path.suffix != _DAMAGED:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def fail(self, failure: Mapping[str, Any]) -> None:
        """Marks the run as failed; its checkpoints stay. All processes must call this."""
        if (folder := self.folder) is not None:
            self.ranks.first(lambda: write_record(folder / FAILURE, failure))

    def open(self, resume: bool, force: bool) -> None:
        """Loads, to resume, the folder's newest checkpoint, if it has one.

        Raises:
            CheckpointError: every checkpoint is damaged, or of another model or run.
        """
        if self.folder is None:
            return
        for name, value in self.model.state_dict().items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name} of the model's state_dict is a {type(value).__name__}: expected "
                    "tensors, which checkpoints hold: make it a buffer, or leave out run_dir"
                )
        loaded = self.ranks.first(lambda: self._read(resume))
        if loaded is None:
            return
        path, record, tensors, self.best_weights = loaded
        self._compare(path, record["described"], force)
        if isinstance(record["sha256"], dict) != self.spread:
            raise CheckpointError(
                f"{path}: expected a checkpoint of a run with{'' if self.spread else 'out'} shard "
                "or split: resume it as it was, or train again"
            )
        try:
            if self.spread:
                tensors = self._load_parts(path.with_suffix(""), record["best_file"])
            else:
                self.model.load_state_dict(_below(tensors, "model."))
                self.optimizer.load_state_dict(
                    {**self.optimizer.state_dict(), "state": self._optimizer_state(tensors)}
                )
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} belongs to another model: {error}") from error
        self.step, self.history = record["step"], record["history"]
        self.best_epoch, self.partial = record["best_epoch"], record["partial"]
        self.best = Score(**record["best"]) if record["best"] else _NONE
        self._best_file = record["best_file"], record["best_sha256"]
        self._saved[path.stem], self._newest = record["best_file"], path.stem
        self.changes = [*record["changes"], *self.changes]
        self.accumulate = record["accumulate"]
        if self.partial is not None:  # an epoch begins with numbers of its own
            ranks = range(self.readers.size)
            self.random = [_below(tensors, f"random.{rank}.") for rank in ranks]

    def _read(self, resume: bool) -> tuple[Path, dict[str, Any], Any, Any] | None:
        """Returns the newest sound checkpoint: its path, record, tensors and best weights."""
        assert self.folder is not None
        folder, damaged = self.folder / CHECKPOINTS, list[str]()
        if (old := self.folder / "checkpoint.pt").exists():
            raise CheckpointError(
                f"{old}: written by neuroconv 0.5.0 or older: end the run with that version, or "
                "delete the file to begin it again"
            )
        remove_temporaries(self.folder)
        remove_temporaries(folder)
        paths = sorted(folder.glob("epoch-*.json"))
        while paths:
            path = paths.pop()
            if not resume:
                raise ValueError(f"{path} exists: pass resume=True, or another run_dir")
            try:
                record, best = read_record(path), {}
                ending = ".safetensors" if isinstance(record["sha256"], str) else ""
                tensors = load_tensors(path.with_suffix(ending), record["sha256"])
                if record["best_file"]:
                    best = load_tensors(folder / record["best_file"], record["best_sha256"])
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                warnings.warn(f"{message}; {path.stem} before it is used", stacklevel=2)
            for newer in folder.glob("epoch-*.json"):
                if newer.stem > path.stem:
                    newer.rename(newer.with_suffix(_DAMAGED))
            for older in paths:
                with suppress(CheckpointError):
                    self._saved[older.stem] = read_record(older)["best_file"]
            return path, record, tensors, best
        if damaged:
            raise CheckpointError(
                f"{'; '.join(damaged)}; {self.folder} has no other checkpoint: train again"
            )
        if (self.folder / METRICS).exists():
            warnings.warn(f"{folder}: no checkpoint is left: the run begins again", stacklevel=2)
        return None

    def _compare(self, path: Path, before: dict[str, Any], force: bool) -> None:
        """Raises a CheckpointError for differences between a checkpoint's run and this one."""
        now = self.described
        self.changes = [
            f"{name} = {before.get(name)!r}, now {now.get(name)!r}"
            for name in {**before, **now} if before.get(name) != now.get(name)
        ]  # fmt: skip
        # Any number of processes can load parts: another one is recorded, and no mistake.
        number = "number of processes"
        others = [line for line in self.changes if not (self.spread and line.startswith(number))]
        if others and not force:
            raise CheckpointError(
                "\n    ".join([f"{path} was made by another run:", *others])
                + "\nresume it as it was, or go on in spite of it with --force (force=True)"
            )

    def _load_parts(self, folder: Path, best: str) -> dict[str, Tensor]:
        """Loads model and optimiser in place, and the best weights; returns all tensors."""
        for _, parameter in self._trained():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()  # which makes its state
        self.optimizer.zero_grad()
        tensors = load_parts(folder, self._tensors(), self.ranks)
        if best:
            self.best_weights = copy.deepcopy(self.model.state_dict())
            weights = as_parts(self.model, self.best_weights)
            load_parts(folder.with_name(best), weights, self.ranks)
        return tensors

    def _optimizer_state(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        state: dict[int, dict[str, Tensor]] = {}
        for index, (path, parameter) in enumerate(self._trained()):
            for name, value in _below(tensors, f"optimizer.{path}.").items():
                if value.shape == parameter.shape:  # fused kernels want the parameter's layout
                    layout = torch.empty_like(parameter, dtype=value.dtype, device="cpu")
                    value = layout.copy_(value)
                state.setdefault(index, {})[name] = value
        return state

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """Returns the optimiser's parameters, in its order, with their names in the model."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [(names[p], p) for group in self.optimizer.param_groups for p in group["params"]]

    def sums(self) -> dict[str, Any] | None:
        """Returns this process's sums over an epoch's steps before the loaded checkpoint."""
        partial, ranks = self.partial, self.readers
        if partial is not None and len(partial) == ranks.size:
            return partial[ranks.rank]
        if partial is None or not ranks.leads:  # which takes those of another number of processes
            return None
        totals = {key: sum(s["totals"][key] for s in partial) for key in partial[0]["totals"]}
        return {**partial[0], "totals": totals, "images": sum(s["images"] for s in partial)}

    def restore_random(self) -> None:
        """Sets the generators as they were when the loaded checkpoint was written."""
        states = self.random[self.readers.rank] if self.random else {}
        if "cpu" in states:
            torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.device)
        self.random = None


_DAMAGED = ".damaged"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Returns the state of the generators from which a model draws."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


@contextmanager
def restored(tensors: Callable[[], Iterable[Tensor]]) -> Iterator[None]:
    """Gives tensors their values back after the block, and 0 to those that it adds to them."""
    before = {id(x): x.detach().to("cpu", copy=True) for x in tensors()}  # a GPU may lack room
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor in tensors():
                tensor.copy_(before.get(id(tensor), torch.zeros(())))
