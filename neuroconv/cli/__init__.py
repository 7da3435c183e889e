"""The command line of `neuroconv`, and of `python -m neuroconv`."""

from neuroconv.cli.main import main

__all__ = ["main"]
