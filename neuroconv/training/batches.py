"""Checked batches of a map-style data set, on a device."""

import atexit
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._C import _remove_worker_pids
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from neuroconv.data import Frames
from neuroconv.data.items import fetch

_Item = TypeVar("_Item")
Data = Dataset[Any] | DataLoader[Any]
Batch = tuple[Any, Any]  # inputs and targets: tensors, or dictionaries, lists and tuples of tensors
_TARGETS = ("label", "labels", "target", "targets")
_WORKER_OPTIONS = ("multiprocessing_context", "prefetch_factor", "timeout", "worker_init_fn")
_CAUSES = {  # by exit status
    -signal.SIGKILL: ", most likely because memory ran out",
    -signal.SIGBUS: ", most likely because shared memory (/dev/shm) ran out",
    1: " and a message above (a script that spawns workers needs `if __name__ == '__main__':`)",
}


def check_length(data: Data, role: str) -> int:
    """Returns the length of a map-style data set, or of a DataLoader's.

    Raises:
        TypeError: another kind, or a DataLoader whose batches cannot be drawn again on a resume.
        ValueError: it is empty.
    """
    source: Any = data.dataset if isinstance(data, DataLoader) else data
    map_style = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if isinstance(source, IterableDataset) or not map_style:
        raise TypeError(
            f"{role} is a {type(source).__name__}: expected a map-style data set of (input, "
            "target), with __len__ and __getitem__"
        )
    if len(source) == 0:
        raise ValueError(f"{role} is empty: expected at least one (input, target)")
    if isinstance(data, DataLoader):
        sampler: Any = data.sampler
        random = type(sampler) is torch.utils.data.RandomSampler and not sampler.replacement
        sequential = type(sampler) is torch.utils.data.SequentialSampler and role != "train_data"
        plain = type(data.batch_sampler) is torch.utils.data.BatchSampler
        if not ((random or sequential) and plain and len(sampler) == len(source)):
            raise TypeError(
                f"{role} is a DataLoader with batch_size={data.batch_size}, "
                f"{type(sampler).__name__} and {type(data.batch_sampler).__name__}: expected "
                "DataLoader(data, batch_size=N, shuffle=True), since the order is drawn from the "
                "seed, for runs that can be resumed; pass Subset(data, indices) to select or repeat"
            )
    return len(source)


def loader_options(data: Data, batch_size: int | None, workers: int) -> tuple[int | None, int]:
    """Returns a DataLoader's batch size and, unless workers are given, its number of them."""
    if not isinstance(data, DataLoader):
        return batch_size, workers
    if batch_size not in (None, data.batch_size):
        raise ValueError(
            f"batch_size={batch_size}, and a DataLoader with batch_size={data.batch_size}: leave "
            "the argument out, or make them equal"
        )
    return data.batch_size, workers or data.num_workers


