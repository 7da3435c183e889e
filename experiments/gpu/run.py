"""What a GPU is asked, in three calls that together take less than nine minutes.

    python experiments/gpu/run.py --smoke --out FOLDER                  at most 150 s
    python experiments/gpu/run.py --measure --out FOLDER                at most 180 s
    python experiments/gpu/run.py --learn --data DIR --out FOLDER       at most 180 s
    python experiments/gpu/run.py --wheels FOLDER     fetches what a machine without an index lacks

Each section is a process of its own, with a limit in seconds at which it is killed with all that it
has started; checks run beside one another, measurements of time alone. Rows are appended to
FOLDER/CALL.jsonl as they come, each with its hardware and versions. With `--device cpu` small sizes
run one after another, without limits; what only CUDA can check is listed as not run. The exit
status is 1 if a section failed or a bar was missed.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NEIGHBOURS = (ROOT, HERE, HERE.parent / "bench", HERE.parent / "brain")
BESIDE = 4  # checks at once on a GPU


class Section(NamedTuple):
    """A generator function of rows in the module of its call.

    Attributes:
        seconds: at which it is killed on a GPU.
        alone: nothing else runs meanwhile: it measures time.
        cuda: nothing of it can be checked without.
        interpreted: on a CPU, Triton's kernels run by its interpreter.
    """

    seconds: float
    alone: bool = False
    cuda: bool = False
    interpreted: bool = False


# By call: its limit, and its sections in their order.
CALLS: dict[str, tuple[float, dict[str, Section]]] = {
    "smoke": (150, {
        "imports": Section(45),
        "kernels": Section(75, interpreted=True),
        "captured": Section(45, cuda=True),
        "training": Section(90),
        "counters": Section(90),
        "peaks": Section(30, alone=True),
        "workloads": Section(45, alone=True),
    }),
    "measure": (180, {
        "calibration": Section(55, alone=True),
        "sizes": Section(55, alone=True),
        "graphs": Section(30, alone=True, cuda=True),
        "throughput": Section(45, alone=True),
        "loops": Section(60, alone=True),
    }),
    "learn": (180, {
        "real_time": Section(60, alone=True),
        "purkinje": Section(120),
        "tests": Section(120, cuda=True),
    }),
}  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s (--smoke | --measure | --learn) --out FOLDER [options]",
    )  # fmt: skip
    calls = parser.add_mutually_exclusive_group(required=True)
    for call, (limit, sections) in CALLS.items():
        calls.add_argument(
            f"--{call}", dest="call", action="store_const", const=call,
            help=f"{', '.join(sections)}: at most {limit:g} s",
        )  # fmt: skip
    calls.add_argument("--wheels", type=Path, metavar="FOLDER", help="fetch wheels into a folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default: cuda")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the rows")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder of MNIST, for --learn")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=(), help="some of the sections"
    )
    parser.add_argument("--python", default="3.12", help="of the wheels (default: 3.12)")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # run in this process
    options = parser.parse_args(arguments)
    if options.call is None:
        return options
    if options.out is None:
        parser.error(f"--{options.call}: expected --out, a folder for the rows")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data}: expected a folder that exists")
    names = CALLS[options.call][1]
    if unknown := set(options.only) - set(names):
        parser.error(f"--only {' '.join(unknown)}: expected some of {', '.join(names)}")
    return options


def append(options: argparse.Namespace, section: str, item: Mapping[str, Any]) -> None:
    """Adds a row to the call's file, in one write."""
    line = json.dumps({"section": section, **item}, allow_nan=False)
    with (options.out / f"{options.call}.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


# --- one section, in a process of its own


def run_section(options: argparse.Namespace) -> int:
    """Appends and prints the rows of a section; returns 1 if an error ended it."""
    name = options.section
    try:
        import torch
        from recording import Bench, describe, hardware, versions
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        device = torch.device(options.device)
        about = {"hardware": hardware(device), "versions": versions(device)}
        bench = Bench(device, device.type == "cpu", 0.5, options.data)
        for item in getattr(importlib.import_module(options.call), name)(bench):
            append(options, name, {**item, **about})
            console.print(f"{name}: {describe(item)}")
            for line in (*item["notes"], *item.get("series", {}).get("table", ())):
                console.print(f"    {line}", markup=False)
    except Exception as failure:  # the other sections are to run
        lines = traceback.format_exc().splitlines()
        append(options, name, {"error": f"{type(failure).__name__}: {failure}", "trace": lines})
        print(f"{name}:", *lines[-8:], sep="\n  ", flush=True)
        return 1
    return 0


# --- all sections of a call


class Running:
    """A command in a process group of its own."""

    def __init__(
        self, command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self.began, self.limit, self.state = time.monotonic(), limit, "running"
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def ended(self) -> bool:
        """Returns whether the command has ended, or was killed at its limit; `state` says how."""
        status = self.process.poll()
        if status is None and self.seconds < self.limit:
            return False
        if status is None:
            self.state = f"killed after its {self.limit:.0f} s"
        elif status < 0:
            self.state = f"ended by {signal.Signals(-status).name}"
        else:
            self.state = "complete" if status == 0 else "failed"
        self.kill()
        return True

    def kill(self) -> None:
        """Kills all that is left of the group, children too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_call(options: argparse.Namespace) -> int:
    """Runs the sections of a call, and prints what was met, missed and not run."""
    limit, sections = CALLS[options.call]
    on_cpu, end = options.device == "cpu", time.monotonic() + limit
    waiting = {name: section for name, section in sections.items()
               if not options.only or name in options.only}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.call}.jsonl"
    before = len(file.read_text().splitlines()) if file.exists() else 0
    running: dict[str, Running] = {}

    def state(name: str, word: str, seconds: float = 0.0) -> None:
        append(options, name, {"state": word, "seconds": seconds})
        print(f"-- {name}: {word}, {seconds:.1f} s", flush=True)

    try:
        while waiting or running:
            for name in [name for name, process in running.items() if process.ended()]:
                process = running.pop(name)
                state(name, process.state, process.seconds)
            while waiting:
                name, section = next(iter(waiting.items()))
                left = float("inf") if on_cpu else min(section.seconds, end - time.monotonic())
                if (section.cuda and on_cpu) or left <= 0:
                    state(name, "not run: " + ("it needs CUDA" if on_cpu else "no time is left"))
                elif running and (
                    on_cpu or section.alone or len(running) == BESIDE
                    or any(sections[other].alone for other in running)
                ):  # fmt: skip
                    break
                else:
                    running[name] = Running(command(options, name), left, child(options, section))
                del waiting[name]
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.kill()
    return summary(map(json.loads, file.read_text().splitlines()[before:]))


def command(options: argparse.Namespace, section: str) -> list[str]:
    """Returns the command line of a section's process."""
    words = [sys.executable, __file__, f"--{options.call}", "--section", section]
    words += ["--device", options.device, "--out", str(options.out)]
    return words if options.data is None else [*words, "--data", str(options.data)]


def child(options: argparse.Namespace, section: Section) -> dict[str, str]:
    """Returns the environment of a section's process: the package need not be installed."""
    path = os.pathsep.join([*map(str, NEIGHBOURS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "PYTHONUNBUFFERED": "1"}
    if options.device == "cuda" or section.interpreted:  # to compile C++ takes a minute
        environment["NEUROCONV_NATIVE"] = "0"
    if options.device == "cpu" and section.interpreted:
        environment["TRITON_INTERPRET"] = "1"
    return environment


def summary(rows: Iterator[dict[str, Any]]) -> int:
    """Prints how many bars are met, which are missed, and what was not run or failed."""
    met, lines = 0, []
    for item in rows:
        name = f"{item['section']}: {item.get('comparison', '')}".rstrip(": ")
        for text, figure in item.get("figures", {}).items():
            met += figure.get("met") is True
            if figure.get("met") is False:
                lines.append(f"missed: {name}: {text} = {figure['value']}")
        if reason := item.get("not_run"):
            lines.append(f"not run: {name}: {reason}")
        if item.get("state", "complete").startswith("not run"):
            lines.append(f"not run: {name}: {item['state'].partition(': ')[2]}")
        elif item.get("state", "complete") != "complete":
            lines.append(f"failed: {name}: {item['state']}")
    failures = [line for line in lines if not line.startswith("not run")]
    print(f"{met} bars met", *sorted(lines), sep="\n  ", flush=True)
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no section outlives this process
    if options.wheels is not None:
        import wheels

        return wheels.fetch(options.wheels, options.python)
    return run_call(options) if options.section is None else run_section(options)


if __name__ == "__main__":
    sys.exit(main())
