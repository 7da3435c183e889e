"""What a console shows of something printable, for the tests of the brain report."""

import io
from typing import Any

from rich.console import Console


def printed(renderable: Any, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
