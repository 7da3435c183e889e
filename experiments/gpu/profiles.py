"""What `neuroconv profile` and `neuroconv brain --measure` say of the device."""

from collections.abc import Iterator

import torch
from checks import build
from measure import Row, Setup

from neuroconv.brain import default_inputs, measure_real_time
from neuroconv.flops import Profile, profile
from neuroconv.neurons import CELL_CLASSES
from neuroconv.zoo import list_models

_AXONS = 1_000


def profiles(setup: Setup) -> Iterator[Row]:
    """Counts, traffic, time and place under the roofs of every cell and zoo entry."""
    place = setup.device.type
    neurons, batch = (2, 2) if setup.quick else (64, 32)
    for name, kind in CELL_CLASSES.items():
        cells = kind(_AXONS, neurons)
        yield _row(name, profile(
            cells, torch.rand(batch, _AXONS, cells.time_steps), name=name,
            counters=("closed_form", "exact"), device=place, timed=True,
        ))  # fmt: skip
    for name in list_models():
        model, shape, _ = build(name, setup.quick)
        yield _row(name, profile(
            model, torch.rand(batch, *shape), name=name,
            counters=("closed_form", "exact"), device=place, timed=True,
        ))  # fmt: skip


def _row(name: str, counted: Profile) -> Row:
    ok = counted.agree is True
    return {"check": f"profile of {name}", "profile": counted.to_dict(), "ok": ok}


def real_time(setup: Setup) -> Iterator[Row]:
    """Cells in real time under each reading of the estimate, and machines for a brain."""
    seconds = 2.0 if setup.quick else 20.0
    measured = measure_real_time(default_inputs(), setup.device.type, seconds=seconds)
    yield {"real_time": measured.to_dict()}
