"""Modules by their import path, module:Class, with arguments and inputs from the command line."""

import importlib
import sys
import tomllib
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


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
        raise ValueError(
            f"{name}: {type(error).__name__}: {error}; expected a class, or a function, that takes "
            f"{', '.join(arguments) or 'no arguments'}; give others as --argument NAME=VALUE"
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
        return name, tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return name, text


def build_inputs(
    shapes: Sequence[Sequence[int]], dtypes: Sequence[str], batch: int
) -> tuple[Tensor, ...]:
    """Returns an input for each shape of a sample: uniform noise, or zeros of an integer dtype.

    Zeros are token ids that every table has. Raises ValueError for dtypes that are neither one for
    all nor one for each.
    """
    if len(dtypes) not in (1, len(shapes)):
        given = f"--input-dtype {' '.join(dtypes)}"
        raise ValueError(f"{given}: expected one, or one for each of {len(shapes)} --input-shape")
    kinds: list[torch.dtype] = [getattr(torch, name) for name in islice(cycle(dtypes), len(shapes))]
    return tuple(
        (torch.rand if kind.is_floating_point else torch.zeros)(batch, *shape, dtype=kind)
        for shape, kind in zip(shapes, kinds, strict=True)
    )
