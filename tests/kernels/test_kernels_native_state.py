"""Whether the kernels in C++ run here: their other tests are left out where they do not."""

import os
import shutil

import pytest

from neuroconv.kernels.native import state

_COMPILERS = ("c++", "g++", "clang++")


@pytest.mark.skipif(
    os.environ.get("NEUROCONV_NATIVE") == "0" or not any(map(shutil.which, _COMPILERS)),
    reason="no C++ compiler, or NEUROCONV_NATIVE=0",
)
def test_kernels_are_on_where_there_is_a_compiler() -> None:
    assert state() == "on"
