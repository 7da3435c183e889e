"""Memory that processes share, and the amount that is free."""

import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuroconv.data.errors import DataError

_CGROUPS = (  # folder, limit, use, files in the page cache, in version 2 and 1
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Returns zeros in anonymous memory which processes forked later read and write too.

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


def free_memory(root: Path = Path("/")) -> int:
    """Returns the bytes available without swapping, within the limit of a container.

    Args:
        root: the folder with proc and sys in it.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line[:13] == "MemAvailable:")
    except (OSError, StopIteration):  # no Linux: take a half of what is built in
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for group, limit, used, idle in _CGROUPS:
        folder = root / "sys/fs/cgroup" / group
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Files in the page cache count as used, but make way.
            in_use = int((folder / used).read_text()) - int(stat.get(idle, 0))
            free = min(free, max(0, int((folder / limit).read_text()) - in_use))
        except (OSError, ValueError):  # the other version of cgroups, or "max": no limit
            continue
    return free
