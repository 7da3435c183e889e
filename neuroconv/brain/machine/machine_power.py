"""The power of the machine that measures: as it reports it, else an assumption."""

import math
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from neuroconv.brain.quantity import Quantity
from neuroconv.flops.machine.timing import timed_device
from neuroconv.references import Source

NAME = "machine.power"
THREADS = "machine.threads"
CORE_POWER = Quantity(
    name="machine.power_per_core",
    value=400 / 96,
    unit="W",
    source=Source(
        "chosen",
        f"for each core that computes, one for each of `{THREADS}`: 400 W over 96 cores, the "
        "thermal design power reported of the AMD EPYC 9655",
        "tweaktown.com, 25 March 2024, before its launch: not of the processor that measures, and "
        "without memory, fans or cooling",
    ),
)
POWERCAP = Path("/sys/class/powercap")
_LOAD_S = 1.0  # a GPU reports the mean over up to a second


class PowerMeter:
    """The power that a device draws while it computes.

    A GPU reports its board's power, or else its limit; a processor the energy of its packages,
    where the system lets us read it (Linux, powercap). Neither includes the rest of the machine.
    Where nothing can be read, the power is assumed: `CORE_POWER` for each thread.

    Args:
        device: "cpu" or "cuda".
        given: watts, from the user, instead.

    Raises:
        ValueError: watts that are not above 0, a device that cannot be timed or is missing.
    """

    def __init__(self, device: str, given: float | None = None) -> None:
        self.device = timed_device(device)
        if given is not None and not (0 < given < math.inf):
            raise ValueError(f"watts={given!r}; expected a number above 0")
        self.given = given

    def read(self, call: Callable[[], object]) -> Quantity:
        """Returns watts, while the call runs repeatedly for a second where they are measured.

        Raises:
            ValueError: a GPU that reports nothing.
        """
        if self.given is not None:
            return _power(self.given, Source("user", f"set for `{NAME}`"))
        if self.device.type == "cuda":
            return self._of_gpu(call)
        before = _microjoules()
        if before is None:
            threads = torch.get_num_threads()
            how = f"`{CORE_POWER.name}` x {threads} of `{THREADS}`"
            return _power(CORE_POWER.value * threads, Source("derived", how, "an assumption"))
        seconds = _keep_busy(call)
        after = _microjoules()
        assert after is not None
        joules = sum(_risen(*pair) for pair in zip(before, after, strict=True)) / 1e6
        how = "measured here: `energy_uj` of the processor's packages over a second of updates"
        return _power(joules / seconds, Source("derived", how, "with all else that ran on them"))

    def _of_gpu(self, call: Callable[[], object]) -> Quantity:
        _keep_busy(call)  # what was launched still runs while the power is read
        watts, what = _nvidia_smi(self.device)
        torch.cuda.synchronize(self.device)
        name = torch.cuda.get_device_name(self.device)
        how = f"measured here: `{what}` that the {name} reports after a second of updates"
        if what == "power.limit":
            how = f"`{what}` of the {name}, which does not report what it draws"
        return _power(watts, Source("derived", how, "without the machine around it"))


def _power(watts: float, source: Source) -> Quantity:
    return Quantity(name=NAME, value=watts, unit="W", source=source)


def _keep_busy(call: Callable[[], object]) -> float:
    """Runs the call repeatedly for a second or longer; returns the seconds."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < _LOAD_S:
        call()
    return time.perf_counter() - begin


def _packages() -> Iterator[Path]:
    """Yields the zones of processor packages: intel-rapl:0, which AMD's driver fills too."""
    zones = sorted(POWERCAP.glob("intel-rapl:*")) if POWERCAP.is_dir() else []
    yield from (zone for zone in zones if zone.name.count(":") == 1)


def _microjoules() -> list[tuple[int, int]] | None:
    """Returns each package's counter and where it wraps around; None if nothing can be read."""
    try:
        files = ("energy_uj", "max_energy_range_uj")
        zones = [tuple(int((zone / name).read_text()) for name in files) for zone in _packages()]
    except (OSError, ValueError):  # the counters are often the administrator's alone
        return None
    return [(counter, wraps) for counter, wraps in zones] or None


def _risen(before: tuple[int, int], after: tuple[int, int]) -> int:
    risen = after[0] - before[0]
    return risen if risen >= 0 else risen + after[1]


def _nvidia_smi(device: torch.device) -> tuple[float, str]:
    uuid = torch.cuda.get_device_properties(device).uuid
    command = [
        "nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=power.draw,power.limit",
        "--format=csv,noheader,nounits",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"the power of {torch.cuda.get_device_name(device)} cannot be read ({error}); "
            "expected nvidia-smi, or watts given by you"
        ) from None
    for what, word in zip(("power.draw", "power.limit"), done.stdout.split(","), strict=True):
        try:
            return float(word), what
        except ValueError:  # "[N/A]"
            continue
    raise ValueError(
        f"{torch.cuda.get_device_name(device)} reports no power, only {done.stdout.strip()!r}; "
        "expected watts given by you"
    )
