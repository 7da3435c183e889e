"""How large the project is and how its files hang together: `python tests/sizes.py` prints it.

Each of `MEASURES` has a limit, to which test_sizes.py holds it.
"""

import ast
import dataclasses
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "neuroconv"

# The definition of a neuron does not ask who looks on, or which kernel could run.
QUESTIONS = {
    *("is_compiling", "is_exporting", "is_scripting", "is_tracing", "is_counting", "counting"),
    *("is_watched", "has_hooks", "forward_ad"),
    *("_are_functorch_transforms_active", "native_kernels", "runs_native", "takes", "fits"),
    *("fuses", "fuses_tree", "norms_agree"),
}
# Tools that may: they fold weights and keep graphs of finished neurons, and state what runs.
TOOLS = ("fold", "graphed", "costs")

# --- lines


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def code_lines(source: str, first: int = 1, last: int | None = None) -> int:
    """Counts the lines from first to last that are neither blank, comment nor docstring."""
    tree = ast.parse(source)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                    left_out.update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    rows = source.splitlines()[:last]
    return sum(
        bool(row.strip()) and not row.strip().startswith("#") and number not in left_out
        for number, row in enumerate(rows, 1)
        if number >= first
    )


def method_lines(name: str) -> int:
    """Counts the code lines of a method, "Class.method", wherever in the package it is defined.

    Raises:
        LookupError: no class of the package has the method, or several have.
    """
    owner, method = name.split(".")
    spans = [
        (path, node.lineno, node.end_lineno)
        for path in modules()
        for scope in ast.walk(ast.parse(path.read_text()))
        if isinstance(scope, ast.ClassDef) and scope.name == owner
        for node in scope.body
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    if len(spans) != 1:
        raise LookupError(f"{name} is defined {len(spans)} times in the package; expected once")
    path, first, last = spans[0]
    return code_lines(path.read_text(), first, last)


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def by_part() -> dict[str, tuple[int, int]]:
    """Counts lines and code lines by the package's first level: folders and files."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in modules():
        part = path.relative_to(PACKAGE).parts[0]
        total, code = sizes.get(part, (0, 0))
        sizes[part] = total + lines(path), code + code_lines(path.read_text())
    return sizes


# --- imports


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Full names that a module's source imports, inside functions too; relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")])
            yield from (f"{base.rstrip('.')}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    names = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each module imports: the deepest that a name leads to."""
    names = {module_name(path) for path in modules()}
    graph = {}
    for path in modules():
        importer = module_name(path)
        targets = set()
        for name in imported(path.read_text(), importer, path.name == "__init__.py"):
            while name not in names and "." in name:
                name = name.rpartition(".")[0]
            if name in names and name != importer:
                targets.add(name)
        graph[importer] = targets
    return graph


def in_cycles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes that a path leads back to: two files that import one another, or a longer ring."""

    def reachable(node: str) -> set[str]:
        reached: set[str] = set()
        ahead = [*graph[node]]
        while ahead:
            target = ahead.pop()
            if target not in reached:
                reached.add(target)
                ahead += graph[target]
        return reached

    return {node for node in graph if node in reachable(node)}


# --- definitions


def questions(source: str) -> list[str]:
    """The names in a source that ask how to run: see `QUESTIONS`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                names.append(name)
            case ast.FunctionDef(name=name):
                names.append(name)
    return [name for name in names if name in QUESTIONS]


def definition_questions() -> list[str]:
    return [
        f"{path.relative_to(PACKAGE)}: {name}"
        for part in ("layers", "neurons")
        for path in modules(PACKAGE / part)
        if not any(name.startswith(TOOLS) for name in path.relative_to(PACKAGE).parts)
        for name in questions(path.read_text())
    ]


def files_entered() -> set[str]:
    """The files of the package in which a granule cell's eager forward calls a function.

    Fast kernels are off: these are the files to read for understanding what it computes.
    """
    import torch

    from neuroconv.kernels.operator import kernels_off
    from neuroconv.neurons import Granule

    entered: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                entered.add(str(path.relative_to(PACKAGE)))

    cells, activity = Granule(20, 8), torch.rand(2, 20, 5)
    with kernels_off():
        cells(activity)  # whatever is imported or filled at the first call
        sys.setprofile(note)
        try:
            cells(activity)
        finally:
            sys.setprofile(None)
    return entered


def filter_path() -> dict[str, set[str]]:
    """The functions that hold a config's filter when the convolution is built, and its names there.

    Wrappers that check any keywords are left out: they are functions within functions.

    Raises:
        LookupError: the filter does not arrive at the convolution.
    """
    import torch

    from neuroconv.zoo import create_model

    table = tomllib.loads("[purkinje.tree]\nsheet = [5, 7]\nfilter = [3, 7, 2]")
    path: dict[str, set[str]] = {}

    def note(frame: FrameType | None, event: str, argument: object) -> None:
        assert frame is not None
        code = frame.f_code
        if event != "call" or path or code.co_qualname != "DendriticConv.__init__":
            return
        if not _names((3, 7, 2), "", frame.f_locals):
            return  # of other cells
        while frame is not None:
            code = frame.f_code
            if PACKAGE in Path(code.co_filename).parents and "<locals>" not in code.co_qualname:
                path[code.co_qualname] = _names((3, 7, 2), "", frame.f_locals)
            frame = frame.f_back

    sys.setprofile(note)
    try:
        with torch.device("meta"):
            create_model("cerebellum_small", image_shape=(1, 8, 8), time_steps=2, **table)
    finally:
        sys.setprofile(None)
    if not path:
        raise LookupError("no DendriticConv.__init__ was given the config's filter, [3, 7, 2]")
    return {function: names for function, names in path.items() if names}


def _names(value: tuple[int, ...], name: str, container: object) -> set[str]:
    """The names under which a value stands within tables and dataclasses."""
    if isinstance(container, list | tuple):
        return {name} if tuple(container) == value else set()
    if dataclasses.is_dataclass(container) and not isinstance(container, type):
        container = vars(container)
    if not isinstance(container, dict):
        return set()
    return set().union(*(_names(value, str(key), inner) for key, inner in container.items()))


def total_lines(folder: Path) -> int:
    return sum(map(lines, modules(folder)))


MEASURES: dict[str, tuple[Callable[[], int], int]] = {
    "lines of the package": (lambda: total_lines(PACKAGE), 34_700),
    "code lines of the package": (lambda: sum(code for _, code in by_part().values()), 23_660),
    "lines of the tests": (lambda: total_lines(PROJECT / "tests"), 28_730),
    "lines of the longest module": (lambda: max(map(lines, modules())), 350),
    "files in cycles of imports": (lambda: len(in_cycles(import_graph())), 0),
    **{
        f"code lines of {method}": (partial(method_lines, method), 25)
        for owner in ("Population", "GranuleConv2d")
        for method in (f"{owner}.forward", f"{owner}.stream")
    },
    "questions about how to run in layers/ and neurons/": (lambda: len(definition_questions()), 0),
    "package files that a granule cell's forward enters": (lambda: len(files_entered()), 18),
    "names of a filter from a config to the convolution": (
        lambda: len(set().union(*filter_path().values())), 1,
    ),
    "functions that take a filter from a config to the convolution": (
        lambda: len(filter_path()), 4,
    ),
}  # fmt: skip


def main() -> None:
    for part, (total, code) in by_part().items():
        print(f"{part:<24}{total:>7}{code:>7}")
    print()
    for name, (measure, limit) in MEASURES.items():
        number = measure()
        print(f"{name:<62}{number:>7} of {limit}{'' if number <= limit else '  !'}")
    print()
    longest = sorted(((lines(path), path) for path in modules()), reverse=True)[:5]
    print("longest:", *(f"{path.relative_to(PACKAGE)} {n}" for n, path in longest), sep="\n    ")
    print("in cycles:", *sorted(in_cycles(import_graph())), sep="\n    ")
    print("questions:", *definition_questions(), sep="\n    ")
    print("filter:", *(f"{f}: {', '.join(n)}" for f, n in filter_path().items()), sep="\n    ")
    print("entered:", *sorted(files_entered()), sep="\n    ")


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    main()
