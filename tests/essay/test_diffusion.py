"""Diffusion: simulation and bound against closed forms, Euler's scheme against finer ones."""

from pathlib import Path

import torch

from neuroconv.layers import Cable
from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "diffusion"
cables = loaded(FOLDER / "cables.py")
SITES, STEPS, BRANCHES = cables.SITES, cables.STEPS, cables.BRANCHES


def test_the_simulated_cable_has_the_green_function_of_an_infinite_one() -> None:
    charge = torch.zeros(1, STEPS, SITES, dtype=torch.float64)
    charge[0, 0, 4] = 1
    true = Cable(180, 15, cables.SITE_UM, cables.STEP_MS)
    errors = []
    for parts in (5, 15):
        recorded = cables.simulate(charge, 180, 15, parts)[0]
        inside = (torch.arange(1000) + 0.5) / 1000 - 0.5  # points of a site, in sites
        distance = (torch.arange(SITES) - 4)[:, None] + inside
        lag = (torch.arange(STEPS) + 0.5)[:, None, None] * cables.STEP_MS
        shares = true.green(distance * cables.SITE_UM, lag).mean(2) * cables.SITE_UM
        errors.append(float((recorded - shares).abs().max()))
    assert errors[1] < 5e-3
    assert errors[1] < errors[0] / 2  # it is the grid's
    taps = true.taps(BRANCHES, STEPS).flip(0)[:, SITES - 1 - 4 : BRANCHES - 4]
    torch.testing.assert_close(recorded, taps, rtol=0, atol=5e-3)


def test_filters_convolve_as_the_simulation_does() -> None:
    charge = cables.draw_charge(3, torch.Generator().manual_seed(0))
    taps = cables.cable(*torch.tensor([[180.0], [15.0]], dtype=torch.float64))[0]
    potential = cables.simulate(charge, 180, 15, 9).flatten()
    torch.testing.assert_close(cables.windows(charge) @ taps, potential, rtol=0, atol=1e-2)


def test_eulers_scheme_converges_to_the_cable_and_explodes_beyond_its_stability() -> None:
    constants = torch.tensor([[180.0], [400.0]], dtype=torch.float64)  # slow: each step is short
    coarse, fine = (cables.euler(*constants, parts=parts) for parts in (1, 5))
    true = cables.cable(*constants)
    assert (fine - true).abs().max() < (coarse - true).abs().max() / 10
    assert cables.euler(torch.tensor([180.0]), torch.tensor([15.0]), parts=5).abs().max() > 1e6


def test_descent_finds_constants_and_filter() -> None:
    charge = cables.draw_charge(12, torch.Generator().manual_seed(1))
    seen = cables.windows(charge)
    for model in (cables.cable, cables.euler):
        true = torch.tensor([140.0, 22.0], dtype=torch.float64)
        gram = seen.T @ seen / len(seen)
        cross = gram @ model(*true[:, None])[0][:, None]
        torch.testing.assert_close(
            cables.fit_constants(model, gram, cross, 300)[0], true, rtol=1e-4, atol=0
        )
    taps = cables.fit_filter(gram, cross[:, 0], 500)
    torch.testing.assert_close(seen @ taps, seen @ model(*true[:, None])[0], rtol=0, atol=1e-2)


def test_the_information_is_that_of_differences() -> None:
    seen = cables.windows(cables.draw_charge(3, torch.Generator().manual_seed(2)))
    logs = torch.tensor([150.0, 20.0], dtype=torch.float64).log()
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    responses = [[seen @ cables.cable(*(logs + sign * step).exp()[:, None])[0]
                  for sign in (1, -1)] for step in steps]  # fmt: skip
    slopes = torch.stack([(above - below) / 2e-4 for above, below in responses], 1)
    information = cables.information(logs.exp(), seen)
    torch.testing.assert_close(information, slopes.T @ slopes, rtol=1e-6, atol=0)