def derived_seed(*words: int) -> int:
    """Returns a seed that is a function of integers, such as a run's seed and an epoch."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def epoch_batches(data: Any, size: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Seeds torch from (seed, epoch) alone and returns the epoch's full batches of indices.

    The remainder is left out; data smaller than a batch is one batch.
    """
    torch.manual_seed(derived_seed(seed, epoch))
    layer: Any = data
    while layer is not None:  # a DataLoader's data, a Subset's, a wrapper's
        if hasattr(layer, "set_epoch"):
            layer.set_epoch(epoch)
        layer = getattr(layer, "dataset", None)
    order = torch.randperm(size)
    full = order[: max(1, size // batch_size) * batch_size]
    return [batch.tolist() for batch in full.split(batch_size)]


def load(
    data: Data, batches: Sequence[list[int]], workers: int, device: torch.device,
    seed: tuple[int, int] = (0, 0),
) -> Generator[Batch]:  # fmt: skip
    """Returns an iterator of batches: inputs on the device, targets on the CPU, to be checked.

    `Frames` are encoded on the device, a batch at a time. Images that lie on the device are
    gathered there; others are prepared by the workers or, for CUDA, by a thread one batch ahead.
    Close the iterator, so that an error elsewhere ends the workers at once.

    Random draws of a data set are a function of (seed, epoch, index): see `data.items.fetch`. Of
    torch's default generator the call draws one number, and reading the batches draws none.

    Args:
        seed: (seed, epoch). The default is for evaluation, which always sees the same items.
            `Frames` have a seed and an epoch of their own.
    """
    torch.empty((), dtype=torch.int64).random_()  # what DataLoader drew: dropout depends on it
    return _load(data, batches, workers, device, seed)


def _load(
    data: Any, batches: Sequence[list[int]], workers: int, device: torch.device,
    seed: tuple[int, int],
) -> Generator[Batch]:  # fmt: skip
    collate: Callable[[Any], Any] = _stack
    options: dict[str, Any] = {}
    if isinstance(data, DataLoader):
        options = {name: getattr(data, name) for name in _WORKER_OPTIONS}
        collate = _stack if data.collate_fn is default_collate else data.collate_fn
        data = data.dataset
    frames = data if isinstance(data, Frames) and collate is _stack else None
    prepare = frames.images if frames else partial(_batch, data, seed, collate)
    workers = min(workers, len(batches))  # an epoch that is resumed may be short
    # A cache may lack what an epoch leaves out beside its full batches.
    at_once = len(batches[0]) if batches else 0
    if workers and (frames is None or frames.resident("cpu", at_once) is None):
        options |= {"num_workers": workers, "pin_memory": device.type == "cuda"}
        prepared = _by_workers(prepare, batches, options)
    elif frames is None:
        prepared = (prepare(batch) for batch in batches)
    elif device.type == "cpu" or not frames.threadsafe or frames.resident(device) is not None:
        yield from (frames.batch(batch, device) for batch in batches)
        return
    else:
        prepared = _in_thread(prepare, batches)
    with closing(prepared):
        for (inputs, targets), batch in zip(prepared, batches, strict=True):
            inputs = tree_map(partial(_move, device=device), inputs)
            yield (frames.encode(inputs, batch) if frames else inputs), targets


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":  # MPS would not wait for a copy to end
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _batch(
    data: Any, seed: tuple[int, int], collate: Callable[[Any], Any], indices: list[int]
) -> Batch:
    """Returns the inputs and the targets of a batch, each a tensor or a nest of tensors."""
    batch = pair = fetch(data, indices, *seed, collate)
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if key not in _TARGETS}
        targets = [value for key, value in batch.items() if key in _TARGETS]
        pair = (*(inputs.values() if len(inputs) == 1 else [inputs]), *targets)
    tensors = all(isinstance(leaf, Tensor) for leaf in tree_leaves(pair))
    if not (tensors and isinstance(pair, tuple | list) and len(pair) == 2):
        kinds = tree_map(lambda leaf: type(leaf).__name__, batch)
        raise TypeError(
            f"data[i] must be (input, target), or a dictionary with one of {', '.join(_TARGETS)}, "
            f"of tensors or nested tensors: a batch of {type(data).__name__} is {kinds!s:.200}"
        )
    return pair[0], pair[1]


def _stack(items: list[Any]) -> Any:
    try:
        return default_collate(items)
    except (TypeError, RuntimeError) as error:
        raise type(error)(
            f"items do not form a batch ({error}): return tensors of one shape, as PILToTensor and "
            "Resize of torchvision do, or pass a DataLoader with a collate_fn"
        ) from error


def _by_workers(
    prepare: Callable[[list[int]], Batch], batches: Sequence[list[int]], options: dict[str, Any]
) -> Generator[Batch]:
    """Yields prepare(batch) for each batch, prepared by processes that end with the generator."""
    options["worker_init_fn"] = partial(_begin_work, options.get("worker_init_fn"))
    loader = DataLoader(
        _Prepared(prepare), batch_size=None, sampler=batches, collate_fn=_unchanged,
        generator=torch.Generator(), **options,
    )  # fmt: skip
    try:
        iterator: Any = iter(loader)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise TypeError(
            f"the data set cannot be sent to worker processes ({error}): define its classes and "
            "functions at the top level of a module, without lambda, or use workers = 0"
        ) from error
    # torch would raise in whatever runs when a worker dies, such as a checkpoint; reading it does.
    _remove_worker_pids(id(iterator))
    iterator._worker_pids_set = False
    processes = list(iterator._workers)
    atexit.register(end := partial(_kill, processes))  # Python waits for workers on its exit
    try:
        for prepared in iterator:
            if isinstance(prepared, Exception):
                raise prepared
            yield prepared
    except Exception as error:
        for number, process in enumerate(processes):
            if process.exitcode is not None:
                raise RuntimeError(_cause_of_death(number, process)) from error
        raise
    finally:
        if any(process.is_alive() for process in processes):
            timer = threading.Timer(1.0, end)  # torch waits 5 s for each that hangs in an item
            timer.start()
            iterator._shutdown_workers()
            timer.cancel()
            timer.join()
        end()
        atexit.unregister(end)


def _begin_work(worker_init_fn: Callable[[int], None] | None, number: int) -> None:
    """Leaves signals to the main process, which saves, and then ends its workers."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    if worker_init_fn is not None:
        worker_init_fn(number)


def _kill(processes: list[Any]) -> None:
    for process in processes:
        if process.is_alive():  # SIGTERM is ignored
            process.kill()
            process.join()


def _cause_of_death(number: int, process: Any) -> str:
    code = process.exitcode
    end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return (
        f"data worker {number} (process {process.pid}) {end}{_CAUSES.get(code, '')}: take fewer "
        "workers (0 loads data in the main process) or smaller batches, and resume the run"
    )


class _Prepared(Dataset[Any]):
    """A data set of batches, as workers prepare them.

    An error is returned: raised, a DataLoader would wrap its message in a worker's traceback.
    """

    def __init__(self, prepare: Callable[[list[int]], Batch]) -> None:
        self.prepare = prepare

    def __getitem__(self, batch: list[int]) -> Batch | Exception:
        try:
            return self.prepare(batch)
        except Exception as error:
            error.add_note(f"in a data worker:\n{traceback.format_exc()}")
            with suppress(Exception):
                return pickle.loads(pickle.dumps(error))
            raise  # what cannot be sent, the DataLoader describes


def _unchanged(batch: Any) -> Any:
    return batch


def _in_thread(
    prepare: Callable[[list[int]], _Item], batches: Sequence[list[int]]
) -> Generator[_Item]:
    """Yields prepare(batch) for each batch, prepared while the batch before is in use."""
    with ThreadPoolExecutor(1) as thread:
        futures: Iterable[Any] = (thread.submit(prepare, batch) for batch in batches)
        for future, _ in pairwise(chain(futures, (None,))):
            yield future.result()
