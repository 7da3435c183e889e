"""Trains single neurons to tell two sets of patterns apart, and records what they reach.

    python experiments/local_learning/single_neuron.py OUT.json [--root DIR] [--quick]
    python experiments/local_learning/single_neuron.py OUT.json --table
    python experiments/local_learning/single_neuron.py OUT.json --figure FILE.svg

MNIST's even digits against the odd ones; all 126 splits of ten digits into five and five, the
neurons of all splits as one population; random Boolean functions, one neuron for each function. The
same command goes on where an earlier one ended. single_neuron.md explains tasks and entrants.

Shapes: B batch, F axons, N neurons side by side, D branches, P synapses of a branch.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations, product
from math import isqrt
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import Progress, TimeElapsedColumn
from torch import Tensor, nn

from neuroconv.comparison.statistics import Estimate, estimate, holm, pack, unpack, verdict
from neuroconv.core.files import write_text
from neuroconv.core.version import __version__
from neuroconv.data import load_data
from neuroconv.layers import DendriticFields, Random
from neuroconv.learning import Backprop, ClimbingFibre, Rule, logistic_error
from neuroconv.zoo import PurkinjeClassifier, count_parameters, create_model
from neuroconv.zoo.purkinje_classifier import MossyFibres, NuclearReadout

ENTRANTS = {
    "random": "cell, branches wired at random",
    "patches": "cell, branches on patches",
    "backprop": "cell, random, backpropagation",
    "pair": "two cells that work against one another",
    "point": "point neuron",
    "quadratic": "quadratic neuron",
    "mlp": "sparse MLP, backpropagation",
}
PRIMARY = "point", "quadratic", "mlp"  # with which the cell wired at random is compared
GAIN = 8.0  # logits for a rate of one
RATES = 3e-2, 1e-1, 1e-2, 3e-1, 3e-3  # of learning; of an entrant's best ones the first
TUNING = 1000  # the seed of tuning, which no result uses
MARGIN = 0.01
EVEN = 0, 2, 4, 6, 8
SPLITS = [(0, *others) for others in combinations(range(1, 10), 4)]


@dataclass(frozen=True)
class Plan:
    """What is trained: numbers of branches of the dendritic cell, and the entrants of its size."""

    data: str = "mnist"
    images: int | None = 20_000  # for training; tuning takes half
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    sites: int = 49  # synapses of a branch, a patch of 7 x 7
    even_odd: tuple[tuple[int, tuple[str, ...]], ...] = (
        (16, ("random", "patches", "point", "mlp")),
        (48, tuple(ENTRANTS)),
        (2048, ("random", "point", "quadratic")),
    )
    splits: tuple[str, ...] = ("random", "patches", *PRIMARY)
    epochs: tuple[int, int] = (4, 2)  # of one split, of all
    batch: tuple[int, int] = (64, 128)
    inputs: tuple[int, ...] = tuple(range(2, 11))
    branches: tuple[int, ...] = (1, 2, 4, 8, 16)
    functions: int = 10  # of d inputs, the same for all seeds; tuning takes half
    steps: int = 400
    primary: tuple[int, tuple[int, int]] = (48, (6, 8))  # branches; inputs and branches


QUICK = Plan(
    data="digits", images=None, seeds=(10, 11), sites=16, even_odd=((12, tuple(ENTRANTS)),),
    epochs=(4, 4), inputs=(2, 3, 4), branches=(1, 2, 4), functions=4, steps=200,
    primary=(12, (4, 4)),
)  # fmt: skip


class TonicNuclei(NuclearReadout):
    """Nuclei that answer yes to a Purkinje cell that fires below a rate of one."""

    def forward(self, rates: Tensor) -> Tensor:
        return super().forward(rates - 1)


class Point(nn.Module):
    """Linear-threshold units. Synapses of one axon add up: more of them do not tell more."""

    def __init__(self, axons: int, neurons: int, synapses: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(neurons, synapses // axons, axons) / synapses**0.5)
        self.bias = nn.Parameter(torch.zeros(neurons))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.sum(1).t() + self.bias


class Quadratic(nn.Module):
    """Neurons b + w.x + sum over k of c_k (u_k.x)^2: the energy model with a linear term that fits
    cortical cells (Rust et al. 2005, doi:10.1016/j.neuron.2005.05.021)."""

    def __init__(self, axons: int, neurons: int, synapses: int) -> None:
        super().__init__()
        squares = synapses // axons - 1
        self.linear = Point(axons, neurons, axons)
        self.weight = nn.Parameter(torch.randn(neurons, squares, axons) / axons**0.5)
        signs = 1 - 2.0 * (torch.arange(squares) % 2)
        self.output = nn.Parameter((signs / max(squares, 1) ** 0.5).repeat(neurons, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        squares = (inputs.flatten(1) @ self.weight.flatten(0, 1).t()).square()
        return self.linear(inputs) + (squares.unflatten(1, self.output.shape) * self.output).sum(2)


class SparseMLP(nn.Module):
    """Branches as hidden units whose output weights are trained too, of either sign."""

    def __init__(self, wiring: Tensor, axons: int, sites: int) -> None:
        super().__init__()
        self.wiring, self.axons = wiring.reshape(-1, sites), axons
        units = len(wiring), len(self.wiring) // len(wiring)  # (N, D)
        self.weight = nn.Parameter(torch.randn(self.wiring.shape) * (2 / sites) ** 0.5)
        self.rest = nn.Parameter(torch.zeros(len(self.wiring)))
        self.output = nn.Parameter(torch.randn(units) * (2 / units[1]) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(len(wiring)))

    def forward(self, inputs: Tensor) -> Tensor:
        zeros = self.weight.new_zeros(len(self.wiring), self.axons)
        dense = zeros.scatter_add(1, self.wiring, self.weight)
        hidden = torch.addmm(self.rest, inputs.flatten(1), dense.t()).relu()
        return (hidden.unflatten(1, self.output.shape) * self.output).sum(2) + self.bias


def make_neurons(name: str, axons: int, neurons: int, sites: int, branches: int, seed: int) -> Rule:
    """Returns the rule and model (`rule.model`) of neurons with the parameters of such a cell."""
    torch.manual_seed(seed)
    synapses, pair = sites * branches, 1 + (name == "pair")
    if name in ("point", "quadratic"):
        kind = Point if name == "point" else Quadratic
        return Backprop(kind(axons, neurons, synapses), error=logistic_error)
    if name == "mlp":  # each unit has an output weight more than a branch
        branches = max(1, round((synapses + branches) / (sites + 2)))
    wiring: Any = Random(seed=seed)
    if name == "patches":
        image, patch = (1, isqrt(axons), isqrt(axons)), (isqrt(sites), isqrt(sites))
        wiring = DendriticFields(image, patch, seed=seed)
    model = create_model(
        "purkinje_classifier", image_shape=(1, 1, axons), num_classes=neurons, normalise=False,
        cells_per_class=pair, gain=GAIN, seed=seed,
        purkinje={"tree": {"sheet": (sites, branches // pair)}, "wiring": wiring},
    ).eval()  # fmt: skip
    if name == "mlp":
        drawn = model.get_buffer("purkinje.synapses.wiring")
        return Backprop(SparseMLP(drawn, axons, sites), error=logistic_error)
    model.classifier = TonicNuclei(neurons, pair, GAIN)
    return (Backprop if name == "backprop" else ClimbingFibre)(model, error=logistic_error)


def train(rule: Rule, x: Tensor, y: Tensor, epochs: int, batch: int, lr: float, seed: int) -> Rule:
    """Trains on patterns (n, F) and answers 0 or 1 (n, N): Adam, cosine to zero, no decay.

    Dendritic cells first get resting potentials at which their rates are one on average.
    """
    if isinstance(rule.model, PurkinjeClassifier):
        cells: Any = rule.model.purkinje
        with torch.no_grad():
            cells.bias += 1 - cells(x[:1000].unsqueeze(2)).mean((0, 2))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(rule.trained(), lr=lr)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimizer.zero_grad()
            rule(x[rows][:, None, None], y[rows])
            optimizer.step()
            schedule.step()
    return rule


@torch.no_grad()
def right(rule: Rule, x: Tensor, y: Tensor) -> NDArray[np.bool_]:
    """Returns which answers are right, (n, N)."""
    run = rule.forward if isinstance(rule, ClimbingFibre) else rule.model
    logits = torch.cat([run(rows[:, None, None]) for rows in x.split(256)])
    return ((logits > 0) == (y > 0)).numpy()


def patterns(inputs: int) -> Tensor:
    """Returns all patterns of -1 and 1, (2^d, d)."""
    return ((torch.arange(2**inputs).unsqueeze(1) >> torch.arange(inputs)) % 2) * 2.0 - 1


def truth_tables(inputs: int, functions: int, seed: int) -> Tensor:
    """Draws Boolean functions (2^d, functions) with as many ones as zeros."""
    tables = np.tile(np.arange(2**inputs)[:, None] % 2, functions)
    return torch.from_numpy(np.random.default_rng((seed, inputs)).permuted(tables, axis=0)).float()


def first_halves(labels: Tensor, splits: Sequence[Sequence[int]]) -> Tensor:
    """Returns 1 where a digit is in the first half of a split, else 0, (n, splits)."""
    return torch.stack([torch.isin(labels, torch.tensor(split)) for split in splits], 1).float()


class Study:
    """The parts of a plan, each trained once and kept in a file.

    A part's key is TASK/SIZES/ENTRANT/SEED, with "tune" as the seed of the choice of a rate.
    """

    def __init__(self, plan: Plan, file: Path, root: str | None) -> None:
        self.plan, self.file, self.root = plan, file, root
        self.record: dict[str, Any] = {"plan": json.loads(json.dumps(asdict(plan))), "parts": {}}
        if file.exists():
            recorded = json.loads(file.read_text())
            if recorded["plan"] != self.record["plan"]:
                raise ValueError(f"{file} records another plan; expected a new file, or --quick")
            self.record = recorded
        self.parts: dict[str, Any] = self.record["parts"]

    def keys(self) -> Iterator[str]:
        plan = self.plan
        groups = [(f"even_odd/{branches}", names) for branches, names in plan.even_odd]
        groups.append((f"splits/{plan.primary[0]}", plan.splits))
        for group, names in groups:
            for name, seed in product(names, ("tune", *plan.seeds)):
                yield f"{group}/{name}/{seed}"
        boolean = product(plan.inputs, plan.branches, ("random", *PRIMARY), ("tune", "all"))
        yield from ("/".join(map(str, ("boolean", *key))) for key in boolean)

    def run(self) -> None:
        """Trains what the file does not have yet, and writes it part by part."""
        keys = [*self.keys()]
        with Progress(*Progress.get_default_columns()[:-1], TimeElapsedColumn()) as bar:
            task = bar.add_task("single neurons", total=len(keys))
            for key in keys:
                bar.update(task, description=key)
                if key not in self.parts:
                    start = time.process_time()
                    part = self.train(key)
                    self.parts[key] = {**part, "core_s": round(time.process_time() - start, 2)}
                    self.save()
                bar.advance(task)

    def save(self) -> None:
        self.record |= {
            "neuroconv": __version__, "torch": torch.__version__,
            "python": platform.python_version(), "threads": torch.get_num_threads(),
            "core_s": round(sum(part["core_s"] for part in self.parts.values()), 1),
            "missing": [key for key in self.keys() if key not in self.parts],
        }  # fmt: skip
        write_text(self.file, json.dumps(self.record, indent=1) + "\n")

    @cached_property
    def images(self) -> list[tuple[Tensor, Tensor]]:
        """Activity of mossy fibres (n, F) and labels (n,) of training, validation and test."""
        name, limit = self.plan.data, self.plan.images
        data = load_data(name, root=self.root, encoding="none", train_limit=limit)
        parts = [part.batch(range(len(part))) for part in (data.train, data.val, data.test)]
        return [(MossyFibres()(stills.unsqueeze(2)).squeeze(2), labels) for stills, labels in parts]

    def task(self, group: str, tuning: bool) -> tuple[Any, ...]:
        """Returns patterns and answers to learn and to test, epochs, batch, sites of a branch."""
        plan, (kind, *sizes) = self.plan, group.split("/")
        if kind == "boolean":
            d, functions = int(sizes[0]), plan.functions // (1 + tuning)
            x, y = patterns(d), truth_tables(d, functions, TUNING if tuning else plan.seeds[0])
            y = y if tuning else y.repeat(1, len(plan.seeds))
            return x, y, x, y, plan.steps, len(x), d
        (x, labels), val, test = self.images
        images, (shown, digits) = (len(x) // 2, val) if tuning else (len(x), test)
        splits = [EVEN] if kind == "even_odd" else SPLITS[::11] if tuning else SPLITS
        y, answers = first_halves(labels[:images], splits), first_halves(digits, splits)
        of_all = kind == "splits"
        return x[:images], y, shown, answers, plan.epochs[of_all], plan.batch[of_all], plan.sites

    def train(self, key: str) -> dict[str, Any]:
        """Trains an entrant at the rate that was chosen, and tests it; or chooses the rate."""
        group, name, seed = key.rsplit("/", 2)
        number = {"tune": TUNING, "all": self.plan.seeds[0]}[seed] if seed.isalpha() else int(seed)
        x, y, shown, answers, epochs, batch, sites = self.task(group, seed == "tune")
        sizes = x.shape[1], y.shape[1], sites, int(group.split("/")[-1])

        def correct(lr: float) -> tuple[NDArray[np.bool_], int]:
            rule = train(make_neurons(name, *sizes, number), x, y, epochs, batch, lr, number)
            return right(rule, shown, answers), count_parameters(rule.model) // y.shape[1]

        if seed == "tune":
            shares = {lr: float(correct(lr)[0].mean()) for lr in RATES}
            return {"rate": max(shares, key=shares.__getitem__), "tried": shares}
        flags, parameters = correct(self.parts[f"{group}/{name}/tune"]["rate"])
        if seed == "all":
            wrong = (~flags).sum(0).reshape(len(self.plan.seeds), -1)
            return {"parameters": parameters, "wrong_patterns": wrong.tolist()}
        if y.shape[1] > 1:  # the number of splits right, eight bits an image
            packed = pack(np.unpackbits(flags.sum(1).astype(np.uint8)).astype(bool))
        else:
            packed = pack(flags[:, 0])
        return {
            "parameters": parameters, "images": len(flags),
            "accuracy": np.round(flags.mean(0), 5).tolist(), "right": packed,
        }  # fmt: skip


def rights(record: dict[str, Any], group: str, name: str) -> NDArray[np.float64]:
    """Returns the share that is right by seed and test image, or what is learned exactly by start
    and function, (S, n)."""
    parts, rows = record["parts"], []
    if group.startswith("boolean"):
        return (np.array(parts[f"{group}/{name}/all"]["wrong_patterns"]) == 0).astype(float)
    for part in (parts[f"{group}/{name}/{seed}"] for seed in record["plan"]["seeds"]):
        splits = len(part["accuracy"])
        flags = unpack(part["right"], part["images"] * (8 if splits > 1 else 1))
        rows.append((np.packbits(flags) if splits > 1 else flags) / splits)
    return np.array(rows)


def by_split(record: dict[str, Any], name: str) -> NDArray[np.float64]:
    """Returns the accuracies of an entrant on all splits, means over the seeds."""
    plan = record["plan"]
    keys = [f"splits/{plan['primary'][0]}/{name}/{seed}" for seed in plan["seeds"]]
    return np.mean([record["parts"][key]["accuracy"] for key in keys], 0)


def comparisons(record: dict[str, Any]) -> Iterator[str]:
    """Yields rows of all entrants, and how far the cell wired at random is ahead of each."""
    plan, rows, primary = record["plan"], [], {}
    branches, boolean = plan["primary"][0], "boolean/{}/{}".format(*plan["primary"][1])
    groups = [(f"even_odd/{size}", names) for size, names in plan["even_odd"]]
    groups += [(f"splits/{branches}", plan["splits"]), (boolean, ("random", *PRIMARY))]
    for group, name in ((group, name) for group, names in groups for name in names):
        share = rights(record, group, name)
        lead = estimate(rights(record, group, "random") - share)
        seed = "all" if group == boolean else plan["seeds"][0]
        parameters = record["parts"][f"{group}/{name}/{seed}"]["parameters"]
        rows.append((group, name, parameters, estimate(share), lead))
        if name in PRIMARY and group in (f"even_odd/{branches}", f"splits/{branches}", boolean):
            primary[group, name] = 1.0 if lead.p is None else lead.p
    corrected = dict(zip(primary, holm([*primary.values()]), strict=True))
    yield "| task | entrant | parameters | right, % | the cell's lead, points | p | verdict |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for group, name, parameters, share, lead in rows:
        p = corrected.get((group, name), lead.p)
        star = "" if (group, name) in corrected else " *"
        gap = f"{points(lead)} | {p or 0:.2g}{star} | {verdict(lead, MARGIN, p)}"
        row = f"| {group} | {ENTRANTS[name]} | {parameters:,} | {points(share)} |"
        yield f"{row} {'| | |' if name == 'random' else gap + ' |'}"
    yield f"\np by Holm's method over {len(primary)} comparisons; with * alone, exploratory.\n"


def points(value: Estimate) -> str:
    return f"{100 * (value.mean or 0):.2f} ± {100 * (value.half_width or 0):.2f}"


def table(record: dict[str, Any]) -> str:
    """Returns the tables of a finished record in Markdown."""
    plan, lines = record["plan"], [*comparisons(record)]
    lines += ["| 126 splits | worst | median | best | the cell leads in |", "|---|" + "---:|" * 4]
    for name in plan["splits"]:
        low, middle, high = 100 * np.quantile(by_split(record, name), [0, 0.5, 1])
        ahead = (by_split(record, "random") > by_split(record, name)).sum()
        lines.append(f"| {ENTRANTS[name]} | {low:.1f} | {middle:.1f} | {high:.1f} | {ahead} |")
    heads = " | ".join(f"d = {d}" for d in plan["inputs"])
    lines.append(f"\n| learned exactly, % (by the best start; patterns) | branches | {heads} |")
    lines.append("|---|---:|" + "---:|" * len(plan["inputs"]))
    for name, branches in product(("random", *PRIMARY), plan["branches"]):
        cells = []
        for d in plan["inputs"]:
            part = record["parts"][f"boolean/{d}/{branches}/{name}/all"]
            wrong = np.array(part["wrong_patterns"])
            shares = (wrong == 0).mean(), (wrong == 0).any(0).mean(), 1 - wrong.mean() / 2**d
            cells.append("{:.0f} ({:.0f}; {:.1f})".format(*(100 * share for share in shares)))
        lines.append(f"| {ENTRANTS[name]} | {branches} | {' | '.join(cells)} |")
    return "\n".join(lines)


@matplotlib.rc_context({"svg.hashsalt": "0", "svg.fonttype": "none", "font.size": 9})
def draw(record: dict[str, Any], file: Path) -> None:
    """Draws the accuracies of all splits, sorted, and the share of functions learned exactly."""
    plan, (_, branches) = record["plan"], record["plan"]["primary"][1]
    figure = Figure((7.5, 3.2), layout="constrained")
    splits, boolean = figure.subplots(1, 2)
    for name, colour, dashes in (
        ("random", "black", "-"), ("patches", "0.5", "-"), ("mlp", "black", "--"),
        ("quadratic", "black", ":"), ("point", "0.5", "-."),
    ):  # fmt: skip
        style = {"color": colour, "linestyle": dashes, "label": ENTRANTS[name]}
        splits.plot(100 * np.sort(by_split(record, name)), **style)
        if name != "patches":
            groups = [f"boolean/{d}/{branches}" for d in plan["inputs"]]
            shares = [100 * rights(record, group, name).mean() for group in groups]
            boolean.plot(plan["inputs"], shares, **style)
    splits.set(xlabel="splits of ten digits, sorted", ylabel="test images right, %")
    boolean.set(xticks=plan["inputs"], ylim=(-3, 103))
    boolean.set(
        xlabel=f"inputs, {branches} branches", ylabel="Boolean functions learned exactly, %"
    )
    splits.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the record, which grows part by part")
    parser.add_argument("--root", help="folder of MNIST (default: where torchvision has put it)")
    parser.add_argument("--quick", action="store_true", help="the small digits, few functions")
    parser.add_argument("--table", action="store_true", help="only print the record's tables")
    parser.add_argument("--figure", type=Path, help="only draw the record, as this SVG file")
    options = parser.parse_args()
    if options.table or options.figure:
        record = json.loads(options.file.read_text())
        if missing := record["missing"]:
            parser.error(f"{options.file} lacks {len(missing)} parts: run it without --table first")
        print(table(record)) if options.table else draw(record, options.figure)
    else:
        torch.set_num_threads(1)
        Study(QUICK if options.quick else Plan(), options.file, options.root).run()


if __name__ == "__main__":
    main()
