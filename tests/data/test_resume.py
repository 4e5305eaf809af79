"""Killed at any time, the same command resumes; two processes do not write one pack."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import ContractError, PackFolder
from boneage_trainer.data import pack_writer
from boneage_trainer.data import prepare as module
from boneage_trainer.data.pack_writer import PreparedRow
from boneage_trainer.data.prepare import main, prepare
from data.trees import command, contents, environment, make_tree, picture, png, run

COUNT = 320


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough pictures that a kill meets the work half done; the last is broken, one a copy."""
    root = tmp_path_factory.mktemp("kill") / "set"
    make_tree(root, COUNT)
    for at in range(1, COUNT + 1):
        big = cv2.resize(picture(at), (700, 900), interpolation=cv2.INTER_CUBIC)
        (root / f"images/images/{at}.png").write_bytes(png(big))
    shutil.copy(root / "images/images/3.png", root / "images/images/5.png")
    (root / f"images/images/{COUNT}.png").write_bytes(b"broken")
    return root


@pytest.fixture(scope="module")
def uninterrupted(root: Path) -> dict[str, bytes]:
    prepare(root, root.parent / "whole")
    return contents(root.parent / "whole")


def kill_after(root: Path, out: Path, lines: int) -> list[int]:
    """Starts `prepare`, kills it as soon as `lines` rows are logged; returns its workers' ids."""
    log = PackFolder(out).partial / "done.jsonl"
    process = subprocess.Popen(
        command("data.prepare", root, "--out", out, "--workers", 2), env=environment(), stderr=subprocess.DEVNULL
    )
    limit_s = time.monotonic() + 20
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit_s
        time.sleep(0.001)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return workers


def children(pid: int) -> list[int]:
    """The processes `pid` has started; none where there is no /proc."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_killed_again_and_again_it_makes_the_same_pack(
    tmp_path: Path, root: Path, uninterrupted: dict[str, bytes]
) -> None:
    out = tmp_path / "pack"
    for lines in (1, 100, 200):
        workers = kill_after(root, out, lines)
        assert not out.exists()
        limit_s = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < limit_s, "the workers outlive their parent"
            time.sleep(0.01)
    done = run("data.prepare", root, "--out", out)
    assert done.returncode == 0
    assert "resuming: " in done.stderr
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


class Killed(BaseException):
    """Ends a run as abruptly as a test can without ending the test."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, after: int = 0) -> Iterator[None]:
    """Raises at the call of `place.name` that follows `after` others."""
    real: Callable[..., Any] = getattr(place, name)
    calls = iter(range(10**6))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls) >= after:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, dying)
        try:
            yield
        except Killed:
            return
    pytest.fail(f"{name} was not called {after + 1} times")


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this work had been done")


@pytest.mark.parametrize(
    ("place", "name", "after"),
    [(os, "fsync", 1), (pack_writer, "sha256_of", 0), (pack_writer, "write_atomic", 0),
     (pack_writer, "write_atomic", 1),
     (pack_writer, "write_json", 1), (Path, "rename", 0)],
)  # fmt: skip
@pytest.mark.parametrize("spoil", [False, True])
def test_a_kill_while_finishing_loses_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, after: int, spoil: bool
) -> None:
    root = make_tree(tmp_path / "set", 6)
    if spoil:
        (root / "images/images/2.png").write_bytes(b"broken")
    prepare(root, tmp_path / "whole", workers=1)
    with killed_at(monkeypatch, place, name, after):
        prepare(root, tmp_path / "pack", workers=1)
    monkeypatch.setattr(module, "scale_files", refuse)
    prepare(root, tmp_path / "pack", workers=1)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def test_a_kill_after_the_pack_got_its_name_leaves_only_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, pack = make_tree(tmp_path / "set", 6), PackFolder(tmp_path / "pack")
    with killed_at(monkeypatch, pack_writer.shutil, "rmtree", after=2):
        prepare(root, pack.root)
    assert pack.root.exists()
    assert pack.partial.exists()
    # Moved away, its array is the same file as the litter's: a new run must not write into it.
    pack.root.rename(tmp_path / "kept")
    before = contents(tmp_path / "kept")
    prepare(root, pack.root, size_px=128)
    assert contents(tmp_path / "kept") == before
    pack.partial.mkdir()
    assert prepare(root, pack.root)["already_prepared"]
    assert not pack.partial.exists()


