"""The NAMEs of `profile`: cells, the zoo's models, runs, and modules of any kind."""

import fnmatch
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuroconv.neurons import CELL_CLASSES
from neuroconv.training import rebuild
from neuroconv.zoo import create_model, default_keywords, list_models

AXONS = 1_000  # of a profiled cell; sparse wiring costs the same for any number

Kind = Literal["cell", "zoo", "run", "module"]


@dataclass(frozen=True)
class Options:
    """Options of `profile` by which a subject is built, each for the kind in its comment."""

    batch: int = 1
    neurons: int = 1  # cell
    variant: Any = None  # cell
    mode: Any = "same"  # cell
    backend: Any = "auto"  # cell
    image_shape: tuple[int, int, int] | None = None  # zoo
    input_shape: tuple[int, ...] | None = None  # module


@dataclass(frozen=True)
class Subject:
    """A model and its inputs, which `build` makes on the current torch.device."""

    name: str
    kind: Kind
    build: Callable[[], tuple[nn.Module, Tensor]]


def find_subjects(names: Sequence[str], options: Options) -> list[Subject]:
    """Returns the subjects of all names, each once; a wildcard matches cells and zoo models.

    Raises:
        ValueError: a name is unknown.
    """
    all_names = [*CELL_CLASSES, *list_models()]
    subjects: dict[str, Subject] = {}
    for name in names:
        if not name:
            raise ValueError("an empty name; expected names such as: granule purkinje")
        is_wildcard = any(sign in name for sign in "*?[")
        matches = fnmatch.filter(all_names, name) if is_wildcard else [name]
        if not matches:
            raise ValueError(f"{name!r} matches none of {', '.join(all_names)}")
        subjects |= {match: _find(match, options) for match in matches}
    return list(subjects.values())


def _find(name: str, options: Options) -> Subject:
    if name in CELL_CLASSES:
        return Subject(name, "cell", lambda: _cell(name, options))
    if ":" in name:
        return Subject(name, "module", lambda: _module(name, options))
    if Path(name).is_dir():
        return Subject(Path(name).name, "run", lambda: _run(name, options))
    try:
        shape = options.image_shape or default_keywords(name)["image_shape"]
    except ValueError as error:
        raise ValueError(
            f"{error}; or a cell: {', '.join(CELL_CLASSES)}; or a run's folder; or module:Class"
        ) from None
    return Subject(name, "zoo", lambda: _network(name, shape, options.batch))


def _cell(name: str, options: Options) -> tuple[nn.Module, Tensor]:
    stages: Any = {"tree": {"mode": options.mode}, "taps": {"backend": options.backend}}
    cells = CELL_CLASSES[name](AXONS, options.neurons, variant=options.variant, **stages)
    return cells, torch.rand(options.batch, AXONS, cells.time_steps)


def _network(name: str, image_shape: tuple[int, ...], batch: int) -> tuple[nn.Module, Tensor]:
    return create_model(name, image_shape=image_shape), torch.rand(batch, *image_shape)


def _run(folder: str, options: Options) -> tuple[nn.Module, Tensor]:
    with torch.device("cpu"):
        _, model, splits = rebuild(folder)
        if len(splits.val) < options.batch:
            raise ValueError(f"--batch {options.batch}: {folder} has {len(splits.val)} images")
        images = torch.stack([splits.val[index][0] for index in range(options.batch)])
    return model, images


def _module(name: str, options: Options) -> tuple[nn.Module, Tensor]:
    path, _, attribute = name.partition(":")
    if options.input_shape is None:
        raise ValueError(f"{name}: give the shape of one sample, such as --input-shape 3x224x224")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the console script does not look into the current folder
    try:
        build = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}; expected module:Class, as torch.nn:Identity") from error
    try:
        model = build()
    except Exception as error:
        raise ValueError(
            f"{name}: {type(error).__name__}: {error}; expected a class, or a function, that takes "
            "no arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: made a {type(model).__name__}; expected an nn.Module")
    return model, torch.rand(options.batch, *options.input_shape)
