"""How fast the neuron is: every comparison in one run, on a CPU or a GPU.

    python experiments/bench/run.py [--device cuda] [--only NAME ...] [--data DIR] [--json FILE]

Variants of a task take turns in one process, each warmed up before each repeat; medians and
quartiles are over the repeats. The full map and the gradients are computed, and weights change
before each call, so that nothing can be left out or kept from before. Each figure stands beside the
bar that it is held to. The JSON file is rewritten after every comparison: a run that is stopped
keeps what it has measured. The exit status is 1 if a section failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checks
import networks
import neurons
import scaling
import torch
from growth import growth, lines, plot_growth
from internals import keep_freed_memory
from recording import Bench, Record, Row, Section, describe, shown
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

SECTIONS: dict[str, Section] = {
    "accuracy": checks.accuracy,
    "purkinje": neurons.purkinje,
    "granule": neurons.granule,
    "image_layer": neurons.image_layers,
    "auto": neurons.auto,
    "growth": growth,
    "training": networks.training,
    "cnn": networks.cnn,
    "scaling": scaling.scaling,
}


def section_names(only: Sequence[str] = ()) -> list[str]:
    """Returns the sections of a run in their order: those named, or all."""
    return [name for name in SECTIONS if name in (only or SECTIONS)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summaries = [f"  {name}: {(section.__doc__ or '').split('.')[0]}."
                 for name, section in SECTIONS.items()]  # fmt: skip
    about = "\n".join([__doc__ or "", "sections:", *summaries, ""])
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options]",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="NAME", default=(),
        help="some of the sections (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="a folder of MNIST: `training` then trains on it",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after every comparison")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE",
        help="draw the growth of time with its exponents (.svg, .png, .pdf)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S",
        help="for a comparison, roughly; a call that takes longer is timed once (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, default=float("inf"), metavar="S",
        help="seconds after which a section starts no further comparison",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="small shapes and few repeats: shows that all runs, and judges no speed",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    options.names = section_names(options.only)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch.cuda.is_available() is False here; try --device cpu")
    if not 0 < options.seconds < float("inf"):
        parser.error(f"--seconds {options.seconds}: expected a number above 0")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data}: expected a folder that exists")
    if options.plot is not None and "growth" not in options.names:
        parser.error("--plot draws the section growth: add it to --only")
    for path in (options.json, options.plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    return options


def verdict(plain: dict[str, Any]) -> str:
    """Returns how many bars are met, and which are not."""
    judged = [bar for bar in plain["bars"] if "met" in bar]
    missed = [bar for bar in judged if not bar["met"]]
    parts = [f"{len(judged) - len(missed)} of {len(judged)} bars met"]
    if plain["settings"]["quick"]:
        parts = [f"quick: no speed was judged; {parts[0]}"]
    name = "{comparison}: {figure}"
    parts += [f"  missed: {name.format(**bar)} = {shown(bar['value'])}" for bar in missed]
    parts += [f"  not measured: {name.format(**bar)}" for bar in plain["bars"] if "met" not in bar]
    busy = plain["settings"]["load_average_before"]
    if busy > 0.5:
        parts.append(f"  other programs kept {busy:.1f} cores busy: take the times with caution")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    keep_freed_memory()
    bench = Bench(torch.device(options.device), options.quick, options.seconds, options.data)
    record = Record(bench, options.names, options.json)
    console = Console(highlight=False, soft_wrap=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(20),
        TextColumn("{task.completed} of {task.total} sections"), TimeElapsedColumn(),
        console=console, transient=True, refresh_per_second=1, disable=not console.is_terminal,
    )  # fmt: skip
    with progress:
        task = progress.add_task("", total=len(options.names))
        for name in options.names:
            progress.update(task, description=name)

            def show(item: Row, name: str = name) -> None:
                console.print(describe(item))
                progress.update(task, description=f"{name}: {item['comparison']}"[:60])

            state = record.run(name, SECTIONS[name], options.limit, show)
            seconds = record.plain["sections"][name]["seconds"]
            console.print(f"{name}: {escape(state)}, {seconds:.1f} s", style="dim")
            progress.advance(task)
    console.print(verdict(record.plain), markup=False)
    if options.plot is not None and (fitted := lines(record.plain)):
        plot_growth(fitted).savefig(options.plot)
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main())