def half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PackFolder]:
    """A tree of 40 and a run of it that stopped after 32."""
    root, pack = make_tree(tmp_path / "set", 40), PackFolder(tmp_path / "pack")
    with killed_at(monkeypatch, module, "scale_files", after=2):
        prepare(root, pack.root, workers=1)
    return root, pack


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the rows that are shrunk from now on."""
    rows: list[int] = []
    real = module.scale_files

    def counting(jobs: list[tuple[int, str]], size_px: int) -> list[tuple[PreparedRow, bytes | None]]:
        rows.extend(row for row, _ in jobs)
        return real(jobs, size_px)

    monkeypatch.setattr(module, "scale_files", counting)
    return rows


def test_only_the_missing_rows_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, pack = half_done(tmp_path, monkeypatch)
    rows = counted(monkeypatch)
    prepare(root, pack.root, workers=1)
    assert rows == list(range(32, 40))


def test_a_cut_line_and_pixels_that_never_reached_the_disk_are_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, pack = half_done(tmp_path, monkeypatch)
    log, array = pack.partial / "done.jsonl", pack.partial / "rows.npy"
    log.write_bytes(log.read_bytes()[:-10])
    with open(array, "r+b") as stream:
        stream.seek(128 + 5 * 128 * 128)
        stream.write(b"\0" * 128 * 128)
    rows = counted(monkeypatch)
    prepare(root, pack.root, workers=1)
    assert rows == [5, *range(31, 40)]
    monkeypatch.undo()
    prepare(root, tmp_path / "whole")
    assert contents(pack.root) == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["size", "csv", "algorithm", "file", "plan"])
def test_it_starts_over_when_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    root, pack = half_done(tmp_path, monkeypatch)
    if change == "csv":
        (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("1,12,", "1,13,"))
    if change == "algorithm":
        monkeypatch.setattr("boneage_trainer.data.pack_writer.ALGORITHM", "other")
    if change == "file":
        os.utime(root / "images/images/1.png", (1, 1))
    if change == "plan":
        (pack.partial / "plan.json").write_text("{")
    rows = counted(monkeypatch)
    prepare(root, pack.root, size_px=64 if change == "size" else 128, workers=1)
    assert rows == list(range(40))


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_two_processes_cannot_prepare_one_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, pack = half_done(tmp_path, monkeypatch)
    import fcntl

    with open(pack.partial / "done.jsonl") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = contents(pack.partial)
        with pytest.raises(ContractError, match="another process is preparing"):
            prepare(root, pack.root)
    assert contents(pack.partial) == before


# ------------------------------------------------------------------------------------------ disk
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_file_that_may_not_grow_is_one_clear_line(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 40)
    done = run("data.prepare", root, "--out", tmp_path / "pack", before=LIMITED)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path / 'pack.partial'}/rows.npy: " in done.stderr
    assert "MB free there" in done.stderr
    assert not (tmp_path / "pack").exists()
    assert run("data.prepare", root, "--out", tmp_path / "pack").returncode == 0


def test_too_small_a_disk_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree(tmp_path / "set", 40)
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(module, "scale_files", refuse)
    assert main([str(root), "--out", str(tmp_path / "pack")]) == 3
    assert "the pack needs 1 MB" in capsys.readouterr().err


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_is_one_clear_line_and_can_be_resumed(
    tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, pack = make_tree(tmp_path / "set", 40), tiny_disk / "pack"
    (tiny_disk / "ballast").write_bytes(b"x" * 700_000)
    with monkeypatch.context() as patch:
        patch.setattr(module, "free_bytes", lambda _: 10**9)
        assert main([str(root), "--out", str(pack)]) == 3
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().err
    (tiny_disk / "ballast").unlink()
    assert main([str(root), "--out", str(pack)]) == 0
    assert np.load(pack / "images.npy").shape == (40, 128, 128)


def test_a_file_where_a_folder_should_be_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set", 2)
    (tmp_path / "file").write_text("")
    assert main([str(root), "--out", str(tmp_path / "file/pack")]) == 3
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file'}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set", 2)
    (tmp_path / "locked").mkdir(mode=0o555)
    assert main([str(root), "--out", str(tmp_path / "locked/pack")]) == 3
    assert "locked" in capsys.readouterr().err


def test_an_unreadable_source_fails_instead_of_spoiling_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree(tmp_path / "set", 3)

    def failing(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert main([str(root), "--out", str(tmp_path / "pack")]) == 3
    assert "1.png: Input/output error" in capsys.readouterr().err


def test_a_dead_worker_is_one_clear_line(tmp_path: Path, root: Path) -> None:
    """The second chunk of a worker ends it, as the kernel does when memory runs out."""
    done = run(
        "data.prepare", root, "--out", tmp_path / "pack", "--workers", 2,
        before="import boneage_trainer.data.prepare as p, data.dying; p.scale_files = data.dying.scale_files",
    )  # fmt: skip
    assert done.returncode == 3
    assert "a worker process died" in done.stderr
    assert "Traceback" not in done.stderr
