"""The error raised for unusable data."""


class DataError(ValueError):
    """Data that is missing, unreadable or inconsistent; the message names the path and the fix."""
