"""The library of C++ kernels, compiled once by the machine's own compiler and cached.

Like `torch.compile` this needs a C++ compiler at run time and not at installation, so that kernels
use the processor's instructions. Without one `library` raises BuildError, and torch's operators run
instead.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

SOURCES = ("image.cpp", "soma.cpp", "trees.cpp")
_HEADERS = ("vectors.h", "blocks.h", "taps.h")
_FLAGS = (
    "-std=gnu++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
)  # fmt: skip


class BuildError(RuntimeError):
    """A library that cannot be built; the message gives the reason."""


def find_compiler() -> list[str]:
    """Returns the C++ compiler's command: the variable CXX, else c++, g++ or clang++.

    Raises:
        BuildError: no such command.
    """
    cxx = os.environ.get("CXX")
    for command in [cxx] if cxx else ["c++", "g++", "clang++"]:
        name, *options = shlex.split(command)
        if (path := shutil.which(name)) is not None:
            return [path, *options]
    reason = f"CXX={cxx!r} names none" if cxx else "neither c++, g++ nor clang++ is on PATH"
    raise BuildError(f"no C++ compiler: {reason}")


def cache_folder() -> Path:
    """Returns the folder of compiled libraries: NEUROCONV_CACHE, by default ~/.cache/neuroconv."""
    folder = os.environ.get("NEUROCONV_CACHE") or "~/.cache/neuroconv"
    return Path(folder).expanduser().resolve()


def library() -> ctypes.CDLL:
    """Loads the kernels, compiling them if they are not in the cache folder.

    Raises:
        BuildError: no compiler, one that fails, or a folder that cannot be written to. It is not
            tried again in this process.
    """
    result = _library()
    if isinstance(result, BuildError):
        raise result
    return result


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | BuildError:
    try:
        return _load()
    except BuildError as error:
        return error
    except (OSError, RuntimeError) as error:
        return BuildError(f"{error}; NEUROCONV_CACHE names the folder to keep them in")


def _load() -> ctypes.CDLL:
    folder = Path(__file__).parent
    compiler = find_compiler()
    # Everything that the library depends on, the processor too: machines may share a home folder.
    key = [*(folder.joinpath(name).read_text() for name in (*SOURCES, *_HEADERS)), *_FLAGS]
    key += [*compiler, _version(compiler), _processor()]
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    path = cache_folder() / f"kernels-{name}.so"
    if not path.exists():
        _compile(compiler, [folder / name for name in SOURCES], path)
    return ctypes.CDLL(str(path))


def _compile(compiler: list[str], sources: list[Path], path: Path) -> None:
    """Compiles the files in parallel and renames the library: several processes may do so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.stderr.isatty():
        print(f"neuroconv compiles its kernels for this CPU, once: {path}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        objects = [Path(temporary) / f"{source.stem}.o" for source in sources]
        flags = [flag for flag in _FLAGS if flag != "-shared"]
        running = [
            subprocess.Popen(
                [*compiler, *flags, "-c", str(source), "-o", str(target)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for source, target in zip(sources, objects, strict=True)
        ]  # fmt: skip
        outputs = [process.communicate()[0] for process in running]
        for process, output in zip(running, outputs, strict=True):
            if process.returncode:
                raise BuildError(f"{compiler[0]} fails: {output.strip()[-500:]}")
        shared = Path(temporary) / path.name
        linked = subprocess.run(
            [*compiler, *_FLAGS, *map(str, objects), "-o", str(shared)],
            capture_output=True, text=True,
        )  # fmt: skip
        if linked.returncode:
            raise BuildError(f"{compiler[0]} fails: {linked.stderr.strip()[-500:]}")
        shared.replace(path)


def _version(compiler: list[str]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
