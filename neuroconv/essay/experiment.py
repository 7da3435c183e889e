"""An experiment: a grid of conditions and seeds, measured row by row, with a record and a verdict.

    python experiments/NAME/run.py                 prints what is recorded, as Markdown
    python experiments/NAME/run.py quick           minutes on one core, into runs/essay/quick/NAME
    python experiments/NAME/run.py full --record   result.json and picture.svg beside run.py
    python experiments/NAME/run.py draw            picture.svg again, from result.json

An interrupted run goes on by the same command: each finished row is in rows.jsonl. Everything runs
on one thread, and rows are equal to the bit for one version, one kind of processor and one size,
their seconds excepted.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from neuroconv.comparison.statistics import pack, unpack
from neuroconv.core.files import write_atomically, write_text
from neuroconv.core.text import Terminal
from neuroconv.core.version import __version__
from neuroconv.essay.claim import Claim, Interval, number, read_claim, verdict
from neuroconv.training.environment import describe_environment
from neuroconv.training.lock import RunError, locked

RECORD, PICTURE, ROWS = "result.json", "picture.svg", "rows.jsonl"


class Rows(list[dict[str, Any]]):
    """Measured rows: the condition, the seed and the values of each."""

    def where(self, **condition: Any) -> "Rows":
        """Returns a condition's rows, in the order of their seeds; LookupError for none."""
        rows = [row for row in self if all(row[key] == v for key, v in condition.items())]
        if not rows:
            raise LookupError(f"no row with {condition}")
        return Rows(sorted(rows, key=lambda row: row["seed"]))

    def values(self, key: str, **condition: Any) -> NDArray[Any]:
        """Returns a value of a condition by seed: (S,), or (S, N) for arrays."""
        return np.array([_decoded(row[key]) for row in self.where(**condition)])


@dataclass(frozen=True)
class Experiment:
    """How a claim is tested; run.py ends in `Experiment(...).main()`.

    Attributes:
        script: run.py itself, `__file__`; claim.toml lies beside it.
        sizes: dataclasses by name: "quick" (three seeds or more), "full" (five), and "test", which
            takes a second. A field `seeds` holds the seeds.
        conditions: all that is measured at a size, as keywords of `measure`, seeds apart.
        measure: (size, seed=, folder=, **condition) -> the values of a row: numbers, texts, arrays
            of flags (N,), or lists and tables of them. `folder` is there for runs.
        quantities: rows -> the interval of each quantity of the claim.
        draw: rows -> the figure of matplotlib that becomes picture.svg.
        tables: rows -> further tables, as Markdown.
    """

    script: str
    sizes: Mapping[str, Any]
    conditions: Callable[[Any], Iterable[dict[str, Any]]]
    measure: Callable[..., dict[str, Any]]
    quantities: Callable[[Rows], dict[str, Interval]]
    draw: Callable[[Rows], Any]
    tables: Callable[[Rows], str] = lambda rows: ""

    @property
    def folder(self) -> Path:
        return Path(self.script).resolve().parent

    def main(self, words: list[str] | None = None) -> None:
        """Runs the command line above."""
        parser = argparse.ArgumentParser(
            description=read_claim(self.folder).claim, epilog="With no word it prints the record."
        )
        parser.add_argument("what", nargs="?", choices=[*self.sizes, "draw"], metavar="SIZE|draw")
        parser.add_argument("--output", type=Path, metavar="DIR", help="runs/essay/SIZE/NAME")
        parser.add_argument("--record", action="store_true", help="write beside run.py")
        options = parser.parse_args(words)
        if options.record and options.what != "full":
            parser.error("--record: only a full run is recorded")
        if options.what is None:
            print(self.page())
        elif options.what == "draw":
            record, _ = read_record(self.folder, read_claim(self.folder))
            if not record:
                parser.error(f"draw: {self.folder / RECORD} does not exist: run `full --record`")
            self._draw(record, self.folder)
        else:
            default = Path("runs") / "essay" / options.what / self.folder.name
            record = self.run(options.what, options.output or default)
            if options.record:
                _write(self.folder / RECORD, record)
                self._draw(record, self.folder)
            print(self.page(record))

    def run(self, name: str, output: Path, progress: bool = True) -> dict[str, Any]:
        """Measures all rows of a size that are not in the output folder yet; returns the record.

        Raises:
            RunError: the folder's rows are of another version or size, or another process writes.
        """
        with locked(output):
            return self._run(name, output, progress)

    def _run(self, name: str, output: Path, progress: bool) -> dict[str, Any]:
        size = self.sizes[name]
        torch.set_num_threads(1)
        plan = [(c, seed) for c in self.conditions(size) for seed in size.seeds]
        source = b"".join(path.read_bytes() for path in sorted(self.folder.glob("*.py")))
        header = {
            "size": name, "settings": asdict(size), "rows": len(plan), "version": __version__,
            "code_sha256": hashlib.sha256(source).hexdigest(),
        }  # fmt: skip
        header = json.loads(json.dumps(header))
        rows = _read_rows(output / ROWS, header)
        console = Terminal(stderr=True, quiet=not progress)
        with (output / ROWS).open("a", encoding="utf-8") as file, Progress(
            BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"), console=console,
        ) as bar:  # fmt: skip
            task = bar.add_task("", total=len(plan), completed=len(rows))
            for condition, seed in plan[len(rows) :]:
                words = ", ".join(f"{key} {value}" for key, value in condition.items())
                bar.update(task, description=f"{words}, seed {seed}")
                rows.append(self._row(size, condition, seed, output))
                file.write(f"{json.dumps(rows[-1])}\n")
                file.flush()
                bar.advance(task)
        measured = self.quantities(rows)
        record = {
            "claim": self.folder.name, **header,
            "quantities": {key: asdict(interval) for key, interval in measured.items()},
            "verdict": verdict(read_claim(self.folder), measured),
            "core_seconds": sum(row["core_seconds"] for row in rows),
            "environment": describe_environment("cpu", "float32"), "values": rows,
        }  # fmt: skip
        _write(output / RECORD, record)
        self._draw(record, output)
        return record

    def _row(self, size: Any, condition: dict[str, Any], seed: int, output: Path) -> dict[str, Any]:
        """Returns a measured row as it is written: plain data, with the seconds that it took."""
        start = time.process_time()
        values = self.measure(size, seed=seed, folder=output, **condition)
        row = {k: _encoded(v) for k, v in {**condition, "seed": seed, **values}.items()}
        row["core_seconds"] = round(time.process_time() - start, 3)
        return json.loads(json.dumps(row, allow_nan=False))

    def page(self, record: Mapping[str, Any] | None = None) -> str:
        """Returns claim, expectations, measured values, verdict and tables as Markdown."""
        claim = read_claim(self.folder)
        record = record or read_record(self.folder, claim)[0]
        rows = Rows(record["values"]) if record else Rows()
        measured = self.quantities(rows) if record else {}
        lines = [f"**Claim.** {claim.claim} *({claim.place})*", ""]
        if claim.quantities:
            lines += [
                "| it holds if | unit | expected | measured | outcome |",
                "|---|---|---|---|---|",
            ]
        for key, quantity in claim.quantities.items():
            value, outcome = ("not yet", "") if not record else (
                interval_text(measured[key]), quantity.outcome(measured[key])
            )  # fmt: skip
            lines.append(
                f"| {quantity.states} | {quantity.unit} | {range_text(quantity.expected)} "
                f"| {value} | {outcome} |"
            )
        if not record:
            return "\n".join([*lines, "", "**Not recorded yet.**"])
        outcome = verdict(claim, measured)
        lines += ["", f"**{outcome.capitalize()}.** {claim.why}".strip(), "", self.tables(rows)]
        return "\n".join([*lines, "", described(record, claim)]).replace("\n\n\n", "\n\n")

    def _draw(self, record: Mapping[str, Any], folder: Path) -> None:
        from matplotlib import pyplot as plt  # slow to import

        with plt.rc_context({"svg.hashsalt": "neuroconv", "font.size": 9}):
            figure = self.draw(Rows(record["values"]))
            write_atomically(folder / PICTURE, lambda path: figure.savefig(
                path, format="svg", transparent=True, metadata={"Date": None},
            ))  # fmt: skip
            plt.close(figure)


