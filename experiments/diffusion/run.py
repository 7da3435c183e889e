"""Recovers a cable's constants, and a free filter, from simulated recordings by gradient descent.

Impulses of charge enter the middle of random sites of a cable, which is simulated with 27
compartments to a site and exactly in time, and whose ends are so far away that nothing comes back
from them. The charge on each site is recorded in the middle of each time step, with white noise
whose standard deviation is a share of the potential's. Each seed draws a cable and its inputs.
From the recordings alone gradient descent on the squared error, which for white noise is the
likelihood's, finds

- the two constants of `Cable`, from many draws of the noise, whose spread is set against the bound
  of Cramer and Rao;
- a free filter, which knows nothing of cables, and one without neighbours, which cannot spread;
- the two constants of Euler's explicit scheme on the filter's own grid, two steps to a time step:
  the wrong model. It is differentiated like the others.

Predictions are judged on new inputs without noise.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from cable_figure import draw, last, root_mean_square
from cables import (
    BRANCHES,
    SITES,
    STEPS,
    cable,
    draw_charge,
    euler,
    fit_constants,
    fit_filter,
    information,
    simulate,
    windows,
)
from torch import Tensor

from neuroconv.comparison import estimate
from neuroconv.essay import Experiment, Interval, Rows

NOISE = 0.1  # the rule's


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    recordings: tuple[int, ...]  # of `STEPS` ms each; the last is the rule's
    noises: tuple[float, ...] = (0.0, 0.05, NOISE, 0.2)
    repeats: int = 32  # draws of the noise
    parts: int = 27  # compartments to a site
    descent: int = 300  # steps; more change the constants by 1e-5; the filter takes 7 times as many
    new: int = 64  # recordings to predict


SIZES = {
    "full": Size(tuple(range(7700, 7716)), (1, 4, 16, 64)),
    "quick": Size((7750, 7751, 7752), (4, 64), (0.0, NOISE)),
    "test": Size((0, 1), (2,), (NOISE,), 3, 3, 20, 2),
}


def conditions(size: Size) -> list[dict[str, Any]]:
    return [
        {"noise": noise, "recordings": n}
        for noise in size.noises
        for n in (size.recordings if noise else size.recordings[-1:])
    ]


def measure(size: Size, *, seed: int, folder: Any, noise: float, recordings: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, generator=generator, dtype=torch.float64)
    truth = torch.stack([120 + 100 * draw[0], 10 + 20 * draw[1]])  # micrometres, ms
    constants = truth.tolist()
    charge, new = draw_charge(recordings, generator), draw_charge(size.new, generator)
    both = simulate(torch.cat([charge, new]), *constants, size.parts)
    seen, potential = windows(charge), both[:recordings].flatten()
    new_seen, new_potential = windows(new), both[recordings:].flatten()
    deviation = noise * potential.std()
    white = torch.randn(len(seen), size.repeats, generator=generator, dtype=torch.float64)
    gram = seen.T @ seen / len(seen)
    cross = seen.T @ (potential[:, None] + deviation * white) / len(seen)

    def explained(taps: Tensor) -> float:
        wrong = (new_potential - new_seen @ taps).square().sum()
        return float(100 - 100 * wrong / new_potential.square().sum())

    fitted = fit_constants(cable, gram, cross, size.descent)
    errors = fitted / truth - 1
    by_euler = fit_constants(euler, gram, cross[:, :4], size.descent)
    alone = torch.arange(STEPS) * BRANCHES + SITES - 1  # the taps without neighbours
    no_neighbours = torch.zeros_like(cross[:, 0])
    no_neighbours[alone] = fit_filter(gram[alone][:, alone], cross[alone, 0], 7 * size.descent)
    sealed = simulate(charge, *constants, size.parts, margin=0).flatten()
    at_ends = fit_constants(cable, gram, (seen.T @ sealed / len(seen))[:, None], size.descent)
    fisher = information(truth, seen)  # times the noise's variance
    values = {
        "samples": len(seen), "truth": truth,
        "bias": 100 * errors.mean(0), "rms": 100 * errors.square().mean(0).sqrt(),
        "bias_of_four": 100 * errors[:4].mean(0),  # the draws that Euler's scheme has
        "euler_bias": 100 * (by_euler / truth - 1).mean(0),
        "sealed_bias": 100 * (at_ends[0] / truth - 1),
        "filter": explained(fit_filter(gram, cross[:, 0], 7 * size.descent)),
        "cable": explained(cable(*fitted[:1].T)[0]),
        "euler": explained(euler(*by_euler[:1].T)[0]),
        "no_neighbours": explained(no_neighbours),
        "euler_true": explained(euler(*truth[:, None])[0]),
        "euler_unstable": explained(euler(*truth[:, None], parts=5)[0]),
    }  # fmt: skip
    if noise:
        bound = torch.linalg.inv(fisher) * deviation**2
        spread = torch.cov(errors.T)
        values["bound"] = 100 * bound.diagonal().sqrt()
        values["efficiency"] = float(torch.trace(torch.linalg.solve(bound, spread)) / 2)
    return values


def quantities(rows: Rows) -> dict[str, Interval]:
    n, quiet = last(rows), min(row["noise"] for row in rows)
    bias = rows.values("bias", noise=NOISE, recordings=n)
    by_euler, by_cable = (
        abs(rows.values(key, noise=NOISE, recordings=n)).max(1)
        for key in ("euler_bias", "bias_of_four")
    )
    return {
        "prediction": Interval.of(estimate(rows.values("filter", noise=quiet, recordings=n))),
        "length": Interval.of(estimate(bias[:, 0])),
        "time": Interval.of(estimate(bias[:, 1])),
        "efficiency": Interval.of(estimate(rows.values("efficiency", noise=NOISE, recordings=n))),
        "euler": Interval.of(estimate(by_euler - by_cable)),
        "euler_predicts": Interval.of(estimate(rows.values("euler", noise=NOISE, recordings=n))),
    }


def mean(values: Any, digits: int = 2) -> str:
    return f"{Interval.of(estimate(values)):.{digits}f}"


def tables(rows: Rows) -> str:
    at = {"noise": NOISE, "recordings": last(rows)}
    models = {
        "two constants of a cable": ("bias", "cable"),
        "the same, recorded from a cable with sealed ends, noise-free": ("sealed_bias", ""),
        "free filter": ("", "filter"),
        "filter without neighbours": ("", "no_neighbours"),
        "Euler's scheme, constants learned": ("euler_bias", "euler"),
        "Euler's scheme, true constants": ("", "euler_true"),
        "the same on a grid five times as fine: beyond its stability": ("", "euler_unstable"),
    }
    lines = [
        f"At {NOISE:.0%} noise, {at['recordings']} recordings:", "",
        "| model | length constant, bias in % | time constant, bias in % | variance explained, % |",
        "|---|---:|---:|---:|",
    ]  # fmt: skip
    for name, (bias, explained) in models.items():
        cells = [mean(rows.values(bias, **at)[:, k]) if bias else "" for k in (0, 1)]
        values = rows.values(explained, **at) if explained else None
        text = "" if values is None else mean(values, 3) if values.min() > -100 else "diverges"
        lines.append(f"| {name} | {' | '.join(cells)} | {text} |")
    lines += [
        "", "Root mean square errors in %, beside the bound of Cramer and Rao:", "",
        "| noise | samples | length constant (bound) | time constant (bound) "
        "| samples for 5 % of both, by the bound | free filter explains, % |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for noise, n in sorted({(row["noise"], row["recordings"]) for row in rows if row["noise"]}):
        at = {"noise": noise, "recordings": n}
        error, bound = (root_mean_square(rows.values(key, **at)) for key in ("rms", "bound"))
        samples = rows.values("samples", **at)[0]
        cells = [f"{e:.2f} ({b:.2f})" for e, b in zip(error, bound, strict=True)]
        lines.append(
            f"| {noise:.0%} | {samples:,} | {' | '.join(cells)} "
            f"| {samples * max(bound / 5) ** 2:.0f} | {mean(rows.values('filter', **at))} |"
        )
    return "\n".join(lines)


EXPERIMENT = Experiment(
    __file__, SIZES, conditions, measure, quantities, partial(draw, noise=NOISE), tables
)

if __name__ == "__main__":
    EXPERIMENT.main()
