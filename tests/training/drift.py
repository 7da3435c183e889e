"""How far two processes drift from one: `python -m tests.training.drift` prints a table."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from tests.training.processes import Processes, train_digits

NETWORKS, OPTIMIZERS = ("granule_convnet", "cerebellum_tiny"), ("sgd", "adamw")
STEPS = 50


class Drift(NamedTuple):
    """Relative differences: the largest in a weight, or a statistic of a norm, over the largest
    number of its tensor; the loss's in validation."""

    weights: float
    loss: float


def drift(two: Processes, network: str, optimizer: str, dtype: torch.dtype) -> Drift:
    """Returns how far two processes are from one after 50 steps of 8 digits.

    Biases start away from zero. With none and no input, a dendrite lies exactly at the kink of its
    rectifier, and there the last bit of a sum decides whether it learns.
    """
    keywords = {
        "network": network, "optimizer": optimizer, "dtype": dtype, "bias": 0.1, "epochs": 1,
        "images": 8 * STEPS, "batch_size": 8,
    }  # fmt: skip
    one, (first, _) = train_digits(**keywords), two.call(train_digits, **keywords)
    assert one["result"]["steps"] == STEPS
    pairs = [(x.double(), first["weights"][name].double()) for name, x in one["weights"].items()]
    weights = max(float((x - y).abs().max() / x.abs().max()) for x, y in pairs if x.any())
    return Drift(weights, abs(first["result"]["val"]["loss"] / one["result"]["val"]["loss"] - 1))


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'':26}{'float64':20}{'float32':20}")
    print(f"{'':26}" + f"{'weights':10}{'loss':10}" * 2)
    with TemporaryDirectory() as folder, Processes(2, Path(folder)) as two:
        for network in NETWORKS:
            for optimizer in OPTIMIZERS:
                apart = [drift(two, network, optimizer, d) for d in (torch.float64, torch.float32)]
                numbers = "".join(f"{x:<10.1e}" for pair in apart for x in pair)
                print(f"{network:18}{optimizer:8}{numbers}", flush=True)


if __name__ == "__main__":
    main()
