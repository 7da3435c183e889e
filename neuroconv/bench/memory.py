"""The most memory that a call holds at once."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call allocates at most at once, its result included, beside what was there.

    On CUDA by the allocator's own peak. On the CPU by the profiler's record of everything that
    torch's allocator gives and takes back, whichever operator asks for it. What a library allocates
    by itself (a convolution's scratch memory, an FFT's) is not seen there.
    """
    call()  # what is allocated once and for all is there from here on
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        kept = call()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    # Kineto's own messages are no concern of who measures memory.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        kept = call()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        run.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]) for event in events if event["name"] == "[memory]"]
    held = most = 0
    for _, record in sorted(changes, key=lambda change: (change[0], change[1]["Ev Idx"])):
        if record["Device Type"] == 0:  # the CPU
            held += record["Bytes"]
            most = max(most, held)
    return most
