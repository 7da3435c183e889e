"""Three generations: what is counted is what the trained network computes, event by event."""

from pathlib import Path

import pytest
import torch

from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    return loaded(EXPERIMENTS / "generations" / "run.py")


@pytest.mark.parametrize("arm", ["spiking", "threshold"])
def test_the_additions_are_those_of_the_events(script, arm: str) -> None:
    size = script.SIZES["test"]
    network, _ = script.fit(size, arm, 1e-2, 7)
    frames = script.columns(size, "test").batch(range(20))[0]
    received: list[tuple[torch.Tensor, int]] = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(
                lambda layer, inputs, _: received.append((inputs[0], layer.out_features))
            )
    with torch.inference_mode():
        logits = network(frames)
    additions = 0
    for values, targets in received:
        for value in values.flatten().tolist():
            additions += targets if value else 0
    driven = script.costs(network, frames)[1]
    assert driven.accumulates == pytest.approx(additions / len(frames))
    assert driven.mac == 0
    folded = script.deployed(network)
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in folded.modules())
    with torch.inference_mode():
        assert torch.equal(folded(frames).argmax(1), logits.argmax(1))


def test_a_threshold_unit_learns_where_it_is_near_its_threshold(script) -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    fires = script.Threshold()(x)
    fires.sum().backward()
    assert fires.tolist() == [0, 0, 0, 1, 1]
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
