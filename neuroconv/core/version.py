"""The version of the package, which it and its runs record."""

__version__ = "0.9.0"
