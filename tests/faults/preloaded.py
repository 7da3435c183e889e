"""What the server of forks imports, kept out of their collections: these would copy its memory."""

import gc

import tests.faults.jobs  # noqa: F401

gc.collect()
gc.freeze()
