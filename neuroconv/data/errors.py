"""The error raised for unusable data, and a warning that is given once."""

import functools
import os
import warnings


class DataError(ValueError):
    """Data that is missing, unreadable or inconsistent; the message names the path and the fix."""


@functools.cache
def warn_once(message: str) -> None:
    """Warns, however often the data are read, once and in the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        warnings.warn(message, stacklevel=2)
