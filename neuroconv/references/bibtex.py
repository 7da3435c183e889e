"""A strict reader for the subset of BibTeX that `references.bib` is written in.

Each field is on a line of its own, in braces: the parser needs no library, and whatever it does not
understand is an error instead of a silently lost reference.
"""

import re
from pathlib import Path
from typing import NamedTuple

_START = re.compile(r"@(\w+)\{([\w-]+),")
_FIELD = re.compile(r"\s*(\w+)\s*=\s*\{(.*)\},?")


class Entry(NamedTuple):
    """A BibTeX entry.

    Attributes:
        kind: "article", "misc", ..., without the @.
        key: the name under which it is cited.
        fields: values by field name.
    """

    kind: str
    key: str
    fields: dict[str, str]


def read_bibtex(file: Path) -> list[Entry]:
    """Returns the entries of a BibTeX file, in order.

    Raises:
        ValueError: a line that is none of "@kind{key,", "field = {value},", "}", a comment (%) or
            blank; a key or field that is repeated; an entry that is not closed.
    """
    entries: dict[str, Entry] = {}
    entry: Entry | None = None
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        position = f"{file.name}, line {number}: {line!r}"
        if entry is None:
            if not line.strip() or line.startswith("%"):
                continue
            start = _START.fullmatch(line.strip())
            if start is None:
                raise ValueError(f"{position}; expected an entry such as @article{{smith2001,")
            entry = Entry(start[1], start[2], {})
        elif line.strip() == "}":
            if entry.key in entries:
                raise ValueError(f"{position}: second entry {entry.key!r}; expected unique keys")
            entries[entry.key] = entry
            entry = None
        else:
            field = _FIELD.fullmatch(line)
            if field is None or not field[2].strip():
                raise ValueError(f"{position}; expected a field such as year = {{2001}},")
            if field[1] in entry.fields:
                raise ValueError(f"{position}: second {field[1]!r} of {entry.key!r}; expected one")
            entry.fields[field[1]] = field[2]
    if entry is not None:
        raise ValueError(f"{file.name}: entry {entry.key!r} is not closed; expected a line with }}")
    return list(entries.values())


def split_names(names: str) -> tuple[str, ...]:
    """Splits a BibTeX name list: "Smith and {de Kock} and others" gives three names."""
    return tuple(name.strip().removeprefix("{").removesuffix("}") for name in names.split(" and "))
