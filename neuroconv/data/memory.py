"""Memory that processes share, and how much of it is free."""

import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuroconv.data.errors import DataError


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros in anonymous memory which processes forked later read and write too.

    Pages take up memory once they are written. Unlike torch's shared tensors it needs no room in
    /dev/shm, of which containers have little.

    Raises:
        DataError: more memory than the system would ever grant.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, max(size, 1))
    except (OSError, OverflowError, ValueError) as error:
        raise DataError(
            f"no memory for {size / 2**30:.1f} GiB of decoded images ({error}): say cache = false"
        ) from error
    return torch.frombuffer(memory, dtype=torch.uint8, count=size).view(dtype).view(shape)


def free_memory() -> int:
    """Bytes that can be had without swapping: of the machine and, in a container, of its limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line[:13] == "MemAvailable:")
    except (OSError, StopIteration):  # no Linux: take a half of what is built in
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
        except (OSError, ValueError):  # another version of cgroups, or "max": no limit
            continue
    return free
