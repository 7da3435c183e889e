"""Several devices: the time of a data-parallel step by the number of workers.

The place where measured and projected step times are asked for. Until there is something to ask,
the section says so.
"""

from collections.abc import Iterator

from neuroconv.bench.record import Bench, Row


def scaling(bench: Bench) -> Iterator[Row]:
    """Data-parallel step times, measured where there are devices, projected where not."""
    yield Row("data-parallel training", notes=["nothing measures it yet"])
