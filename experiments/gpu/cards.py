"""Cards and time a step for sheets of full Purkinje cells, on paper: no GPU has run this.

    python experiments/gpu/cards.py

Each card holds an equal part of the cells (split = "neurons"). Its memory is counted on meta
tensors; the time follows from the rates below, one after another, none hidden behind another.
"""

from typing import Any

import torch
from torch import nn

from neuroconv import Purkinje
from neuroconv.training.process_memory import ProcessMemory, process_memory

BATCHES, STEPS, AXONS = (32, 1), 5, 100_000  # the first batch that fits is taken
BOTH_WAYS_S = 0.045 / (64 * 32)  # forward and backward of a cell and sample: assumed, not measured
MEMORY_BYTE_PER_S, LINK_BYTE_PER_S = 4.3e12, 450e9  # of a card, as an H200
UPDATE = 7  # numbers that AdamW reads and writes for each parameter
FILL = 0.9  # share of a card's memory that is used


def memory(batch: int, cells: int, cards: int) -> ProcessMemory:
    """Returns the bytes of a card."""

    def sheet() -> tuple[nn.Module, Any]:
        return Purkinje(AXONS, cells), torch.rand(batch, AXONS, STEPS)

    return process_memory(sheet, cards, "neurons")


def bytes_per_cell(batch: int) -> tuple[float, float]:
    """Returns the bytes of a card for each of its cells, and for each cell of the whole sheet."""
    few, more, wide = (sum(memory(batch, *n)) for n in ((32, 1), (64, 1), (3_200_000, 100_000)))
    of_all = (wide - few) / (3_200_000 - 32)
    return (more - few) / 32 - of_all, of_all


def main() -> None:
    divisors = sorted(2**i * 5**j for i in range(9) for j in range(9))
    costs = {batch: bytes_per_cell(batch) for batch in BATCHES}
    print("| card | cells | batch | cards | cells a card | GB a card | compute s | links s |")
    print("|---|---|---|---|---|---|---|---|")
    for card in (80, 141):
        room = FILL * card * 1e9
        for cells in (10**power for power in range(4, 9)):
            fitting = {
                batch: [n for n in divisors if not cells % n and cells * (own / n + of_all) <= room]
                for batch, (own, of_all) in costs.items()
            }
            batch, (cards, *_) = next((batch, fits) for batch, fits in fitting.items() if fits)
            used = memory(batch, cells, cards)
            assert sum(used) < card * 1e9
            update = UPDATE * used.parameters / MEMORY_BYTE_PER_S
            compute = BOTH_WAYS_S * batch * cells / cards + update
            links = 2 * 4 * batch * STEPS * cells / LINK_BYTE_PER_S  # rates, and their gradient
            print(
                f"| {card} GB | {cells:,} | {batch} | {cards:,} | {cells // cards:,} "
                f"| {sum(used) / 1e9:.0f} | {compute:.3f} | {links:.3f} |"
            )


if __name__ == "__main__":
    main()
