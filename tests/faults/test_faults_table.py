"""README.md lists every case of the fault suite: NEUROCONV_REFRESH=1 writes it again."""

import ast
import os
from pathlib import Path

FOLDER = Path(__file__).parent
HEAD = """# Faults, and what a run does then

Real ones: processes, signals, files and disks, nothing simulated. This table is made from the
tests' docstrings, by `NEUROCONV_REFRESH=1 python -m pytest tests/faults/test_faults_table.py`.
`make test` runs most of them, `make test-all` each with more seeds, and those under torchrun.

| case | expected | test |
|---|---|---|
"""


def rows() -> list[str]:
    """Returns a row for each test: its docstring "Case: expected.", or what its name says."""
    lines = []
    for path in sorted({*FOLDER.glob("test_faults_*.py")} - {Path(__file__)}):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                sentence = node.name.removeprefix("test_").replace("_", " ")
                text = " ".join((ast.get_docstring(node) or "").split())
                case, _, expected = text.removesuffix(".").partition(": ")
                cells = (case, expected) if expected else (sentence, "as named")
                lines.append(f"| {' | '.join(cells)} | `{path.name}::{node.name}` |\n")
    return lines


def test_the_table_lists_the_tests() -> None:
    table = HEAD + "".join(rows())
    if os.environ.get("NEUROCONV_REFRESH"):
        (FOLDER / "README.md").write_text(table)
    assert (FOLDER / "README.md").read_text() == table, "refresh it: NEUROCONV_REFRESH=1"
