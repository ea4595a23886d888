"""Every file that ketwork writes is there whole, or as it was before: full disks, links, devices, permissions."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import ketwork as kw
from ketwork import waves
from ketwork.records import files as _files
from ketwork.report import blank, write

BEFORE = "what was there before"


@pytest.fixture(scope="module")
def study() -> kw.Study:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU())
    return kw.study(net, torch.randn(200, 64), compare=True)


def full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


WRITERS = {
    "study.save": lambda study, path: study.save(path),
    "comparison.save": lambda study, path: study.compare().save(path),
    "study.report": lambda study, path: study.report(path),
    "comparison.report": lambda study, path: study.compare().report(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(writer, study, tmp_path, monkeypatch):
    path = tmp_path / "record"
    path.write_text(BEFORE)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"No space left on device\. What was there before is as it was"
    ) as raised:
        WRITERS[writer](study, path)
    assert raised.value.errno == errno.ENOSPC
    assert str(path) in str(raised.value)
    assert path.read_text() == BEFORE
    assert names(tmp_path) == {"record"}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_stops_in_the_middle_leaves_the_old_file_and_nothing_else(writer, study, tmp_path):
    path = tmp_path / "record"
    path.write_text(BEFORE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))  # stopped by the system, as by a full disk
    try:
        with pytest.raises(OSError, match=r"File too large\. What was there before is as it was") as raised:
            WRITERS[writer](study, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.errno == errno.EFBIG
    assert str(path) in str(raised.value)
    assert path.read_text() == BEFORE
    assert names(tmp_path) == {"record"}


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(BEFORE)

    def interrupted(text: str) -> None:
        with _files.replacing(path) as temporary:
            temporary.write_text(text[:4])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted("half of it")
    assert path.read_text() == BEFORE
    assert names(tmp_path) == {"page.html"}


def writer_in_a_process(path: Path, go: int, ready: int) -> int:
    """Forks a process that stands in the middle of a write to `path`, until a byte comes from the pipe `go`."""
    child = os.fork()
    if child:
        return child
    with _files.replacing(path) as temporary:
        temporary.write_text("half of it")
        (temporary.parent / ".tmpAbCdEf").write_bytes(b"another library's own temporary file")
        os.write(ready, b"x")
        os.read(go, 1)
        temporary.write_text("all of it")
    os._exit(0)


def test_what_a_killed_process_left_is_removed_by_the_next_write_and_nothing_of_a_living_one(tmp_path):
    path, other = tmp_path / "page.html", tmp_path / "other.html"
    path.write_text(BEFORE)
    go, told = os.pipe()
    heard, ready = os.pipe()
    children = [writer_in_a_process(place, go, ready) for place in (path, other)]
    assert len(os.read(heard, 1) + os.read(heard, 1)) == 2
    assert sum(name.startswith(".ketwork-") for name in names(tmp_path)) == 2
    os.kill(children[0], signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(children[0], 0)[1]) == signal.SIGKILL
    assert path.read_text() == BEFORE
    _files.write_text(tmp_path / "third.html", "a third")
    assert sum(name.startswith(".ketwork-") for name in names(tmp_path)) == 1
    os.write(told, b"x")
    assert os.waitpid(children[1], 0)[1] == 0
    assert other.read_text() == "all of it"
    assert names(tmp_path) == {"page.html", "other.html", "third.html"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_new_file_has_the_permissions_that_the_umask_leaves(writer, mask, study, tmp_path):
    before = os.umask(mask)
    try:
        WRITERS[writer](study, tmp_path / "record")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o666 & ~mask


def test_a_file_that_is_replaced_keeps_its_permissions(study, tmp_path):
    path = tmp_path / "private"
    path.touch(0o600)
    study.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(kw.Study.load(path)) == 2


def test_what_a_link_points_to_is_replaced_and_the_link_stays(study, tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "study", tmp_path / "link"
    link.symlink_to("folder/study")
    for _ in range(2):  # first there is nothing that it points to
        study.save(link)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert len(kw.Study.load(target)) == 2
    assert names(tmp_path) == {"folder", "link"}
    assert names(target.parent) == {"study"}


def test_a_name_as_long_as_the_system_allows(study, tmp_path):
    path = tmp_path / ("n" * 255)
    study.save(path)
    assert len(kw.Study.load(path)) == 2
    assert names(tmp_path) == {path.name}


def test_a_device_gets_the_bytes_and_stays_a_device(study, tmp_path):
    null = os.stat(os.devnull)
    study.save(os.devnull)
    assert os.stat(os.devnull).st_ino == null.st_ino
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(OSError, match="No space left on device"):
        study.save("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_pipe_gets_the_bytes(study, tmp_path):
    study.save(tmp_path / "study")
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        got = pool.submit((tmp_path / "pipe").read_bytes)
        study.save(tmp_path / "pipe")
        assert got.result(timeout=300) == (tmp_path / "study").read_bytes()
    assert names(tmp_path) == {"study", "pipe"}


@contextmanager
def as_somebody(folder: Path) -> Iterator[None]:
    """As a user whom permissions bind: root becomes another for the while."""
    root = os.geteuid() == 0
    if root:
        for parent in (folder, *folder.resolve().parents):  # pytest keeps some of these to the user
            if parent == Path(tempfile.gettempdir()).resolve():
                break
            parent.chmod(0o711)
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("mode_of_file", "mode_of_folder"), [(0o444, 0o777), (0o666, 0o555)], ids=["file", "folder"]
)
def test_a_read_only_target_is_refused_and_kept(mode_of_file, mode_of_folder, study, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "target"
    path.write_text(BEFORE)
    path.chmod(mode_of_file)
    folder.chmod(mode_of_folder)
    with as_somebody(tmp_path):
        assert not _files.writable(path)
        with pytest.raises(
            PermissionError, match=r"could not be written: .*What was there before is as it was"
        ):
            study.save(path)
    folder.chmod(0o755)
    assert path.read_text() == BEFORE
    assert names(folder) == {"target"}


def draw(run: waves.Run, path: Path) -> None:
    figure = blank(path)
    run.plot(figure.subplots())
    write(figure, path)


def test_a_run_and_its_picture_are_kept_when_the_disk_is_full(tmp_path, monkeypatch):
    operator = waves.ising(waves.chain(4), 1.0)
    wave = waves.Wave(waves.RBM(), operator.space)
    run, picture = tmp_path / "run", tmp_path / "run.svg"
    found = waves.ground_state(operator, wave, steps=2, n_samples=None, checkpoint=run)
    draw(found, picture)
    before = run.read_bytes(), picture.read_bytes()
    assert picture.read_text().startswith("<?xml")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        draw(found, picture)
    with pytest.warns(
        RuntimeWarning, match="could not be written, and the run went on: .*No space left on device"
    ):
        waves.ground_state(operator, wave, steps=2, n_samples=None, checkpoint=run)
    assert before == (run.read_bytes(), picture.read_bytes())
    assert names(tmp_path) == {"run", "run.svg"}
