"""Makes the records of the experiments, or lists them: what is recorded, and what is missing.

    python experiments/record.py                              the list, with each record's command
    python experiments/record.py run --data DIR --jobs 2      makes those that are missing
    python experiments/record.py run --data DIR study/mnist_equal.json ...    makes these

Runs go to runs/, logs to runs/record/. An interrupted command goes on where it was: finished
trainings are read. Each process has one thread; --jobs are processes at a time.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroconv.essay.page import read_claims

HERE = Path(__file__).resolve().parent
SCRATCH = Path("runs") / "record"
COMPARED = {  # folder: configurations, each of which `neuroconv compare` records
    "study": (
        "mnist_equal", "fashion_equal", "fashion_permuted_equal", "fashion_permuted_axons_equal",
        "cifar10_equal", "imagenette_equal", "spoken_digits_equal", "moving_digits_equal",
        "mnist_flops_equal", "fashion_flops_equal", "mnist_lenet5_equal", "fashion_lenet5_equal",
        "mnist_full_equal",
    ),
    "full_filter": ("digits_cerebellum_base",),
    "ablation": ("ablation_granule", "ablation_cerebellum"),
    "local_learning": (
        "mnist_local", "mnist_permuted_local", "fashion_local", "spoken_digits_local",
        "mnist_essay_local",
    ),
}  # fmt: skip
STREAMS = "arm", "speech", "classes", "switch"


def commands() -> dict[str, str]:
    """Returns the command of each record by its path; {out} is the file that it writes."""
    rows = {
        f"{folder}/{name}.json": f"neuroconv compare {name} "
        f"--report runs/{name}/report.html --json {{out}}"
        for folder, names in COMPARED.items()
        for name in names
    }
    streams = "python experiments/local_learning/streams.py"
    rows |= {f"local_learning/{task}.json": f"{streams} {task} {{out}}" for task in STREAMS}
    rows["full_filter/trials.json"] = "python experiments/full_filter/tune.py run"
    search = "python experiments/study/search.py runs/search --hours 1.6 --record && "
    rows["study/mnist_full_equal.json"] = search + rows["study/mnist_full_equal.json"]
    rows["local_learning/speed.json"] = "python experiments/local_learning/speed.py {out}"
    for folder in read_claims(HERE):
        path = f"{folder.name}/result.json"
        rows[path] = f"python experiments/{folder.name}/run.py full --record"
    return rows


def make(path: str, command: str, environment: dict[str, str], running: set[Any]) -> None:
    """Runs a command, and puts what it has written in its place.

    Raises:
        RuntimeError: it failed; the message names its log.
    """
    out = SCRATCH / path.replace("/", "-")
    for part in command.format(out=out).split(" && "):
        program, *words = shlex.split(part)
        start = [sys.executable, *(["-m", program] if program == "neuroconv" else []), *words]
        with out.with_suffix(".log").open("w") as log:
            running.add(process := subprocess.Popen(start, stdout=log, stderr=log, env=environment))
            status = process.wait()
            running.remove(process)
        if status:
            raise RuntimeError(f"{path}: exit status {status}: see {log.name}")
    if "{out}" in command:
        (HERE / path).write_bytes(out.read_bytes())


def run(chosen: dict[str, str], data: str | None, jobs: int) -> list[str]:
    """Makes records, `jobs` at a time; returns the messages of those that failed."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if data:
        environment["NEUROCONV_DATA"] = str(Path(data).resolve())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    failed, running = list[str](), set[Any]()
    with Progress(*columns, TimeElapsedColumn()) as bar, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("records", total=len(chosen))
        begun = {pool.submit(make, *row, environment, running): row[0] for row in chosen.items()}
        try:
            for future in as_completed(begun):
                if error := future.exception():
                    failed.append(str(error))
                bar.update(task, advance=1, description=begun[future])
        finally:  # ended by a signal, it ends what runs, which saves its state
            pool.shutdown(wait=False, cancel_futures=True)
            for process in [*running]:
                process.terminate()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["list", "run"], default="list")
    parser.add_argument("records", nargs="*", metavar="FOLDER/NAME.json")
    parser.add_argument("--data", help="folder of the data (default: NEUROCONV_DATA)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default 1)")
    options = parser.parse_intermixed_args()  # names may follow the options
    rows = commands()
    if unknown := [name for name in options.records if name not in rows]:
        parser.error(f"{', '.join(unknown)}: expected names of the list that no word prints")
    if options.what == "list":
        for path, command in rows.items():
            state = "recorded" if (HERE / path).exists() else "missing "
            print(f"{state}  {path:48} {command.format(out='FILE')}")
        return
    missing = [path for path in rows if not (HERE / path).exists()]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if failed := run({path: rows[path] for path in options.records or missing}, options.data,
                     options.jobs):  # fmt: skip
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
