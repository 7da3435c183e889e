"""The number of parts in which a batch fits into the memory of a device."""

import torch

from neuroconv.core.checks import out_of_memory
from neuroconv.training.batches import Data, load
from neuroconv.training.config import TrainConfig
from neuroconv.training.evaluation import in_memory_format
from neuroconv.training.state import State, restored
from neuroconv.training.task import Task


class OutOfMemory(RuntimeError):
    """Memory that does not suffice for a step; the message says what to change."""


def fit_memory(
    state: State, config: TrainConfig, task: Task, data: Data, images: int, least: int
) -> int:
    """Returns the number of parts of a batch with which a step fits; all processes agree on it.

    A step is tried in at least so many parts, and in more while memory runs out. The model, its
    generators and the optimiser are left as they were.

    Raises:
        OutOfMemory: a step of a single input does not fit either.
    """
    ranks, batch_size = state.ranks, config.batch_size
    largest = min(images, batch_size) // ranks.size
    sizes = [n for n in range(1, largest + 1) if batch_size % (n * ranks.size) == 0]
    parts, inputs, reason = 0, 1, "a batch has no smaller parts"
    while parts != least:
        parts = ranks.agree(next((n for n in sizes if n >= least), batch_size + 1))
        if parts > batch_size:
            raise OutOfMemory(
                f"out of memory in a step of {inputs} input{'' if inputs == 1 else 's'} "
                f"({reason}): take a smaller model or image, precision = "
                '"bfloat16", or for populations `checkpoint = true`'
            )
        inputs = -(-min(images, batch_size) // (parts * ranks.size))
        failure = _try_step(state, config, task, data, inputs)
        reason = failure or "in another process"
        least = ranks.agree(parts if failure is None else 2 * parts)
    if state.step and parts != state.accumulate:  # norms over a batch see smaller ones
        state.changes.append(f"accumulate = {state.accumulate}, now {parts}: memory ran out")
    state.accumulate = parts
    return parts


def _try_step(state: State, config: TrainConfig, task: Task, data: Data, inputs: int) -> str | None:
    """Runs forward and backward on some inputs; returns why memory does not suffice, or None."""
    model, device = state.model.train(), state.device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        with restored(model.buffers):
            # What the optimiser will hold, and processes that exchange gradients.
            copies = (0 if state.optimizer.state else 2) + (state.ranks.size > 1)
            reserved = [torch.empty_like(parameter) for parameter in parameters * copies]
            for x, targets in load(data, [list(range(inputs))], 0, device):
                x = in_memory_format(x, config.channels_last)
                task.mean_loss(*task.run(model, x, targets, device, config.precision)).backward()
            del reserved
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return str(error).partition("\n")[0]
    finally:
        for parameter in parameters:
            parameter.grad = None
    return None
