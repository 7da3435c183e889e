"""Poisson dropout as a regulariser: equal survival by simulation, correlation by NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scripts import loaded

FOLDER = Path(__file__).parents[2] / "experiments" / "poisson_dropout"
NETWORK = loaded(FOLDER / "poisson_network.py")


def fires(mode: str, mean_wait: float, window: int, rng: np.random.Generator) -> list[bool]:
    """One neuron's window, step by step: it draws when it has waited."""
    steps: list[bool] = []
    while len(steps) < window:
        wait = int(rng.poisson(mean_wait))
        if mode == "independent":
            steps.append(wait == 0)
        else:
            fired = [True] if mode == "wait" or wait == 0 else []
            steps += [False] * wait + fired
    return steps[:window]


@pytest.mark.parametrize("mode", NETWORK.POISSON)
@pytest.mark.parametrize("survival", [0.25, 0.75])
def test_modes_survive_alike(mode: str, survival: float) -> None:
    rng, mean_wait = np.random.default_rng(0), NETWORK.mean_wait(mode, survival, 5)
    windows = np.array([fires(mode, mean_wait, 5, rng) for _ in range(4000)])
    assert windows.mean() == pytest.approx(survival, abs=0.012)  # over three standard errors
    if mode == "independent":
        assert mean_wait == pytest.approx(-np.log(survival))


@pytest.mark.parametrize(("mode", "variances"), [
    ("wait", (0.13, 0.51, 5.6)), ("independent", (0.2, 0.6, 1.8)),
])  # fmt: skip
def test_a_window_s_mean_varies_as_the_page_says(mode: str, variances: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    for survival, variance in zip((0.5, 0.25, 0.1), variances, strict=True):
        network = NETWORK.Network(1, 1, mode, survival, 5)
        noise = network.noise(torch.ones(50_000, 1, 5)).mean(2)
        assert noise.var().item() == pytest.approx(variance, rel=0.05)


def test_correlation_is_numpys_over_units_that_vary() -> None:
    rates = torch.rand(50, 6).relu()
    rates[:, 2] = 0.5
    table = np.abs(np.corrcoef(rates[:, [0, 1, 3, 4, 5]].double().numpy().T))
    assert NETWORK.mean_correlation(rates) == pytest.approx(table[np.triu_indices(5, 1)].mean())
    assert NETWORK.mean_correlation(rates[:, [0, 0]]) == pytest.approx(1)


def test_gaussian_noise_has_the_variance_of_ordinary_dropout() -> None:
    torch.manual_seed(0)
    noise, rate = NETWORK.GaussianDropout(0.25), torch.ones(20_000, 1, 1)
    assert noise(rate).var().item() == pytest.approx(0.75 / 0.25, rel=0.05)
    assert torch.equal(noise.eval()(rate), rate)
