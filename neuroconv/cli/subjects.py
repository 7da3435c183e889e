"""What `profile` can be asked about: cells, the zoo's models, runs, and anybody's modules."""

import fnmatch
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from neuroconv.cli.zoo import image_shape
from neuroconv.neurons import CELL_CLASSES
from neuroconv.training import rebuild
from neuroconv.zoo import create_model, list_models

AXONS = 1_000  # that a cell is profiled with; sparse wiring costs the same for any number

Result = TypeVar("Result")
Kind = Literal["cell", "zoo", "run", "module"]


@dataclass(frozen=True)
class Options:
    """What subjects are built with; each option is for the kinds that its comment names."""

    batch: int = 1
    neurons: int = 1  # cell
    variant: Any = None  # cell
    mode: Any = "same"  # cell
    backend: Any = "auto"  # cell
    image_shape: tuple[int, int, int] | None = None  # zoo
    input_shape: tuple[int, ...] | None = None  # module


@dataclass(frozen=True)
class Subject:
    """A model, and what it is called with.

    Attributes:
        name: as the tables show it.
        kind: of its name.
        build: gives the model and its inputs; may be called in any torch.device.
    """

    name: str
    kind: Kind
    build: Callable[[], tuple[nn.Module, Tensor]]

    def run(self, job: Callable[[], Result], inputs: Tensor) -> Result:
        """The job's result. What somebody else's module raises becomes a message about it.

        Raises:
            ValueError: the module raised.
        """
        if self.kind != "module":
            return job()
        try:
            return job()
        except Exception as error:
            raise ValueError(
                f"{self.name}, called with a tensor of shape {tuple(inputs.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error


def find_subjects(names: Sequence[str], options: Options) -> list[Subject]:
    """The subjects of all names, each once; a wildcard stands for cells and models of the zoo.

    Raises:
        ValueError: a name that is nobody's.
    """
    known = [*CELL_CLASSES, *list_models()]
    found: dict[str, Subject] = {}
    for name in names:
        if not name:
            raise ValueError("an empty name; expected names such as: granule purkinje")
        if any(sign in name for sign in "*?["):
            matches = fnmatch.filter(known, name)
            if not matches:
                raise ValueError(f"{name!r} matches none of {', '.join(known)}")
        else:
            matches = [name]
        for match in matches:
            found[match] = _find(match, options)
    return list(found.values())


def _find(name: str, options: Options) -> Subject:
    if name in CELL_CLASSES:
        return Subject(name, "cell", lambda: _cell(name, options))
    if ":" in name:
        return Subject(name, "module", lambda: _module(name, options))
    if Path(name).is_dir():
        return Subject(Path(name).name, "run", lambda: _run(name, options))
    try:
        shape = options.image_shape or image_shape(name)
    except ValueError as error:
        raise ValueError(
            f"{error}; or a cell: {', '.join(CELL_CLASSES)}; or a run's folder; or module:Class"
        ) from None
    return Subject(
        name,
        "zoo",
        lambda: (create_model(name, image_shape=shape), torch.rand(options.batch, *shape)),
    )


def _cell(name: str, options: Options) -> tuple[nn.Module, Tensor]:
    population = CELL_CLASSES[name](
        AXONS,
        options.neurons,
        variant=options.variant,
        mode=options.mode,
        backend=options.backend,
    )
    return population, torch.rand(options.batch, AXONS, population.time_steps)


def _run(folder: str, options: Options) -> tuple[nn.Module, Tensor]:
    with torch.device("cpu"):
        _, model, splits = rebuild(folder)
        if len(splits.val) < options.batch:
            raise ValueError(f"--batch {options.batch}: {folder} has {len(splits.val)} images")
        images = torch.stack([splits.val[place][0] for place in range(options.batch)])
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
