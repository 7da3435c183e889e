"""Walks a spike from one axon to the next and writes down what it meets.

    python experiments/spike/walk.py

runs the small cell, draws the pictures beside this file, and fills the blocks of README.md with
the run's shapes, costs and numbers. With --folder the pictures and the page go there instead.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from figures import HIT, KNEE, LAWS, laws, lifted_sites, pictures
from small_cell import (
    AXONS,
    CABLE,
    DENDRITES,
    FOLLOWED,
    INHIBITORY,
    NOW,
    REST,
    SITES,
    SOMA_REST,
    STEP_MS,
    STEPS,
    Walk,
    walk,
)
from torch import Tensor

from neuroconv import profile
from neuroconv.layers import Cost, ReleaseOrWait, SparseSynapses

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- walk: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(value: float) -> str:
    """Formats with two digits after the point, few enough to be equal on every machine."""
    return f"{value:.2f}".replace("-", "\u2212")


def listed(values: Iterable[float]) -> str:
    *most, last = [number(value) for value in values]
    return f"{', '.join(most)} and {last}"


def cost_text(costs: Iterable[Cost]) -> str:
    """Returns what stages cost, in words."""
    costs = tuple(costs)
    macs = sum(sum(cost.macs.values()) for cost in costs)
    flops = sum(cost.pointwise for cost in costs)
    parts = [f"{macs:,} MAC"] * (macs > 0) + [f"{flops:,} pointwise FLOP"] * (flops > 0)
    return " and ".join(parts) or "nothing"


def passage(before: Tensor, after: Tensor, cost: str, result: str) -> str:
    """Returns a step's block: shapes in and out, the cost, and the result of this run."""
    return (
        f"| in | out | cost of this run |\n|---|---|---|\n"
        f"| `{tuple(before.shape)}` | `{tuple(after.shape)}` | {cost} |\n\n{result}\n"
    )


def _axon(w: Walk) -> str:
    signs = w.cell.synapses.signs
    assert signs is not None
    inhibit = [axon for axon, sign in enumerate(signs.tolist()) if sign < 0]
    burst = w.activity[0, FOLLOWED]
    names = ", ".join(map(str, inhibit[:-1])) + f" and {inhibit[-1]}"
    return (
        f"*In this run:* {AXONS} axons over {STEPS} steps of {STEP_MS:.1f} ms, "
        f"`{tuple(w.activity.shape)}`. {AXONS - len(inhibit)} excite, axons {names} inhibit. We "
        f"follow axon {FOLLOWED}, whose rate climbs to {number(float(burst.max()))} at step "
        f"{int(burst.argmax())}; its neighbour, axon {INHIBITORY}, fires too and inhibits. "
        "The input costs nothing.\n"
    )


def _synapses(w: Walk) -> str:
    module = w.cell.synapses
    assert module.vesicles is not None
    assert module.receptors is not None
    assert isinstance(module, SparseSynapses)
    followed = (module.wiring[0] == FOLLOWED).nonzero().flatten()
    inhibitory = (module.wiring[0] == INHIBITORY).nonzero().flatten()
    weight, potential = module.effective_weight()[0], w.synaptic[0, 0, NOW].mT.flatten()
    return passage(
        w.activity,
        w.synaptic,
        cost_text(w.costs["synapses"]),
        f"*In this run:* the four terminals of axon {FOLLOWED} release "
        f"{listed(module.vesicles[0, followed].tolist())} and meet "
        f"{listed(module.receptors[0, followed].tolist())}: weights of "
        f"{listed(weight[followed].tolist())}. At step {NOW} they make potentials of "
        f"{listed(potential[followed].tolist())}; beside them axon {INHIBITORY} makes "
        f"{listed(potential[inhibitory].tolist())}.",
    )


