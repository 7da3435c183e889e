"""The page that follows a spike: what it says is what its code makes now."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import neuroconv.layers
import neuroconv.neurons
from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parent.parent / "experiments" / "spike"
PAGE = (FOLDER / "README.md").read_text()


@pytest.fixture(scope="module")
def walking() -> ModuleType:
    return loaded(FOLDER / "walk.py")


@pytest.fixture(scope="module")
def run(walking: ModuleType) -> Any:
    return walking.walk()


def words(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def test_the_pages_numbers_are_those_of_the_run(walking: ModuleType, run: Any) -> None:
    assert walking.filled(PAGE, run) == PAGE, "run python experiments/spike/walk.py"


def test_the_pictures_say_what_the_run_makes(walking: ModuleType, run: Any) -> None:
    drawn = {name: words(picture) for name, picture in walking.pictures(run).items()}
    recorded = {path.stem: words(path.read_text()) for path in FOLDER.glob("*.svg")}
    assert recorded == drawn, "run python experiments/spike/walk.py"
    assert set(re.findall(r"!\[[^\]]+\]\((\w+)\.svg\)", PAGE)) == set(drawn)


def test_a_page_without_its_blocks_is_refused(walking: ModuleType, run: Any) -> None:
    with pytest.raises(ValueError, match=r"the page has the blocks \[\]; expected \['axon'"):
        walking.filled(PAGE.replace("<!-- walk:", "<!--"), run)


def test_every_module_on_the_page_exists() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+[A-Za-z0-9]*)(?:\([^`]*\))?`", PAGE))
    assert {"SparseSynapses", "DendriticSpike", "Purkinje", "ReleaseOrWait"} <= named
    assert named <= {*neuroconv.layers.__all__, *neuroconv.neurons.__all__}


def test_the_pictures_show_every_module_of_the_way() -> None:
    overview = (FOLDER / "overview.svg").read_text()
    steps = re.findall(r"^## \d+\. .* \| (.*) \| ", PAGE, re.MULTILINE)
    assert len(steps) == 11
    for module in re.findall(r"`(\w+)`", " ".join(steps)):
        assert module in overview


def test_every_stage_of_the_cell_is_on_the_way(run: Any) -> None:
    stages = {type(stage).__name__ for stage in run.cell.children()} - {"Identity"}  # absent
    assert {name for name in stages if f"`{name}`" not in PAGE} == set()
