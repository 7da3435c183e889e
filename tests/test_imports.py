"""The direction of imports, read from the source of every file."""

import importlib
from pathlib import Path

import pytest

import neuroconv
from tests.sizes import imported

ROOT = Path(neuroconv.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What the files of a part may import of the project, themselves included.
ALLOWED: dict[str, set[str]] = {
    "references": {"references"},
    "core": {"core"},
    "kernels": {"core", "kernels"},
    "layers": {"core", "kernels", "layers"},
    "neurons": {"references", "core", "kernels", "layers", "neurons"},
    "zoo": {"core", "kernels", "layers", "neurons", "data", "zoo"},
    "learning": {"core", "kernels", "layers", "neurons", "zoo", "flops", "learning"},
    "flops": {"references", "core", "kernels", "layers", "flops"},
    "brain": {"references", "core", "kernels", "layers", "neurons", "flops", "brain"},
    "data": {"core", "data"},
    "comparison": {
        *("core", "layers", "neurons", "zoo", "flops"),
        *("data", "training", "report", "comparison"),
    },
}
FORBIDDEN: dict[str, set[str]] = {
    "report": {"training", "comparison", "essay", "cli"},
    "training": {"report", "comparison", "essay", "cli"},
    "essay": {"brain", "cli"},
}


def parts(source: str, module: str, is_package: bool = False) -> set[str]:
    """First-level parts of neuroconv that a source imports; "" is the package itself."""
    names = set()
    for name in imported(source, module, is_package):
        if name.split(".")[0] == "neuroconv":
            second = name.split(".")[1] if "." in name else ""
            is_part = (ROOT / second).is_dir() or (ROOT / f"{second}.py").is_file()
            names.add(second if second and is_part else "")
    return names


def violations(source: str, module: str, is_package: bool = False) -> set[str]:
    part = module.split(".")[1] if "." in module else ""
    used = parts(source, module, is_package)
    if part in ALLOWED:
        return used - ALLOWED[part]
    return used & FORBIDDEN.get(part, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    names = path.relative_to(ROOT.parent).with_suffix("").parts
    is_package = names[-1] == "__init__"
    module = ".".join(names[:-1] if is_package else names)
    wrong = violations(path.read_text(), module, is_package)
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("import neuroconv.training", "neuroconv.layers.soma", {"training"}),
        ("from neuroconv import training", "neuroconv.zoo.registry", {"training"}),
        ("from neuroconv import create_model", "neuroconv.zoo.registry", {""}),
        ("from ..neurons import Granule", "neuroconv.layers.soma", {"neurons"}),
        ("from .. import zoo", "neuroconv.flops.exact", {"zoo"}),
        ("def f():\n    from neuroconv.zoo import mlp", "neuroconv.data.sources", {"zoo"}),
        ("from neuroconv.training.loop import train", "neuroconv.report.plots", {"training"}),
        ("from neuroconv.cli import main", "neuroconv.training.loop", {"cli"}),
        ("from neuroconv.comparison import match_flops", "neuroconv.zoo.registry", {"comparison"}),
        ("from neuroconv.layers import Cost", "neuroconv.flops.exact", set()),
        ("from .cost import Cost", "neuroconv.layers.soma", set()),
        ("import neurons, torch", "neuroconv.layers.soma", set()),
    ],
)
def test_the_check_sees_a_violation(source: str, module: str, wrong: set[str]) -> None:
    assert violations(source, module) == wrong


def test_every_part_is_there_and_has_files() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in FILES if path.parent != ROOT}
    assert set(ALLOWED) | set(FORBIDDEN) <= folders


@pytest.mark.parametrize("part", ["", ".layers", ".neurons", ".zoo"])
def test_public_names_exist_once(part: str) -> None:
    module = importlib.import_module(f"neuroconv{part}")
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