def _threshold(w: Walk) -> str:
    module = w.cell.threshold_norm
    assert module is not None
    assert module.norm.running_mean is not None
    assert module.norm.running_var is not None
    mean, deviation = float(module.norm.running_mean), float(module.norm.running_var) ** 0.5
    floor, ceiling = (int((w.normal == end).sum()) for end in (0, module.threshold))
    return passage(
        w.synaptic,
        w.normal,
        cost_text(w.costs["threshold"]),
        f"*In this run:* the running mean is {number(mean)} and the deviation {number(deviation)}, "
        f"learned from 64 windows of background. Of {w.normal.numel():,} values {floor:,} end at 0 "
        f"and {ceiling:,} at the threshold of {module.threshold:g}. With axon {INHIBITORY} silent, "
        f"which inhibits, the cell's rate changes by {number(_effect(w, INHIBITORY))} at most; "
        f"with axon {FOLLOWED} silent by {number(_effect(w, FOLLOWED))}.",
    )


def _effect(w: Walk, axon: int) -> float:
    """Returns how much the firing rate changes, at most, if an axon is silent."""
    activity = w.activity.clone()
    activity[:, axon] = 0
    return float((w.cell(activity) - w.rate).abs().max())


def _algorithm(cost: Cost) -> str:
    """Names the algorithm that ran, by the family of its products."""
    names = {"convolution": "direct", "fft": "FFT", "matmul": "matrix product"}
    return ", ".join(names[family] for family in cost.macs)


