"""Files of a run, checked when they are read."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_model, save_file, save_model
from torch import Tensor, nn

from neuroconv.core.files import WriteError, write_atomically, write_text, writing
from neuroconv.training.distributed import Ranks

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


def load_tensors(path: Path, sha256: str | dict[str, str]) -> dict[str, Tensor]:
    """Reads a file of `save_tensors` to the CPU; checks, but does not read, a folder of
    `save_parts`. CheckpointError if they are damaged or missing."""
    if not isinstance(sha256, str):
        for name, part in sha256.items():
            check_sum(path / name, part)
        return {}
    check_sum(path, sha256)
    # Not load_file, whose tensors are a map of the file: lost if it is cut or written over.
    return load(path.read_bytes())


def save_parts(folder: Path, tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """Writes tensors, DTensors among them, to a folder: each process its part, as safetensors.

    All processes must see the folder, and call this. Any number of processes can load it.

    Returns:
        The files' SHA-256 sums.

    Raises:
        WriteError: a process cannot write its part.
    """
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, save

    def begin() -> None:
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed here
            folder.mkdir(parents=True)

    ranks.first(begin)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # in one process
            save(tensors, storage_writer=writer, no_dist=ranks.size == 1)
    except CheckpointException as error:
        reason = "; ".join(str(failure) for failure, _ in error.failures.values())
        raise WriteError(f"{folder}: cannot be written ({reason}): free some space") from error
    files = sorted(folder.iterdir())[ranks.rank :: ranks.size]
    parts = ranks.gather({file.name: file_sum(file) for file in files})
    return {name: sha256 for sums in parts for name, sha256 in sums.items()}


def load_parts(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Overwrites tensors by those of a folder of `save_parts`, or the parts of them; returns them
    and what else is there. All processes must call this.

    Raises:
        CheckpointError: the folder is of another model.
    """
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, load

    reader: Any = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    parts = {
        name: tensors[name] if name in tensors else torch.empty(x.size, dtype=x.properties.dtype)
        for name, x in stored.items()
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(parts, storage_reader=reader, no_dist=ranks.size == 1)
    except (CheckpointException, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} belongs to another model: {error}") from error
    return parts


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
