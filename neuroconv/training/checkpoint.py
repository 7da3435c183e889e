"""Files of a run, checked when they are read."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_model, save_file, save_model
from torch import Tensor, nn

from neuroconv.core.files import write_atomically, write_text

_SUM = "sha256_of_this"  # the last key of a record


class CheckpointError(ValueError):
    """A file of a run that is missing, damaged or of another model."""


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object, with a SHA-256 sum of its text as the last key.

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    # A line for each key: an indented text takes seconds for a long history.
    lines = [f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in values.items()]
    body = "{\n" + ",\n".join(lines)
    write_text(path, body + _end(body))


def read_record(path: Path, unsummed: Collection[str] = ()) -> dict[str, Any]:
    """Reads a file of `write_record`, or an older one with exactly the keys `unsummed`.

    Raises:
        CheckpointError: it is missing, or any of its bytes has changed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text)
        if isinstance(values, dict):
            if unsummed and {*values} == {*unsummed}:
                return values
            body = text[: text.rfind(f',\n "{_SUM}"')]
            if text == body + _end(body):
                del values[_SUM]
                return values
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    raise CheckpointError(f"{path}: damaged: its text and its SHA-256 sum do not fit")


def _end(body: str) -> str:
    """Returns the end of a record, with the sum of the text without it."""
    digest = hashlib.sha256(f"{body}\n}}\n".encode()).hexdigest()
    return f',\n "{_SUM}": "{digest}"\n}}\n'


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes tensors as safetensors; returns the file's SHA-256 sum."""
    distinct: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        if values.untyped_storage().data_ptr() in storages:  # which safetensors refuses
            values = values.clone()
        storages.add(values.untyped_storage().data_ptr())
        distinct[name] = values
    sums: list[str] = []

    def write(temporary: Path) -> None:
        save_file(distinct, temporary)
        sums.append(file_sum(temporary))

    write_atomically(path, write)
    return sums[0]


def load_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Reads a file of `save_tensors` to the CPU; CheckpointError if it is damaged or missing."""
    check_sum(path, sha256)
    # Not load_file, whose tensors are a map of the file: lost if it is cut or written over.
    tensors: dict[str, Tensor] = load(path.read_bytes())
    return tensors


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's parameters and buffers as safetensors; shared tensors once."""
    write_atomically(path, lambda temporary: save_model(model, str(temporary)))


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads weights into `model`; CheckpointError if the file is damaged or another model's."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    try:
        load_model(model, path)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: does not fit {type(model).__name__}: {error}") from error


def check_sum(path: Path, sha256: str) -> None:
    """Raises a CheckpointError if a file is missing or its SHA-256 sum is another."""
    try:
        actual = file_sum(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing: copy it back, or train again") from None
    if actual != sha256:
        raise CheckpointError(
            f"{path}: damaged: SHA-256 sum {actual}, recorded {sha256}: copy it back, or train "
            "again"
        )


def file_sum(path: Path) -> str:
    """Returns a file's SHA-256 sum, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
