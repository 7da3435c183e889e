"""The configurations that come with the package, by name: "mnist_granule" is its TOML file."""

from pathlib import Path

from neuroconv.core.checks import expected_one_of

_PACKAGE = Path(__file__).parents[1]
# A wheel has the folder inside the package, a checkout beside it.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def list_configs() -> list[str]:
    """Returns the names of the configurations that come with the package, sorted."""
    return sorted(path.stem for folder in _FOLDERS for path in folder.glob("*.toml"))


def find_config(path: str | Path) -> Path:
    """Returns the file of a configuration, given its path, or its name where no such file exists.

    Raises:
        FileNotFoundError: there is neither; the message lists the names.
    """
    path, names = Path(path), list_configs()
    if str(path) in names and not path.is_file():
        return next(file for folder in _FOLDERS if (file := folder / f"{path}.toml").is_file())
    if path.exists():
        return path
    raise FileNotFoundError(
        f"{path}: cannot be read (No such file or directory): expected a TOML file, or the name of "
        f"a configuration; {expected_one_of(path.stem, names)}"
    )
