"""Modules by their import path, module:Class, with arguments and inputs from the command line."""

import importlib
import sys
import tomllib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Dtype = Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
DTYPES: tuple[str, ...] = get_args(Dtype)


def build_module(name: str, arguments: Sequence[str]) -> nn.Module:
    """Calls what module:Class names with keyword arguments, each a word NAME=VALUE.

    Raises:
        ValueError: nothing of this name, or a call that fails or returns no nn.Module.
    """
    path, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the console script does not look into the current folder
    try:
        build = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}; expected module:Class, as torch.nn:Identity") from error
    keywords = dict(map(_argument, arguments))
    try:
        model = build(**keywords)
    except Exception as error:
        given = ", ".join(arguments) or "no arguments"
        raise ValueError(
            f"{name}: {type(error).__name__}: {error}; expected a class, or a function, that takes "
            f"{given}; give others as --argument NAME=VALUE"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: made a {type(model).__name__}; expected an nn.Module")
    return model


def _argument(word: str) -> tuple[str, Any]:
    """Returns name and value of NAME=VALUE: the value as TOML has it, or else a string."""
    name, sign, text = word.partition("=")
    if not sign or not name.isidentifier():
        raise ValueError(f"--argument {word}: expected NAME=VALUE, such as num_classes=10")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return name, text
    return name, parsed["value"] if len(parsed) == 1 else text


def build_inputs(
    shapes: Sequence[Sequence[int]], dtypes: Sequence[str], batch: int
) -> tuple[Tensor, ...]:
    """Returns an input for each shape of a sample: uniform noise, or zeros of an integer dtype.

    Raises:
        ValueError: dtypes that are neither one for all nor one for each.
    """
    if len(dtypes) not in (1, len(shapes)):
        raise ValueError(
            f"--input-dtype {' '.join(dtypes)}: expected one, or one for each --input-shape, of "
            f"which there are {len(shapes)}"
        )
    names = dtypes if len(dtypes) == len(shapes) else [*dtypes] * len(shapes)
    kinds: list[torch.dtype] = [getattr(torch, name) for name in names]
    return tuple(
        # Zeros are valid token ids in any table.
        (torch.rand if kind.is_floating_point else torch.zeros)(batch, *shape, dtype=kind)
        for shape, kind in zip(shapes, kinds, strict=True)
    )
