"""Information builds up: the read-out at a step, and the rule that fixes the noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroconv.neurons.state import REST
from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    return loaded(EXPERIMENTS / "build_up" / "run.py")


def test_a_read_out_at_a_step_is_that_of_a_window_and_of_the_stream(script) -> None:
    torch.manual_seed(0)
    network = script.build((1, 8, 8), "streaming", 8)
    frames = torch.rand(6, 1, 8, 8, 8).round()
    network(frames)  # statistics of the norms
    network = network.double().eval()
    frames = frames.double()
    with torch.inference_mode():
        every = network(frames)
        states = [REST] * len(network.network.units)
        for step in range(8):
            window = network(frames[:, :, : step + 1])[:, -1]
            maps = frames[:, :, step : step + 1]
            for number, layer in enumerate(network.network.units):
                maps, states[number] = layer.stream(maps, states[number])
            streamed = network.network.forward_head(maps[:, :, 0])
            assert torch.allclose(every[:, step], window, atol=1e-12)
            assert torch.allclose(every[:, step], streamed, atol=1e-12)


def test_still_neurons_receive_the_mean_frame_at_every_step(script) -> None:
    torch.manual_seed(0)
    network = script.build((1, 8, 8), "still", 5).eval()
    frames = torch.rand(4, 1, 5, 8, 8).round()
    mean = frames.sum(2, keepdim=True).div(5).repeat(1, 1, 5, 1, 1)
    with torch.inference_mode():
        assert torch.allclose(network(frames), network.network(mean))
        assert torch.allclose(network(frames), network(frames.flip(2)))
        assert not torch.allclose(network(frames), network.network(frames))


def test_the_rate_of_events_halves_what_a_line_tells(script) -> None:
    size = script.SIZES["quick"]
    stills = script.stills("digits", None)
    clean = script.ridge_accuracy(stills.train, stills.val) - 0.1
    shares = {}
    for power in (1, 2, 3, 4, 5):
        rated = replace(size, event_rate=2 ** (-power / 2))
        parts = [script.noisy(rated, part, 1, 0) for part in ("train", "val")]
        shares[power] = (script.ridge_accuracy(*parts) - 0.1) / clean
    chosen = min(shares, key=lambda power: abs(shares[power] - 0.5))
    assert size.event_rate == pytest.approx(2 ** (-chosen / 2))
    assert np.all(np.diff([*shares.values()]) < 0)
