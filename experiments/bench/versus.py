"""Compares the speed of two checkouts of neuroconv, workload by workload.

    python experiments/bench/versus.py --old DIR [--new DIR] [--only PATTERN ...] [--json FILE]

Each checkout has a process of its own, with the same threads and allocator. The two take turns,
repeat by repeat (A B A B): while one works, the other waits. Each is warmed up before each repeat.
A ratio above 1 says that the new checkout takes longer. The JSON file is rewritten after every
workload, so a run that is stopped keeps what it has measured.
"""

import argparse
import gc
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table
from timer import Failure, Outcome, TimedRun, first_line, interleaved, ratio, write_json

HERE = Path(__file__).resolve().parent
SIDES = ("old", "new")
SLOW_S = 15.0
# Freed memory stays with the process, as in neuroconv's command line, on both sides alike.
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:"
    "glibc.malloc.top_pad=268435456"
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Worker:
    """A process that imports one checkout and times blocks of calls on demand."""

    def __init__(self, checkout: Path, options: argparse.Namespace) -> None:
        words = ["--device", options.device, "--clock", options.clock, *["--quick"] * options.quick]
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=checkout,
            env={**os.environ, **ALLOCATOR, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
        self.checkout = checkout

    def ask(self, command: str, *arguments: Any) -> Any:
        """Returns the reply to a command.

        Raises:
            RuntimeError: the command failed; its message is the worker's.
            ConnectionError: the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ConnectionError(f"the process of {self.checkout} has ended during {command!r}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]

    def block(self, calls: int) -> float:
        seconds: float = self.ask("block", calls)
        return seconds

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it may have ended already
            self.process.stdin.close()
        self.process.wait(timeout=60)


@contextmanager
def workers(
    checkouts: Mapping[str, Path], options: argparse.Namespace
) -> Iterator[dict[str, Worker]]:
    """Starts a worker for each checkout and ends them all."""
    with ExitStack() as stack:
        started = {}
        for side, checkout in checkouts.items():
            started[side] = Worker(checkout, options)
            stack.callback(started[side].close)
        yield started


def serve(options: argparse.Namespace) -> None:
    """Answers the driver's commands until its input ends: one JSON line each way."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not speak between the replies
    import torch
    from workloads import all_workloads

    device, clock = torch.device(options.device), CLOCKS[options.clock]
    workloads = all_workloads(device, quick=options.quick)
    built: list[Any] = []

    def build(name: str) -> None:
        built.clear()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        built.append(workloads[name]())

    commands: dict[str, Callable[..., Any]] = {
        "about": about, "names": lambda: list(workloads), "build": build,
        "block": lambda calls: built[0].block(calls, clock),
    }  # fmt: skip
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            reply = {"result": commands[command](*arguments)}
        except Exception as error:  # the driver records it, and goes on
            reply = {"error": first_line(error)}
        replies.write(json.dumps(reply) + "\n")


def about() -> dict[str, Any]:
    """Returns where this process has neuroconv from, and what else its speed depends on."""
    import torch

    import neuroconv

    kernels = "unknown"
    for module in ("neuroconv.kernels.native", "neuroconv.layers.native"):
        try:
            kernels = importlib.import_module(module).state()
            break
        except (ImportError, AttributeError):
            continue
    return {
        "folder": str(Path(neuroconv.__file__).parent.parent),
        "neuroconv": neuroconv.__version__,
        "C++ kernels": kernels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Comparison:
    """One workload under both checkouts."""

    name: str
    times: Mapping[str, Outcome]

    @property
    def value(self) -> float | None:
        """New over old: the median of the repeats' ratios."""
        result = ratio(self.times["new"], self.times["old"])
        return None if result is None else result.value

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {side: self.times[side].to_dict() for side in SIDES}
        old, new = (self.times[side] for side in SIDES)
        result = ratio(new, old)
        if result is not None and isinstance(new, TimedRun) and isinstance(old, TimedRun):
            plain["new_over_old_ratio"] = result.value
            plain["lower_quartile"], plain["upper_quartile"] = result.lower, result.upper
            plain["least_over_least_ratio"] = min(new.seconds) / min(old.seconds)
        return plain


def compare(
    pair: Mapping[str, Worker], names: Sequence[str], seconds: float, repeats: int
) -> Iterator[Comparison]:
    """Yields a comparison for each name; what fails on one side is recorded as that."""
    for name in names:
        times: dict[str, Outcome] = {}
        for side, worker in pair.items():
            try:
                worker.ask("build", name)
            except RuntimeError as error:
                times[side] = Failure(str(error))
        if not times:
            try:
                times = interleaved(pair, seconds=seconds, slow=SLOW_S, min_repeats=repeats)
            except RuntimeError as error:
                times = dict.fromkeys(SIDES, Failure(str(error)))
        yield Comparison(name, {side: times.get(side, Failure("not run")) for side in SIDES})


def summary(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Returns geometric means, of all and by group, and the workload with the largest ratio."""
    ratios = {
        comparison.name: comparison.value
        for comparison in comparisons
        if comparison.value is not None
    }
    groups: dict[str, list[float]] = {}
    for name, value in ratios.items():
        groups.setdefault(name.partition("/")[0], []).append(value)
    worst = max(ratios, key=lambda name: ratios[name], default=None)
    return {
        "workloads": len(ratios),
        "not_measured": [comparison.name for comparison in comparisons if comparison.value is None],
        "geometric_mean_ratio": geometric_mean(ratios.values()) if ratios else None,
        "geometric_mean_ratio_by_group": {
            group: geometric_mean(values) for group, values in groups.items()
        },
        "worst_workload": worst,
        "worst_ratio": None if worst is None else ratios[worst],
    }


def table(comparisons: Sequence[Comparison]) -> Table:
    columns = ("workload", "old, ms", "new, ms", "new / old", "quartiles", "of the least")
    result = Table(*columns, title="new / old above 1: the new checkout takes longer")
    for comparison in comparisons:
        plain = comparison.to_dict()
        if "new_over_old_ratio" not in plain:
            reasons = [plain[side].get("not_measured", "") for side in SIDES]
            result.add_row(comparison.name, *reasons)
            continue
        value = plain["new_over_old_ratio"]
        colour = "red" if plain["lower_quartile"] > 1.05 else "green" if value < 0.95 else "default"
        result.add_row(
            comparison.name,
            *(f"{plain[side]['seconds'] * 1e3:.3g}" for side in SIDES),
            f"[{colour}]{value:.3f}[/]",
            f"{plain['lower_quartile']:.2f} to {plain['upper_quartile']:.2f}",
            f"{plain['least_over_least_ratio']:.3f}",
        )
    return result


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, metavar="DIR", help="the checkout to compare with")
    parser.add_argument(
        "--new", type=Path, metavar="DIR", default=HERE.parents[1],
        help="the other checkout (default: the one that this script belongs to)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", metavar="PATTERN", default=["*"],
        help="workloads whose name, or its start, matches: 'auto' 'growth/granule*' 'small/*/both'",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="for a workload, both sides together"
    )
    parser.add_argument("--repeats", type=int, default=5, help="at least, of each workload")
    parser.add_argument(
        "--threads", type=int, help="OMP_NUM_THREADS of both sides (default: as it is set)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall",
        help="cpu: a process's seconds of computing, for one thread on a machine that is not quiet",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after every workload")
    parser.add_argument("--list", action="store_true", help="name the workloads, and run none")
    parser.add_argument(
        "--quick", action="store_true", help="shows that everything runs, not speed"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.worker:
        if options.old is None:
            parser.error("--old is missing: expected the folder of a checkout")
        for side in SIDES:
            folder = getattr(options, side).resolve()
            if not (folder / "neuroconv" / "__init__.py").exists():
                parser.error(f"--{side} {folder}: expected a checkout, a folder with neuroconv/")
            setattr(options, side, folder)
        if options.repeats < 1 or not 0 < options.seconds < float("inf"):
            parser.error("--repeats and --seconds: expected numbers above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.worker:
        serve(options)
        return 0
    if options.threads is not None:
        os.environ |= {"OMP_NUM_THREADS": str(options.threads)}
    load_before = os.getloadavg()[0]
    checkouts = {side: getattr(options, side) for side in SIDES}
    console, comparisons = Console(), []
    if not console.is_terminal:
        console.width = 120
    progress = Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True),
        transient=True, refresh_per_second=1,
    )  # fmt: skip
    with workers(checkouts, options) as pair, progress:
        start = progress.add_task("imports", total=None)
        sides = {side: worker.ask("about") for side, worker in pair.items()}
        for side, folder in checkouts.items():
            if Path(sides[side]["folder"]) != folder:
                raise RuntimeError(f"--{side} {folder}: imports {sides[side]['folder']} instead")
        available = [set(worker.ask("names")) for worker in pair.values()]
        names = [
            name for name in pair["new"].ask("names")
            if name in set.intersection(*available)
            and any(fnmatchcase(name, word) or name.startswith(word) for word in options.only)
        ]  # fmt: skip
        if options.list or not names:
            progress.stop()
            console.print("\n".join(names) or f"no workload matches {options.only}", markup=False)
            return 0 if names else 2
        progress.remove_task(start)
        task = progress.add_task("workloads", total=len(names))
        record: dict[str, Any] = {
            "sides": sides,
            "settings": {
                "device": options.device, "quick": options.quick, "seconds": options.seconds,
                "clock": options.clock,
                "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                "load_average_before": load_before,
            },
            "workloads": {},
        }  # fmt: skip
        for comparison in compare(pair, names, options.seconds, options.repeats):
            comparisons.append(comparison)
            record["workloads"][comparison.name] = comparison.to_dict()
            record["summary"] = summary(comparisons)
            progress.update(task, advance=1, description=comparison.name[:60])
            if options.json is not None:
                write_json(options.json, record)
    console.print(table(comparisons))
    result = record["summary"]
    for group, value in result["geometric_mean_ratio_by_group"].items():
        console.print(f"{group}: geometric mean {value:.3f}")
    if result["worst_workload"] is not None:
        console.print(
            f"all {result['workloads']}: geometric mean {result['geometric_mean_ratio']:.3f}, "
            f"worst {result['worst_ratio']:.3f} ({result['worst_workload']})"
        )
    for name in result["not_measured"]:
        console.print(f"not measured: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
