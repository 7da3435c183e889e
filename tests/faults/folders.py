"""What the fault suite reads in run folders, and what it does to their files."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

Whole = Callable[..., dict[str, Any]]  # settings of `jobs.fit` in; the outcome of its run out
TIMES = ("seconds", "images_per_second")  # which differ from run to run
WEIGHTS = ("best.safetensors", "last.safetensors")


def outcome(folder: Path) -> dict[str, Any]:
    """Returns what a finished run learned: the bytes of its weights, and its history."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    records = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return {"history": records} | {file: (folder / file).read_bytes() for file in WEIGHTS}


def checkpoints(folder: Path) -> dict[int, Path]:
    """Returns the checkpoints that exist, as their records, by their steps, the last one last."""
    records = sorted((folder / "checkpoints").glob("*.json"))
    return {int(path.stem.rpartition("-")[2]): path for path in records}


def last_step(folder: Path) -> int:
    """Returns the step of the last checkpoint; 0 without one."""
    return max(checkpoints(folder), default=0)


def debris(folder: Path) -> list[str]:
    """Returns the files that an unfinished save leaves: temporaries, tensors without a record."""
    records = {path.stem for path in checkpoints(folder).values()}
    tensors = {path.stem for path in (folder / "checkpoints").glob("*step*.safetensors")}
    return [*sorted(tensors - records), *(path.name for path in folder.rglob("*.tmp"))]


def flip(path: Path, bit: int) -> None:
    """Changes one bit, counted from the file's first and around its end."""
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path: Path, quarters: int) -> None:
    """Keeps the first quarters of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * quarters // 4])


def change(path: Path, key: str, value: Any) -> None:
    """Sets a key, as in "model.unit.output.mean_wait", in a TOML file."""
    table = document = tomllib.loads(path.read_text())
    *names, last = key.split(".")
    for name in names:
        table = table[name]
    assert table.get(last) != value, f"{path}: {key} is {value!r} already"
    table[last] = value
    path.write_text(tomli_w.dumps(document))
