"""Poisson dropout against a simulation of its definition."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from neuroconv.layers import PoissonDropout


def simulated(mean_wait: float, mode: str, steps: int, trials: int) -> np.ndarray:
    """Draw K, wait K steps, fire, draw again; or fire at a step if its own draw is zero."""
    rng = np.random.default_rng(7)
    fires = np.zeros((trials, steps))
    for trial in range(trials):
        if mode == "independent":
            fires[trial] = rng.poisson(mean_wait, steps) == 0
            continue
        step = rng.poisson(mean_wait)
        while step < steps:
            fires[trial, step] = 1
            step += 1 + rng.poisson(mean_wait)
    return fires.mean(0)


@pytest.mark.parametrize("mode", ["wait", "independent"])
@pytest.mark.parametrize("mean_wait", [0.1, 0.5, 2.0])
def test_firing_probability_equals_a_simulation(mean_wait: float, mode: Any) -> None:
    trials = 20_000
    stated = np.array(PoissonDropout(mean_wait, mode).firing_probability(6))
    sigma = np.sqrt(stated * (1 - stated) / trials)
    assert (np.abs(simulated(mean_wait, mode, 6, trials) - stated) < 5 * sigma).all()


def test_known_probabilities() -> None:
    wait = PoissonDropout(0.5).firing_probability(60)
    assert wait[0] == pytest.approx(math.exp(-0.5))
    # Fires at 1 if the first wait is one step, or if it fires at 0 and does not wait again.
    assert wait[1] == pytest.approx(0.5 * math.exp(-0.5) + math.exp(-1))
    assert wait[-1] == pytest.approx(2 / 3, abs=1e-9)
    assert PoissonDropout(2.0).firing_probability(100)[-1] == pytest.approx(1 / 3, abs=1e-9)
    independent = PoissonDropout(0.5, "independent").firing_probability(4)
    assert independent == pytest.approx([0.6065306597] * 4)
    assert PoissonDropout(0.0).firing_probability(3) == [1, 1, 1]


@pytest.mark.parametrize("mode", ["wait", "independent"])
@pytest.mark.parametrize("mean_wait", [0.2, 0.5, 1.5])
def test_mean_is_kept_at_every_step(mean_wait: float, mode: Any) -> None:
    layer = PoissonDropout(mean_wait, mode)
    kept = layer(torch.ones(20, 2_000, 6, dtype=torch.float64))
    probability = torch.tensor(layer.firing_probability(6), dtype=torch.float64)
    sigma = torch.sqrt((1 - probability) / probability / 40_000)
    assert ((kept.mean((0, 1)) - 1).abs() < 5 * sigma).all()
    for step in range(6):  # silent, or scaled by the step's own probability
        values = kept[:, :, step].unique()
        torch.testing.assert_close(
            values, torch.stack([values.new_zeros(()), 1 / probability[step]])
        )


def test_waits_have_memory_and_independent_draws_have_none() -> None:
    """The step after a silent first one: a wait of one must have been drawn, or a zero now."""
    e = math.exp(-0.5)
    for mode, joint in (("wait", 0.5 * e), ("independent", (1 - e) * e)):
        kept = PoissonDropout(0.5, mode)(torch.ones(100, 1_000, 2)) > 0  # type: ignore[arg-type]
        seen = (~kept[..., 0] & kept[..., 1]).double().mean().item()
        assert abs(seen - joint) < 5 * math.sqrt(joint * (1 - joint) / 100_000)


@pytest.mark.parametrize("shape", [(3, 400), (3, 400, 5), (3, 4, 5, 6, 7)])
def test_shapes_and_rates_are_kept_or_silenced(shape: tuple[int, ...]) -> None:
    layer = PoissonDropout()
    rate = torch.rand(shape) + 0.5
    kept = layer(rate)
    assert kept.shape == rate.shape
    probability = torch.tensor(layer.firing_probability(shape[2] if len(shape) > 2 else 1))
    probability = probability.view(-1, *[1] * (len(shape) - 3)) if len(shape) > 2 else probability
    fired = kept > 0
    assert 0.4 < fired.double().mean() < 0.9
    torch.testing.assert_close(kept[fired], (rate / probability)[fired])
    if len(shape) == 5:  # each place of a map is a neuron of its own
        assert fired[0, 0, 0].any()
        assert not fired[0, 0, 0].all()


def test_identity_in_eval_and_without_waiting() -> None:
    rate = torch.randn(2, 3, 5)
    assert torch.equal(PoissonDropout(0.5).eval()(rate), rate)
    state = torch.get_rng_state()
    assert torch.equal(PoissonDropout(0.0)(rate), rate)
    assert torch.equal(torch.get_rng_state(), state)


def test_reproducible_under_a_seed() -> None:
    rate, results = torch.ones(4, 50, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(PoissonDropout()(rate))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_gradient_is_the_scaled_mask() -> None:
    rate = torch.rand(2, 30, 5, requires_grad=True)
    kept = PoissonDropout()(rate)
    kept.sum().backward()
    assert rate.grad is not None
    torch.testing.assert_close(rate.grad * rate.detach(), kept.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_type_is_kept(dtype: torch.dtype) -> None:
    assert PoissonDropout()(torch.ones(2, 3, 5, dtype=dtype)).dtype == dtype


def test_long_windows() -> None:
    kept = PoissonDropout()(torch.ones(20, 50, 400))
    assert kept.isfinite().all()
    assert (kept > 0).double().mean().item() == pytest.approx(2 / 3, abs=0.01)


def test_the_longest_wait_is_finite() -> None:
    layer = PoissonDropout(50.0)
    assert min(layer.firing_probability(100)) > 0
    assert layer(torch.ones(10, 50, 100)).isfinite().all()


@pytest.mark.parametrize("mean_wait", [-0.5, math.inf, math.nan, 1e4])
def test_bad_mean_wait(mean_wait: float) -> None:
    with pytest.raises(ValueError, match=f"mean_wait={mean_wait!r}.*expected"):
        PoissonDropout(mean_wait)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="mode='redo' is unknown; expected one of wait, indep"):
        PoissonDropout(0.5, "redo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(7,\); expected \(batch, neurons\[, time_steps\]\)"):
        PoissonDropout()(torch.ones(7))


@pytest.mark.gpu
def test_cuda_keeps_the_mean() -> None:
    layer = PoissonDropout()
    kept = layer(torch.ones(20, 2_000, 6, device="cuda"))
    probability = torch.tensor(layer.firing_probability(6))
    sigma = torch.sqrt((1 - probability) / probability / 40_000)
    assert ((kept.mean((0, 1)).cpu() - 1).abs() < 5 * sigma).all()
