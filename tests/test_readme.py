"""Every page says what its commands say: its Python runs, its quoted outputs are printed.

With NEUROCONV_REFRESH=1 the quoted outputs are replaced instead of compared.
"""

import os
import re
import runpy
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import tyro

from neuroconv.cli.dispatch import COMMANDS, command_class, split_overrides
from neuroconv.training import load_config
from tests.commands import status_of

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[ne]*/**/*.md"))]  # neuroconv, experiments
OUTPUT = re.compile(
    r"<!-- output of `(?P<command>.+?)`(?:, (?P<columns>\d+) columns)? -->\n\n"
    r"(?:(?P<quoted>(?!<!-- end -->).*?)\n\n)?<!-- end -->",  # nothing, before the first refresh
    re.DOTALL,
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


QUOTED = [
    pytest.param(path, match, id=f"{name(path)}: {match['command']}")
    for path in READMES
    for match in OUTPUT.finditer(path.read_text())
]


def printed(command: str) -> str:
    """Returns what a command prints, without the ends of lines."""
    program, *words = shlex.split(command)
    with redirect_stdout(StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        if program == "neuroconv":
            assert status_of(*words) == 0
        else:
            patch.setattr("sys.argv", words)
            patch.syspath_prepend(ROOT / Path(words[0]).parent)  # as Python does for a script
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


@pytest.mark.parametrize(("path", "match"), QUOTED)
def test_a_quoted_output_is_what_the_command_prints(
    path: Path, match: re.Match[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", match["columns"] or "80")
    output, quoted = printed(match["command"]), match["quoted"] or ""
    fenced = re.fullmatch(r"```text\n(.*)\n```", quoted, re.DOTALL)
    if os.environ.get("NEUROCONV_REFRESH"):
        block = f"```text\n{output}\n```" if fenced else output
        head = match[0].partition("\n")[0]
        path.write_text(path.read_text().replace(match[0], f"{head}\n\n{block}\n\n<!-- end -->"))
        return
    assert output == (fenced[1] if fenced else quoted)


QUOTED_CODE = [
    pytest.param(source, code, id=f"{name(path)}: {source}")
    for path in READMES
    for source, code in re.findall(
        r"<!-- quoted from (\S+) -->\n\n```py\n(.*?)\n```", path.read_text(), re.DOTALL
    )
]


@pytest.mark.parametrize(("source", "code"), QUOTED_CODE)
def test_quoted_code_stands_in_its_file(source: str, code: str) -> None:
    lines = "\n".join(line.strip() for line in (ROOT / source).read_text().splitlines())
    for passage in re.split(r"\n\s*\.\.\.\n", code):
        assert "\n".join(line.strip() for line in passage.splitlines()) in lines


@pytest.mark.parametrize("path", READMES, ids=name)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [file for file in files if not (path.parent / file).exists()] == []


@pytest.mark.parametrize("path", [p for p in READMES if "```python\n" in p.read_text()], ids=name)
def test_its_python_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        exec(compile(block, name(path), "exec"), names)


@pytest.mark.parametrize("path", READMES, ids=name)
def test_its_commands_are_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = path.read_text().replace("\\\n", " ")
    for line in re.findall(r"^    (?:torchrun .* -m )?neuroconv (.*)$", text, re.MULTILINE):
        command, *words = shlex.split(line, comments=True)
        assert command in COMMANDS, line
        options, overrides = split_overrides(words)
        parsed = tyro.cli(command_class(command), args=options)
        if overrides or command == "train":
            load_config(parsed.config, overrides)


def test_the_map_names_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    rooms = set(re.findall(r"^      (\w+)/ ", text, re.MULTILINE))
    assert rooms == {path.parent.name for path in (ROOT / "neuroconv").glob("*/__init__.py")}
    folders = set(re.findall(r"^    (\w+)/ ?", text, re.MULTILINE))
    assert folders == {"neuroconv", "configs", "experiments", "tests"}