def _dendrites(w: Walk) -> str:
    (cost,) = w.costs["dendrites"]
    taps = w.cell.dendrites.weight[0, :, :, (DENDRITES - 1) // 2]
    peaks = taps.max(1).values.flip(0).tolist()
    above = w.spread[0, 0, :, :, HIT].amax(1) > 0
    branches, across, steps = w.cell.dendrites.tree.filter
    return passage(
        w.normal,
        w.spread,
        f"{cost_text((cost,))} ({_algorithm(cost)}); a direct convolution {cost.direct:,} MAC, the "
        f"essay's rule {cost.essay:,}",
        f"*In this run:* {SITES * DENDRITES} synapses x {STEPS} steps x {branches} x {across} x "
        f"{steps} taps are the essay's {cost.essay:,}. The cable has a length constant of "
        f"{CABLE.length_constant_um:g} \u00b5m, a time constant of {CABLE.time_constant_ms:g} ms "
        f"and sites of {CABLE.site_um:g} \u00b5m. On its own site an input counts "
        f"{number(peaks[0])} in the step it comes, then {listed(peaks[1:])}. Every dendrite rests "
        f"at {number(REST)} (its bias); dendrite {HIT} is above zero somewhere in "
        f"{int(above.sum())} steps.",
    )


def _spike(w: Walk) -> str:
    module = w.cell.spike
    sites = lifted_sites(w, HIT)
    before, after = (sheet[0, 0, NOW, :, HIT] for sheet in (w.spread, w.lifted))
    most = int((after - before).argmax())
    others = sum(len(lifted_sites(w, d)) for d in range(DENDRITES) if d != HIT)
    return passage(
        w.spread,
        w.lifted,
        cost_text(w.costs["spike"]),
        f"*In this run:* strength {module.strength:g}, threshold {module.threshold:g}, window "
        f"{module.window}. At step {NOW} the largest potential of dendrite {HIT} is "
        f"{number(float(before.max()))}, and it stays; {len(sites)} sites near it rise visibly, "
        f"site {most} the most, from {number(float(before[most]))} to "
        f"{number(float(after[most]))}. On the other dendrites "
        f"{others or 'none'} rise.",
    )


def _rate(w: Walk) -> str:
    rates = w.dendritic[0, 0, NOW].tolist()
    above = int((w.lifted[0, 0, NOW] > 0).sum())
    return passage(
        w.lifted,
        w.dendritic,
        cost_text(w.costs["rate"]),
        f"*In this run:* at step {NOW}, {above} of {SITES * DENDRITES} sites are above zero, and "
        f"the dendrites pass on {listed(rates)}.",
    )


def _summation(w: Walk) -> str:
    current = float(w.current[0, 0, NOW])
    other = [
        f"{name} {number(float(laws(1 / DENDRITES)[name](w.dendritic)[0, 0, NOW]))}"
        for name, *_ in LAWS[1:]
    ]
    return passage(
        w.dendritic,
        w.current,
        cost_text(w.costs["summation"]),
        f"*In this run:* the current at step {NOW} is {number(current)} by the linear law, this "
        f"cell's. With a knee of {KNEE:g} the others would make of the same rates: "
        f"{', '.join(other)}.",
    )


def _soma(w: Walk) -> str:
    peaks = [int(stage[0, 0].argmax()) for stage in (w.current, w.filtered)]
    last = [int((stage[0, 0] > 0.001).nonzero().max()) for stage in (w.current, w.filtered)]
    return passage(
        w.current,
        w.filtered,
        cost_text(w.costs["soma"]),
        f"*In this run:* taps {listed(w.cell.soma.weight.tolist())}, the last one for the present. "
        f"The current is largest at step {peaks[0]}, the potential at step {peaks[1]}; the "
        f"current ends after step {last[0]}, the potential after step {last[1]}.",
    )


def _firing(w: Walk) -> str:
    silent = int((w.rate == 0).sum())
    return passage(
        w.potential,
        w.rate,
        cost_text(w.costs["firing"]),
        f"*In this run:* the soma's bias is {number(SOMA_REST)}. {silent} of {STEPS} steps are "
        f"silent; the largest rate is {number(float(w.rate.max()))}.",
    )


def _chance(w: Walk) -> str:
    intended = w.rate > 0
    fired, released = (int((stage > 0).sum()) for stage in (w.dropped, w.released))
    share = w.dropout.firing_probability(4)
    short = ReleaseOrWait(w.release.mean_wait, w.release.wait_ms, 5.0).wait_steps
    return passage(
        w.rate,
        w.dropped,
        f"{cost_text(w.costs['dropout'])}: in evaluation it is the identity; `ReleaseOrWait` "
        f"{cost_text(w.costs['release'])}",
        f"*In this run:* of {int(intended.sum())} steps with a rate `PoissonDropout` lets {fired} "
        f"out and `ReleaseOrWait` {released}. The probability of firing is {listed(share)} in the "
        f"first four steps, {number(1 / (1 + w.dropout.mean_wait))} in the long run; what fires "
        f"is divided by it. A sleep of {w.release.wait_ms:g} ms is {w.release.wait_steps} step of "
        f"{STEP_MS:.1f} ms, and {short} steps of 5 ms.",
    )


def _terminals(w: Walk) -> str:
    weights = w.terminals.effective_weight()[0].tolist()
    return passage(
        w.dropped,
        w.arriving,
        cost_text(w.costs["terminals"]),
        f"*In this run:* four terminals of weight {listed(weights)}; the next cell's potential "
        f"falls to {number(float(w.arriving.min()))}.",
    )


def _cost(w: Walk) -> str:
    counted = profile(w.cell, w.activity)
    assert counted.agree
    lines = ["| stage | MAC | pointwise FLOP |", "|---|---:|---:|"]
    for row in counted.stages:
        macs = sum(row.cost.macs.values())
        lines.append(f"| {row.cost.stage} | {macs:,} | {row.cost.pointwise:,} |")
    costs = [row.cost for row in counted.stages]
    macs = sum(sum(cost.macs.values()) for cost in costs)
    lines.append(f"| all | {macs:,} | {sum(cost.pointwise for cost in costs):,} |")
    lines.append(
        f"\n{counted.parameters:,} trained parameters, {counted.synapses} synapses. Closed form, "
        f"exact counter and fvcore agree on the MAC to the last digit."
    )
    return "\n".join(lines) + "\n"


BLOCKS: Mapping[str, Callable[[Walk], str]] = {
    "axon": _axon,
    "synapses": _synapses,
    "threshold": _threshold,
    "dendrites": _dendrites,
    "spike": _spike,
    "rate": _rate,
    "summation": _summation,
    "soma": _soma,
    "firing": _firing,
    "chance": _chance,
    "terminals": _terminals,
    "cost": _cost,
}


@torch.no_grad()
def filled(page: str, w: Walk) -> str:
    """Returns the page with its blocks filled in from this run.

    Raises:
        ValueError: the page does not have each of the blocks once.
    """
    names = [name for _, name, _ in BLOCK.findall(page)]
    if sorted(names) != sorted(BLOCKS):
        raise ValueError(f"the page has the blocks {names}; expected {list(BLOCKS)}, each once")
    return BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]](w) + match[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files go")
    folder: Path = parser.parse_args().folder
    w = walk()
    page = filled((HERE / "README.md").read_text(), w)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page)
    for name, picture in pictures(w).items():
        (folder / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
