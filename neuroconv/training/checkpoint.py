"""Crash-safe files: written whole or not at all, and checked when they are read."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

_HEADER = b"neuroconv checkpoint, sha256 "


class CheckpointError(ValueError):
    """A file of weights or of training state that is missing, damaged or of another model."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, then replaces `path` by it in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask allows: safetensors would write 0600
        write(temporary)
        temporary.chmod(mode)
        _synchronise(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _synchronise(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, in UTF-8, in one step."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes training state (tensors, numbers, strings, lists, dicts) behind its SHA-256 sum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    header = _HEADER + hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(header + b"\n" + content))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a file of `save_checkpoint`, tensors on the CPU; CheckpointError if it is damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    header, _, content = path.read_bytes().partition(b"\n")
    if header != _HEADER + hashlib.sha256(content).hexdigest().encode():
        raise CheckpointError(
            f"{path}: damaged (its SHA-256 sum does not fit): delete it and train again"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's parameters and buffers as safetensors; shared tensors once."""
    write_atomically(path, lambda temporary: save_model(model, str(temporary)))


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Reads weights into `model`; CheckpointError if the file is damaged or another model's."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    if sha256 is not None and (actual := file_sum(path)) != sha256:
        raise CheckpointError(
            f"{path}: damaged: SHA-256 sum {actual}, recorded {sha256}: train again"
        )
    try:
        load_model(model, path)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: does not fit {type(model).__name__}: {error}") from error


def file_sum(path: Path) -> str:
    """Returns a file's SHA-256 sum, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synchronise(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
