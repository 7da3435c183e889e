"""The power of the machine that measures: as it reports it, else an assumption."""

import math
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from neuroconv.brain import Quantity
from neuroconv.references import Source

CORE_POWER = Quantity(
    name="machine.power_per_core",
    value=400 / 96,
    unit="W",
    source=Source(
        "chosen",
        "for each core that computes, one for each of `machine.threads`: 400 W over 96 cores, the "
        "thermal design power reported of the AMD EPYC 9655",
        "tweaktown.com, 25 March 2024, before its launch: not of the processor that measures, and "
        "without memory, fans or cooling",
    ),
)
POWERCAP = Path("/sys/class/powercap")
LOAD_S = 1.0  # a GPU reports the mean over up to a second


class PowerMeter:
    """The power that a device draws while it computes.

    A GPU reports its board's power, or else its limit; a processor the energy of its packages,
    where the system lets us read it (Linux, powercap). Neither includes the rest of the machine.
    Where nothing can be read, the power is assumed: `CORE_POWER` for each thread.

    Args:
        device: "cpu" or "cuda".
        watts: from the user, instead.

    Raises:
        ValueError: watts that are not above 0.
    """

    def __init__(self, device: str, watts: float | None = None) -> None:
        if watts is not None and not (0 < watts < math.inf):
            raise ValueError(f"watts={watts!r}; expected a number above 0")
        self.device, self.watts = torch.device(device), watts

    def read(self, call: Callable[[], object]) -> Quantity:
        """Returns watts, while the call runs repeatedly for a second where they are measured.

        Raises:
            ValueError: a GPU that reports nothing.
        """
        if self.watts is not None:
            return _power(self.watts, Source("user", "set for `machine.power`"))
        if self.device.type == "cuda":
            _keep_busy(call)
            with ThreadPoolExecutor(1) as reader:  # beside the updates, which go on meanwhile
                reading = reader.submit(nvidia_smi, self.device)
                _keep_busy(call, lambda: not reading.done())
            watts, what = reading.result()
            name = torch.cuda.get_device_name(self.device)
            how = f"measured here: `{what}` that the {name} reports while updates go on"
            if what == "power.limit":
                how = f"`{what}` of the {name}, which does not report what it draws"
            return _power(watts, Source("derived", how, "without the machine around it"))
        before = _microjoules()
        if before is None:
            threads = torch.get_num_threads()
            how = f"`{CORE_POWER.name}` x {threads} of `machine.threads`"
            return _power(CORE_POWER.value * threads, Source("derived", how, "an assumption"))
        seconds = _keep_busy(call)
        # A counter that wrapped around in between is lower than before.
        joules = sum(
            (end - start if end >= start else end - start + wraps) / 1e6
            for (start, wraps), (end, _) in zip(before, _microjoules() or (), strict=True)
        )
        how = "measured here: `energy_uj` of the processor's packages over a second of updates"
        return _power(joules / seconds, Source("derived", how, "with all else that ran on them"))


def _power(watts: float, source: Source) -> Quantity:
    return Quantity(name="machine.power", value=watts, unit="W", source=source)


def _keep_busy(call: Callable[[], object], is_waiting: Callable[[], bool] | None = None) -> float:
    """Runs the call repeatedly for a second, or as long as something waits; returns the seconds."""
    begin = time.perf_counter()
    while is_waiting() if is_waiting else time.perf_counter() - begin < LOAD_S:
        call()
    return time.perf_counter() - begin


def _microjoules() -> list[tuple[int, int]] | None:
    """Returns each package's counter and where it wraps around; None if nothing can be read."""
    packages = sorted(POWERCAP.glob("intel-rapl:[0-9]"))  # which AMD's driver fills too
    try:
        return [
            (int((zone / "energy_uj").read_text()), int((zone / "max_energy_range_uj").read_text()))
            for zone in packages
        ] or None
    except (OSError, ValueError):  # the counters are often the administrator's alone
        return None


def nvidia_smi(device: torch.device) -> tuple[float, str]:
    """Returns the watts of a GPU, and whether they are "power.draw" or "power.limit"."""
    uuid, name = torch.cuda.get_device_properties(device).uuid, torch.cuda.get_device_name(device)
    fields = ("power.draw", "power.limit")
    command = [
        "nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"the power of {name} cannot be read ({error}); expected nvidia-smi, or --watts"
        ) from None
    for field, word in zip(fields, done.stdout.split(","), strict=True):
        try:
            return float(word), field
        except ValueError:  # "[N/A]"
            continue
    raise ValueError(f"{name} reports no power, only {done.stdout.strip()!r}; expected --watts")
