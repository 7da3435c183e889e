"""The library of C++ kernels, compiled once by the machine's own compiler and cached.

Like `torch.compile` this needs a C++ compiler at run time and not at installation, so that kernels
use the processor's instructions. Without one `library` raises BuildError, and torch's operators run
instead.

A library is code: only its user and root can change its folder, the SHA-256 of its content is in
its name, and a damaged one is built again.
"""

import ctypes
import fcntl
import grp
import hashlib
import os
import platform
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCES = ("claw.cpp", "image.cpp", "soma.cpp", "trees.cpp")
_HEADERS = ("vectors.h", "blocks.h", "taps.h")
_FLAGS = (
    "-std=gnu++17", "-O3", "-march=native", "-fopenmp", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
)  # fmt: skip
_BUILD = "build-"  # begins the name of a folder of a compiler's files
_DAY_S = 24 * 3600.0


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
    return Path(folder).expanduser().absolute()


def library() -> ctypes.CDLL:
    """Loads the kernels, compiling them if the cache folder has no intact library of them.

    Raises:
        BuildError: no compiler, one that fails, a folder that cannot be written to, or one that
            other users can change. It is not tried again in this process.
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
    source, compiler = Path(__file__).parent, find_compiler()
    # Everything that the library depends on, the processor too: machines may share a home folder.
    key = [*(source.joinpath(name).read_text() for name in (*SOURCES, *_HEADERS)), *_FLAGS]
    key += [*compiler, _version(compiler), _processor(), *platform.libc_ver()]
    folder = trusted_folder(cache_folder())
    stem = folder / f"kernels-{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:16]}"
    path = _find(stem)
    if path is None or any(folder.glob(f"{_BUILD}*")):
        with _lock(folder, wait=path is None) as locked:
            host = f"@{platform.node()}" if locked else ""  # some file systems lock on a host alone
            for left in folder.glob(f"{_BUILD}*") if locked else ():  # by a process that was killed
                with suppress(OSError):
                    if left.name.endswith(host) or time.time() - left.stat().st_mtime > _DAY_S:
                        shutil.rmtree(left)
            path = _find(stem)  # another process may have built it meanwhile
            path = path or _compile(compiler, [source / file for file in SOURCES], stem, host)
    return ctypes.CDLL(str(path))  # what was checked: nobody else can change the folder


def trusted_folder(path: Path, above: bool = False) -> Path:
    """Returns the folder's path without links, once it is sure that no other user can change it.

    Whoever can replace a folder or a link on the way to it chooses what is loaded. So all of them
    must belong to this user or root, and none may let others write, except for sticky folders above
    it, such as /tmp. Reading does no harm: mode 755 stays. A folder open to others is refused and
    not closed, since they may have written to it. Missing folders are created with mode 700.

    Raises:
        BuildError: others can change the folder; the message says how to prevent it.
    """
    if path != path.parent:
        path = trusted_folder(path.parent, above=True) / path.name
    if not os.path.lexists(path):
        path.mkdir(mode=0o700, exist_ok=True)  # whatever the umask
    entry = path.lstat()
    if fault := _fault(entry, above):
        mine = entry.st_uid == os.geteuid() and not entry.st_mode & stat.S_ISVTX
        chmod = f"chmod {'go-w' if above else 700} {shlex.quote(str(path))}, or " if mine else ""
        raise BuildError(
            f"{path} {fault}, who could replace the kernels, and these are code: {chmod}"
            "set NEUROCONV_CACHE to a folder that only you can change"
        )
    return trusted_folder(path.parent / path.readlink(), above) if path.is_symlink() else path


def _fault(entry: os.stat_result, above: bool = False) -> str | None:
    """Returns why others could change a library, its folder or one `above`, None if they cannot."""
    # In a container without privileges root's files seem to be another user's, and / with them.
    if entry.st_uid not in (os.geteuid(), 0, os.stat("/").st_uid):
        return f"belongs to user {entry.st_uid}"
    if stat.S_ISLNK(entry.st_mode) or (above and entry.st_mode & stat.S_ISVTX):
        return None
    shared = bool(entry.st_mode & stat.S_IWGRP) and entry.st_gid != 0
    with suppress(KeyError):  # a group of this user alone, with which the umask is often 002
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(entry.st_gid)
        shared &= group.gr_name != user or not {*group.gr_mem} <= {user}
    mode = f"{stat.S_IMODE(entry.st_mode):o}"
    return f"lets others write (mode {mode})" if shared or entry.st_mode & stat.S_IWOTH else None


def _find(stem: Path) -> Path | None:
    """Returns the library whose content has the sum in its name, and that others cannot write."""
    for path in sorted(stem.parent.glob(f"{stem.name}-*.so")):
        with suppress(OSError):  # it cannot be read, or another process has just replaced it
            entry = path.lstat()
            if stat.S_ISREG(entry.st_mode) and not _fault(entry) and _sum(path) == path.stem[-64:]:
                return path
    return None


@contextmanager
def _lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Holds the folder's lock, which a process loses when it dies; yields whether it does.

    Where there are no locks, processes build side by side, which is as safe, but clean up nothing.
    """
    locked = False
    with ExitStack() as stack:
        with suppress(OSError):
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        yield locked


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: list[str], sources: list[Path], stem: Path, suffix: str) -> Path:
    """Compiles in parallel, in a folder that can be cleaned up, and renames the whole library."""
    if sys.stderr.isatty():
        print(f"neuroconv compiles its kernels for this CPU, once: {stem.parent}", file=sys.stderr)
    for damaged in stem.parent.glob(f"{stem.name}-*.so"):
        damaged.unlink()
    with TemporaryDirectory(suffix, _BUILD, stem.parent, ignore_cleanup_errors=True) as build:
        objects, shared = [f"{build}/{file.stem}.o" for file in sources], Path(build, "kernels.so")
        commands = [["-c", str(file), "-o", to] for file, to in zip(sources, objects, strict=True)]
        for arguments in (commands, [["-shared", *objects, "-o", str(shared)]]):
            running = [
                subprocess.Popen(
                    [*compiler, *_FLAGS, *words], text=True, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": build},
                )
                for words in arguments
            ]  # fmt: skip
            outputs = [process.communicate()[0] for process in running]
            for process, output in zip(running, outputs, strict=True):
                if process.returncode:
                    raise BuildError(f"{compiler[0]} fails: {output.strip()[-500:]}")
        shared.chmod(0o644)
        return shared.replace(f"{stem}-{_sum(shared)}.so")


def _version(compiler: list[str]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
