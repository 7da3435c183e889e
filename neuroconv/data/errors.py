"""The error raised for unusable data, and a warning that is given once."""

import functools
import warnings


class DataError(ValueError):
    """Data that is missing, unreadable or inconsistent; the message names the path and the fix."""


warn_once = functools.cache(functools.partial(warnings.warn, stacklevel=2))
