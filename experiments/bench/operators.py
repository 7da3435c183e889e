"""The memory that a call needs, and the time of some of its operators alone."""

import json
import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from internals import OperatorMode
from torch.profiler import ProfilerActivity, profile

TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
CONVOLUTIONS = ("convolution", "convolution_backward")


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Returns the bytes that a call allocates at most at once, its result included.

    On CUDA by the allocator's own peak; on the CPU by the profiler's record of what torch's
    allocator gives and takes back. A library's own scratch memory is not seen there.
    """
    call()  # what is allocated once and for all exists from here on
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = call()
        torch.cuda.synchronize(device)
        del result
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its messages do not concern memory
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        result = call()
    del result
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        run.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]) for event in events if event["name"] == "[memory]"]
    alive = most = 0
    for _, change in sorted(changes, key=lambda item: (item[0], item[1]["Ev Idx"])):
        if change["Device Type"] == 0:  # the CPU
            alive += change["Bytes"]
            most = max(most, alive)
    return most


class _Recorder(OperatorMode):
    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names
        self.calls: list[tuple[Any, Any, dict[str, Any]]] = []

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func.overloadpacket.__name__ in self.names:
            self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)


def operators_alone(
    call: Callable[[], object], names: Collection[str]
) -> Callable[[], list[object]]:
    """Returns a call that runs, on the same tensors, only those operators that `call` runs.

    Their results are kept until all have run.

    Raises:
        ValueError: the call runs none of them.
    """
    with torch.compiler.set_stance("force_eager"), _Recorder(names) as recorder:
        call()
    calls = recorder.calls
    if not calls:
        raise ValueError(f"the call runs none of {', '.join(names)}")

    def again() -> list[object]:
        with torch.no_grad():
            return [func(*args, **kwargs) for func, args, kwargs in calls]

    return again
