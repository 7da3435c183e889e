"""The energy of a run: an estimate from published energies of single operations.

Arithmetic and main memory only: a real machine takes more, often several times more. How many bytes
reach main memory depends on its caches: the lowest estimate charges the compulsory ones alone, the
highest all that operators move. The published values were checked in reproductions of the figure
and the table named, not in the originals.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroconv.core.arguments import NonNegative, Share, checked
from neuroconv.core.checks import check_choice
from neuroconv.references import Source

PICO = 1e-12
_WORD_BYTES = 8  # the sources give the energy of an access of 64 bits

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Node:
    """Energies of single operations in one technology, in picojoules; see `energy.toml`."""

    name: str
    multiply_pj: float
    add_pj: float
    dram_pj: Range
    arithmetic_source: Source
    memory_source: Source

    @property
    def mac_pj(self) -> float:
        return self.multiply_pj + self.add_pj


def _read(name: str, table: dict[str, Any]) -> Node:
    sources = {key: Source.parse(text) for key, text in table.items() if "source" in key}
    return Node(name=name, **table | sources | {"dram_pj": tuple(table["dram_pj"])})


_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
NODES: Mapping[str, Node] = {name: _read(name, table) for name, table in _TABLES.items()}
DEFAULT_NODE = "7nm-fp32-hbm2"


@dataclass(frozen=True)
class Energy:
    """An estimate of a run's energy; see `estimate_energy`. Ranges are (lowest, highest).

    Attributes:
        accumulates: additions that stand for a multiply-add with a spike.
        bytes, compulsory_bytes: charged in the highest and in the lowest estimate.
        arithmetic_joules: a multiply-add is a multiplication and an addition; the other FLOPs are
            all of the cheaper of the two in the lowest, of the dearer in the highest.
    """

    node: Node
    mac: float
    accumulates: float
    other_flop: float
    bytes: float
    compulsory_bytes: float
    arithmetic_joules: Range
    memory_joules: Range

    @property
    def total_joules(self) -> Range:
        low = self.arithmetic_joules[0] + self.memory_joules[0]
        return low, self.arithmetic_joules[1] + self.memory_joules[1]

    @property
    def source(self) -> str:
        return f"arithmetic: {self.node.arithmetic_source}. Memory: {self.node.memory_source}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, units in the keys, with the sources and their addresses."""
        parts = {
            "arithmetic": self.arithmetic_joules,
            "memory": self.memory_joules,
            "total": self.total_joules,
        }
        urls = (*self.node.arithmetic_source.urls, *self.node.memory_source.urls)
        return {
            "node": self.node.name,
            "mac": self.mac,
            "accumulates": self.accumulates,
            "other_flop": self.other_flop,
            "moved_bytes": self.bytes,
            "compulsory_bytes": self.compulsory_bytes,
            **{f"{part}_lowest_joules": low for part, (low, _) in parts.items()},
            **{f"{part}_highest_joules": high for part, (_, high) in parts.items()},
            "source": self.source,
            "urls": list(dict.fromkeys(urls)),
        }


@checked
def estimate_energy(
    mac: NonNegative = 0,
    other_flop: NonNegative = 0,
    moved_bytes: NonNegative = 0,
    node: str = DEFAULT_NODE,
    *,
    compulsory_bytes: NonNegative | None = None,
    synaptic_mac: NonNegative = 0,
    active_share: Share = 0,
) -> Energy:
    """Estimates the energy of a run: dense, or event-driven, where a silent axon costs nothing.

    In an event-driven run a synaptic multiply-add becomes an accumulate: the weight of an active
    axon is added, once for each step in which it fires. A finer rate, or a grey value, takes more
    spikes: the figure is a lower bound. The rest stays dense; weights of silent axons are read too.

    Args:
        mac: multiply-adds, each executed.
        other_flop: FLOPs of everything but multiply-adds.
        moved_bytes: to and from memory, by all operators: main memory's in the highest estimate.
        compulsory_bytes: of these, what no cache can spare: main memory's in the lowest estimate.
            None: all of them.
        node: a key of `NODES`.
        synaptic_mac: of an event-driven run, multiply-adds beside `mac` with the activity of an
            axon: of synapses, and of dendrites that form one linear map with them.
        active_share: of those axons and steps, in [0, 1]; see `neuroconv.flops.machine.firing`.

    Raises:
        ValueError: a negative number, more compulsory bytes than moved ones, a share beyond [0, 1],
            or an unknown node.
    """
    compulsory = moved_bytes if compulsory_bytes is None else compulsory_bytes
    if compulsory > moved_bytes:
        raise ValueError(f"compulsory_bytes={compulsory!r}; expected at most {moved_bytes=}")
    check_choice("node", node, tuple(NODES))
    energies = NODES[node]
    accumulates = synaptic_mac * active_share
    certain = mac * energies.mac_pj + accumulates * energies.add_pj
    cheap, dear = sorted((energies.add_pj, energies.multiply_pj))
    arithmetic = PICO * (certain + other_flop * cheap), PICO * (certain + other_flop * dear)
    low, high = (PICO * pj / _WORD_BYTES for pj in energies.dram_pj)
    memory = compulsory * low, moved_bytes * high
    return Energy(
        energies, mac, accumulates, other_flop, moved_bytes, compulsory, arithmetic, memory
    )
