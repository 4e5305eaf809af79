"""A zip from a browser's downloads: hostile, torn or foreign ones are refused completely."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boneage_trainer import archive
from boneage_trainer.contract import RunFolder, write_atomic, write_json, write_manifest
from boneagectl.errors import MachineError, UsageError
from boneagectl.targets.colab import notebook_outputs

LEG = "hands-a1b2-01"


def make_run(folder: RunFolder, epoch: int = 3, state: str = "complete", leg: str = LEG) -> RunFolder:
    write_atomic(folder.last, f"weights after epoch {epoch}" * 50)
    write_atomic(folder.metrics, "".join(json.dumps({"epoch": at + 1}) + "\n" for at in range(epoch)))
    write_atomic(folder.log, "what it printed\n")
    write_json(folder.state, {"state": state, "reason": "", "epoch": epoch, "epochs": 3, "leg": leg})
    write_manifest(folder)
    return folder


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """What the notebook offers."""
    path = tmp_path / "downloads" / f"results-{LEG}.zip"
    archive.pack_run(make_run(RunFolder(tmp_path / "made")), path, with_log=True)
    return path


@pytest.fixture
def dest(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "home" / "artifacts")


def test_a_valid_zip_is_imported_repeatedly(zipped: Path, dest: RunFolder) -> None:
    found = notebook_outputs.import_results(zipped, LEG, dest)
    assert sorted(found.sha256) == ["MANIFEST.json", "checkpoint/last.npz", "metrics.jsonl", "state.json", "train.log"]
    assert found.unlisted == ()
    assert notebook_outputs.import_results(zipped, LEG, dest) == found
    assert [path.name for path in dest.root.parent.iterdir()] == ["artifacts"]


def test_a_zip_that_was_packed_again_is_accepted(zipped: Path, dest: RunFolder, tmp_path: Path) -> None:
    """Some browsers unpack what they download; a person then makes a zip of it."""
    with zipfile.ZipFile(zipped) as old, zipfile.ZipFile(tmp_path / "new.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert notebook_outputs.import_results(tmp_path / "new.zip", LEG, dest).unlisted == ()


# ------------------------------------------------------------------------------------------- hostile
def add(zipped: Path, name: str, content: bytes = b"x", mode: int = 0o100644) -> None:
    with zipfile.ZipFile(zipped, "a") as opened:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        opened.writestr(info, content)


def twice(zipped: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        add(zipped, "state.json", b"{}")


def deflated(zipped: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as opened, opened.open("model.keras", "w") as stream:
        for _ in range(200):
            stream.write(bytes(1_000_000))


def lying(zipped: Path) -> None:
    """Another size in the list at its end than there really is."""
    data = bytearray(zipped.read_bytes())
    at = data.rindex(b"PK\x01\x02checkpoint"[:4], 0, data.rindex(b"checkpoint/last.npz"))
    (size,) = struct.unpack_from("<I", data, at + 24)
    struct.pack_into("<I", data, at + 24, size - 100)
    zipped.write_bytes(data)


def overlapping(zipped: Path) -> None:
    """Many names for one and the same bytes."""
    data = zipped.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        start, count = opened.start_dir, len(opened.infolist())
    directory = data[start : data.rindex(b"PK\x05\x06")]
    names = [directory.replace(b"metrics.jsonl", b"metrics.json%d" % at) for at in range(5)]
    for at, one in enumerate(names):
        for name in (b"MANIFEST.json", b"state.json", b"train.log", b"checkpoint/last.npz"):
            one = one.replace(name, name[:-1] + b"%d" % at)
        names[at] = one
    size, entries = sum(map(len, names)), count * 5
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, entries, entries, size, start, 0)
    zipped.write_bytes(data[:start] + b"".join(names) + end)


def many(zipped: Path) -> None:
    for at in range(200):
        add(zipped, f"{at}.txt")


def swapped(zipped: Path) -> None:
    with zipfile.ZipFile(zipped) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(zipped, "w") as new:
        for name, content in {**entries, "checkpoint/last.npz": b"other weights"}.items():
            new.writestr(name, content)


def torn(zipped: Path) -> None:
    zipped.write_bytes(zipped.read_bytes()[:-300])


def flipped(zipped: Path) -> None:
    data = zipped.read_bytes()
    zipped.write_bytes(data.replace(b"weights after epoch 3", b"weights after epoch 4", 1))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "traversal": (lambda path: add(path, "../../outside"), "leads out of the folder"),
    "traversal within": (lambda path: add(path, "checkpoint/../../outside"), "leads out of the folder"),
    "absolute": (lambda path: add(path, "/outside"), "an absolute name"),
    "drive letter": (lambda path: add(path, "C:outside"), "an absolute name"),
    "backslash": (lambda path: add(path, "..\\outside"), "an absolute name"),
    "link": (lambda path: add(path, "model.keras", b"/etc/passwd", stat.S_IFLNK | 0o777), "a link or device"),
    "device": (lambda path: add(path, "model.keras", b"", stat.S_IFCHR | 0o666), "a link or device"),
    "same name": (twice, "same name twice"),
    "other case": (lambda path: add(path, "STATE.json"), "same name twice"),
    "stranger": (lambda path: add(path, "autorun.py"), "does not list autorun.py"),
    "many": (many, "files, a run at most"),
    "bomb": (deflated, "would become"),
    "lying header": (lying, "cannot be unpacked"),
    "overlapping": (overlapping, "overlap"),
    "swapped": (swapped, "has another sha256"),
    "torn": (torn, "cannot be unpacked"),
    "flipped bit": (flipped, "cannot be unpacked"),
    "no zip": (lambda path: path.write_text("<html>sign in</html>") and None, "cannot be unpacked"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_zip_is_refused_completely(kind: str, zipped: Path, dest: RunFolder, tmp_path: Path) -> None:
    harm, said = HOSTILE[kind]
    harm(zipped)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MachineError, match=said) as caught:
        notebook_outputs.import_results(zipped, LEG, dest)
    assert caught.value.message.startswith("nothing was imported")
    assert "notebook's last cell" in caught.value.next_step
    left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert left in ([], [dest.root.parent])
    assert not (tmp_path.parent / "outside").exists()


def test_a_too_large_zip_is_refused_while_unpacking(
    zipped: Path, dest: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(MachineError, match="would take"):
        notebook_outputs.import_results(zipped, LEG, dest)


# ---------------------------------------------------------------------------------------- another's
def test_another_leg_s_results_are_refused(zipped: Path, dest: RunFolder) -> None:
    with pytest.raises(UsageError, match=f"holds the results of '{LEG}', not of hands-a1b2-02"):
        notebook_outputs.import_results(zipped, "hands-a1b2-02", dest)
    assert not dest.root.exists()


def test_an_older_download_never_replaces_a_newer_one(zipped: Path, dest: RunFolder, tmp_path: Path) -> None:
    old = tmp_path / "old.zip"
    archive.pack_run(make_run(RunFolder(tmp_path / "paused"), epoch=3, state="paused"), old)
    notebook_outputs.import_results(old, LEG, dest)
    notebook_outputs.import_results(zipped, LEG, dest)
    with pytest.raises(UsageError, match="from an earlier session"):
        notebook_outputs.import_results(old, LEG, dest)
    assert json.loads(dest.state.read_text())["state"] == "complete"


def test_a_missing_zip_is_reported(dest: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file") as caught:
        notebook_outputs.import_results(tmp_path / "results.zip", LEG, dest)
    assert f"--from results-{LEG}.zip" in caught.value.next_step


def test_a_zip_without_a_state_is_refused(dest: RunFolder, tmp_path: Path) -> None:
    run = make_run(RunFolder(tmp_path / "stateless"))
    run.state.unlink()
    write_manifest(run)
    archive.pack_run(run, tmp_path / "stateless.zip")
    with pytest.raises(MachineError, match="no readable state"):
        notebook_outputs.import_results(tmp_path / "stateless.zip", LEG, dest)
