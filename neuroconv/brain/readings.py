"""Readings of the estimate: the structural choices that no interval may blend."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from neuroconv.core.arguments import checked
from neuroconv.kernels.conv.sizes import Mode

Cell = Literal["purkinje", "granule", "pyramidal"]
CEREBELLUM: tuple[Cell, ...] = ("purkinje", "granule")
SIZES = ("synapses", "dendrites", "branches")


@checked
@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the essay's formula.

    An update computes all steps of its "window", or the "last" one alone, while the dendrites
    remember the others. It counts, by `algorithm`, "essay" (synapses x steps x taps), "direct" (a
    convolution, padding zeros included), "executed" (what the package runs, a Fourier transform at
    2.5 n log2 n FLOP, of the filters too), "cached" (the same without the filters' transforms, as
    evaluation runs from the second update on), "stored" (and without those of the past steps, which
    no module stores), or "linear" (a dot product for each output step).

    Raises:
        ValueError: an unknown choice, or choices that do not go together.
    """

    name: str
    title: str = ""
    padding: Mode = "same"
    steps: Literal["window", "last"] = "window"
    clock: Literal["rate", "frame"] = "rate"  # an update for each spike, or for each frame
    algorithm: Literal["essay", "direct", "executed", "cached", "stored", "linear"] = "essay"
    scope: Literal["dendrites", "neuron"] = "dendrites"
    cells: tuple[Cell, ...] = CEREBELLUM
    # Potentials that travel back from the soma: "these may nearly double the complexity".
    passes: Literal["forward", "both"] = "forward"
    # The printed total seems to have been computed with the Purkinje cell's.
    granule_filter: Literal["own", "purkinje"] = "own"

    def __post_init__(self) -> None:
        algorithm, padding, scope = self.algorithm, self.padding, self.scope
        if algorithm in ("essay", "linear") and padding != "same":
            raise ValueError(
                f"padding={padding!r} with algorithm={algorithm!r}, which knows no padding; "
                "expected 'same', or another algorithm, such as 'direct' or 'executed'"
            )
        if algorithm == "linear" and scope == "neuron":
            raise ValueError(
                "scope='neuron' with algorithm='linear': a linear neuron has no further stages; "
                "expected scope='dendrites'"
            )
        if self.granule_filter == "purkinje" and (algorithm, scope) != ("essay", "dendrites"):
            raise ValueError(
                "granule_filter='purkinje' is the essay's arithmetic and no module's; expected "
                "algorithm='essay' and scope='dendrites'"
            )

    @property
    def times(self) -> int:
        """Passes through the neuron, each as expensive as the forward one."""
        return 2 if self.passes == "both" else 1

    @property
    def clock_input(self) -> str:
        return f"{self.clock}_hz"

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the inputs that it depends on."""
        cells = [f"{cell}.{what}" for cell in self.cells for what in ("cells", *SIZES)]
        return (*cells, "time_steps", self.clock_input, "flop_per_mac")

    def borrows(self, cell: str) -> bool:
        """Returns whether the cell's inputs pass through the Purkinje cell's filter."""
        return cell == "granule" and self.granule_filter == "purkinje"


_TABLES = tomllib.loads(Path(__file__).with_name("readings.toml").read_text(encoding="utf-8"))
READINGS: Mapping[str, Reading] = MappingProxyType(
    {name: Reading(name=name, **table) for name, table in _TABLES.items()}
)


def reading_of(name: str | Reading) -> Reading:
    """Returns the reading of a name, and a `Reading` as it is."""
    if isinstance(name, Reading):
        return name
    if name not in READINGS:
        raise ValueError(f"reading {name!r} is unknown; expected one of {', '.join(READINGS)}")
    return READINGS[name]
