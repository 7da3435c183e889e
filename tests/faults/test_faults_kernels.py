"""Faults of the folder of compiled kernels, with real files, compilers and signals.

A tiny source takes the kernels' place, so that a compilation takes a tenth of a second.
"""

import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from neuroconv.kernels.native import build

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler c++")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and mounts")
NOBODY = 65534
# Runs build.py without `neuroconv`, whose import of torch takes seconds.
PROGRAM = f"""
import importlib.util, resource, sys
spec = importlib.util.spec_from_file_location("build", {build.__file__!r})
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build.SOURCES, build._HEADERS, build._FLAGS = (sys.argv[1],), (), ("-fPIC",)
exec(sys.argv[2])
library = build._library()
print(library.answer() if isinstance(library, build.ctypes.CDLL) else f"off: {{library}}")
"""
PLANTED = '__attribute__((constructor)) void run() { __builtin_puts("planted code runs"); }\n'
# A compiler that says when it compiles, and waits until it may.
SLOW = """#!/bin/sh
case "$*" in *" -c "*) echo > ROOT/started.$$; while [ ! -e ROOT/go ]; do sleep 0.02; done ;; esac
exec c++ "$@"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.cpp").write_text('extern "C" int answer() { return 42; }\n')
    (tmp_path / "slow").write_text(SLOW.replace("ROOT", str(tmp_path)))
    (tmp_path / "slow").chmod(0o700)
    monkeypatch.setenv("NEUROCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path


def start(root: Path, compiler: str | Path = "c++", setting: str = "") -> Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(root / "tiny.cpp"), setting]
    environment = {**os.environ, "CXX": str(compiler)}
    return Popen(command, env=environment, stdout=PIPE, text=True, start_new_session=True)


def start_slowly(root: Path, compilations: int, setting: str = "") -> Popen[str]:
    """Starts a process, and waits until this many have begun to compile."""
    process = start(root, root / "slow", setting)
    while len(list(root.glob("started.*"))) < compilations:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def output(process: Popen[str]) -> str:
    return process.communicate(timeout=300)[0].strip()


def library(root: Path) -> Path:
    """Returns the only library, beside which there is nothing but the lock."""
    (path,) = root.glob("cache/kernels-*.so")
    assert {entry.name for entry in path.parent.iterdir()} == {"lock", path.name}
    return path


def test_a_damaged_library_is_built_again(root: Path) -> None:
    """A damaged, truncated or empty library in the cache: it is built again."""
    assert output(start(root)) == "42"
    content = (path := library(root)).read_bytes()
    stem, flipped = Path(str(path)[:-68]), bytearray(content)
    flipped[999] ^= 1
    (planted := root / "planted.cpp").write_text(PLANTED)
    command = ["c++", "-shared", "-fPIC", str(planted), "-o", str(planted := root / "planted.so")]
    subprocess.run(command, check=True)
    for damaged in (planted.read_bytes(), flipped, content[:5000], b""):
        path.write_bytes(damaged)
        assert output(start(root)) == "42"
        assert library(root).read_bytes() == content
    path.chmod(0o622)
    assert build._find(stem) is None
    path.chmod(0o644)
    assert build._find(stem) == path
    if os.geteuid() == 0:
        os.chown(path, NOBODY, -1)
        assert build._find(stem) is None
    planted.rename(f"{stem}-{build._sum(planted)}.so")  # with its own sum
    path.parent.chmod(0o777)
    refusal = f"off: {path.parent} lets others write .mode 777.* chmod 700 {path.parent}, or set NE"
    assert re.match(refusal, output(start(root)))


def test_every_folder_and_link_on_the_way_counts(root: Path) -> None:
    """A cache on whose way others may write: its libraries are not loaded."""
    folder, link = root / "open" / "cache", root / "link"
    folder.mkdir(parents=True)
    link.symlink_to("open/cache")
    folder.parent.chmod(0o777)
    for path in (folder, link, link / "missing"):
        with pytest.raises(build.BuildError, match=f"mode 777.* chmod go-w {folder.parent}, or"):
            build.trusted_folder(path)
    folder.parent.chmod(0o1777)  # as /tmp is
    folder.chmod(0o755)  # what others can read they cannot change
    assert build.trusted_folder(link) == folder
    assert folder.stat().st_mode & 0o777 == 0o755
    folder.chmod(0o1777)
    with pytest.raises(build.BuildError, match=r"mode 1777.* code: set NEUROCONV_CACHE to"):
        build.trusted_folder(link)
    umask = os.umask(0)
    missing = build.trusted_folder(root / "a" / "b")
    os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (missing, missing.parent)] == [0o700, 0o700]


@AS_ROOT
def test_what_belongs_to_others_is_refused(root: Path) -> None:
    """A cache, or a library in it, of another user: refused, and never loaded."""
    (link := root / "link").symlink_to(folder := root / "folder")
    folder.mkdir()
    folder.chmod(0o770)
    assert build.trusted_folder(link) == folder  # root's group
    os.chown(folder, 0, NOBODY)
    with pytest.raises(build.BuildError, match="mode 770"):
        build.trusted_folder(link)
    for path in (link, folder):
        os.chown(path, NOBODY, -1, follow_symlinks=False)
        with pytest.raises(build.BuildError, match=f"{path} belongs to user {NOBODY}, .*: set NEU"):
            build.trusted_folder(path / "below")


def test_processes_that_start_together_share_a_library(root: Path) -> None:
    """Processes that compile at one moment: they share one sound library."""
    assert output(start(root)) == "42"
    processes = [start_slowly(root, 1), *(start(root, root / "slow") for _ in range(3))]
    assert output(start(root)) == "42"
    assert list(root.glob("cache/build-*"))  # which a living process uses
    processes.append(start_slowly(root, 2, "build.fcntl.LOCK_EX = 0"))  # as without locks
    (root / "go").touch()
    assert [output(process) for process in processes] == ["42"] * 5
    assert len(list(root.glob("started.*"))) == 2
    assert len(list(root.glob("cache/*"))) == 3  # a library of each compiler, and the lock


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_what_a_killed_process_leaves_is_removed(root: Path, kill: Any) -> None:
    """A killed process, its compiler alive or not: what it leaves is removed by the next."""
    killed = start_slowly(root, 1)
    kill(killed.pid, signal.SIGKILL)
    assert list(root.glob("cache/build-*"))
    process = start_slowly(root, 2)
    (root / "go").touch()
    assert (output(process), output(killed)) == ("42", "")
    status = library(root).lstat()
    folders = [root / "cache" / f"build-{name}" for name in (f"x@{platform.node()}", "old", "new")]
    for folder in folders:
        folder.mkdir()
    os.utime(folders[1], (0, 0))
    assert output(start(root, root / "slow")) == "42"
    assert [folder.exists() for folder in folders] == [False, False, True]  # of another host
    folders[2].rmdir()
    assert library(root).lstat() == status  # is not built again


@pytest.mark.slow
def test_processes_killed_at_any_time_leave_nothing(root: Path) -> None:
    """Processes killed -9 at any time of compiling: the next one leaves nothing."""
    for _ in range(50):
        process = start(root)
        time.sleep(random.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        assert (output(process), output(start(root))) in [("", "42"), ("42", "42")]
        library(root).unlink()


def test_a_folder_without_room_or_rights_is_named(root: Path, monkeypatch: Any) -> None:
    """A cache without room or rights: it is named, and slower kernels run."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    assert re.match(r"off: \S+ fails: .*File size", output(start(root, setting=limit)), re.DOTALL)
    assert os.listdir(root / "cache") == ["lock"]
    monkeypatch.setenv("NEUROCONV_CACHE", "/sys/neuroconv")  # where root cannot create anything
    assert re.fullmatch(r"off: .*'/sys/neuroconv'; NEUROCONV_CACHE names .*", output(start(root)))


@AS_ROOT
@pytest.mark.parametrize(("options", "words"), [("size=8k", "No space"), ("ro", "Read-only")])
def test_a_full_or_read_only_disk_says_so(root: Path, options: str, words: str) -> None:
    """A full or read-only disk of the cache: the reason is said."""
    cache = str(build.trusted_folder(root / "cache"))
    command = ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", cache]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounts are not allowed here")
    try:
        assert re.match(f"off: .*{words}", output(start(root)), re.DOTALL)
    finally:
        subprocess.run(["umount", cache], check=True)
