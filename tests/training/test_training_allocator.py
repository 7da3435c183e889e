"""Keeping freed memory: a setting of the whole process, so it is tried in one of its own."""

import platform
import subprocess
import sys

import pytest

from neuroconv.training.glibc_malloc import keep_freed_memory

PROGRAM = """
import resource, torch
from neuroconv.training.glibc_malloc import keep_freed_memory
assert keep_freed_memory()
faults = []
for _ in range(12):
    torch.ones(16_000_000).mul_(2)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_block_is_not_faulted_in_again() -> None:
    """64 MB are 15,625 pages of 4 KiB. Eleven more blocks would fault 171,000 times; kept
    memory has a new place or two to find, and then no more."""
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    assert int(printed) < 4 * 15_625


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
