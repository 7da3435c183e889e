"""Keeping freed memory: a setting of the whole process, so it is tried in one of its own."""

import platform
import subprocess
import sys

import pytest

from neuroconv.training import glibc_malloc

PROGRAM = """
import resource, runpy, sys
assert runpy.run_path(sys.argv[1])["keep_freed_memory"]()
faults = []
for _ in range(12):
    block = b"x" * 64_000_000
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_block_is_not_faulted_in_again() -> None:
    """64 MB are 15,625 pages of 4 KiB. Eleven more blocks would fault 171,000 times."""
    command = [sys.executable, "-c", PROGRAM, glibc_malloc.__file__]
    assert int(subprocess.check_output(command, text=True)) < 15_625