def read_record(folder: Path, claim: Claim) -> tuple[dict[str, Any], dict[str, Interval]]:
    """Reads FOLDER/result.json; returns the record and its quantities, empty if there is none.

    Raises:
        ValueError: the file is no record of the claim; it names the file.
    """
    path = folder / RECORD
    if not path.exists():
        return {}, {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = {key: Interval(**values) for key, values in record["quantities"].items()}
        verdict(claim, measured)
        described(record, claim)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {error!r}: expected what `run.py` writes for this claim.toml; measure again"
        ) from error
    return record, measured


def described(record: Mapping[str, Any], claim: Claim) -> str:
    """Returns how a record was made, and whether its numbers were known before."""
    seeds, environment = record["settings"]["seeds"], record["environment"]
    drawn = f"seeds {', '.join(map(str, seeds))}, " if len(seeds) > 1 else ""
    core = f"{environment['device']}, {environment['cpu_capability']}".removeprefix("cpu, ")
    return (
        f"{record['size'].capitalize()} run of version {record['version']}, "
        f"{len(record['values'])} rows, {drawn}{record['core_seconds'] / 60:.1f} minutes of one "
        f"core ({core}, torch {environment['packages']['torch']})."
        f"{' These numbers were known when the rule was written.' if claim.known else ''}"
    )


def interval_text(measured: Interval) -> str:
    """Returns a value with its interval."""
    if measured.low == measured.high:
        return number(measured.value)
    return f"{number(measured.value)} [{number(measured.low)}, {number(measured.high)}]"


def range_text(ends: tuple[float, float]) -> str:
    """Returns an expected range in words."""
    low, high = ends
    if high == float("inf"):
        return f"at least {number(low)}"
    return f"at most {number(high)}" if low == -float("inf") else f"{number(low)} to {number(high)}"


def _read_rows(path: Path, header: Mapping[str, Any]) -> Rows:
    """Returns the finished rows of a folder, without one that was half written."""
    if not path.exists():
        write_text(path, json.dumps(header) + "\n")
        return Rows()
    first, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before = json.loads(first)
    changed = [key for key in header if before.get(key) != header[key]]
    if changed:
        raise RunError(
            f"{path}: its rows are of another {' and '.join(changed)}: delete the folder, or give "
            "another --output"
        )
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        write_text(path, first + "".join(whole))
    return Rows(map(json.loads, whole))


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return {"flags": pack(value), "count": len(value)}
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.tolist()
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"flags", "count"}:
        return unpack(value["flags"], value["count"])
    return value


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON with one row of values a line."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in record["values"])
    head = json.dumps({**record, "values": []}, indent=1, allow_nan=False)
    write_text(path, head.replace('"values": []', f'"values": [\n{rows}\n ]') + "\n")
