"""The project's sizes and the shape of its imports against their limits: see tests/sizes.py."""

import pytest

from tests.sizes import MEASURES, code_lines, in_cycles, questions


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_keeps_its_limit(name: str) -> None:
    measure, limit = MEASURES[name]
    assert measure() <= limit


def test_the_measures_see_what_they_look_for() -> None:
    source = (
        '"""D."""\n\n# comment\nx = """a\nb"""\n\ndef f():\n    """D\n    d."""\n    takes(x)\n'
    )
    assert code_lines(source) == 4
    assert code_lines(source, first=7) == 2
    assert questions(source) == ["takes"]
    assert questions("from torch.compiler import is_compiling as c\nc() or m.is_tracing()") == [
        "is_compiling",
        "is_tracing",
    ]
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert in_cycles(graph) == {"b", "c"}
