"""CUDA graphs: the kernels of a call, recorded once and launched all at once in later calls."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch

Result = TypeVar("Result")
_WARM_UP = 3  # calls in which libraries, compiled kernels and caches come to rest


class CaptureError(RuntimeError):
    """What keeps a call from being recorded as a CUDA graph."""


def record(call: Callable[[], Result], device: torch.device) -> Callable[[], Result]:
    """Returns a function that does what a call does, on the same tensors, as one CUDA graph.

    The call is made a few times first. Each replay draws other numbers, and overwrites the result
    of the one before. On other devices than CUDA, which have no graphs, the function is the call.
    A CaptureError says why a call cannot be recorded, such as that it waits for the device.
    """
    if device.type != "cuda":
        for _ in range(_WARM_UP):
            call()
        return call
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    current = torch.cuda.current_stream(device)
    with torch.cuda.device(device), torch.cuda.stream(current):  # which a failed capture changes
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                call()
        try:
            # It waits for the stream. Threads that load data may use the device meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = call()
        except Exception as error:
            cause = error.__context__ or error  # the end of a failed capture raises another one
            reason = str(cause).strip().partition("\n")[0]
            raise CaptureError(f"{type(cause).__name__}: {reason}") from cause

    @wraps(call)  # which also keeps the tensors of the call alive
    def replay() -> Result:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay
