"""A run folder as a zip and back: complete, or refused with the reason."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, write_atomic, write_manifest


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    write_atomic(folder.last, b"weights" * 100)
    write_atomic(folder.metrics, '{"epoch": 1}\n')
    write_atomic(folder.log, "is the target's")
    write_manifest(folder)
    return folder


def zipped(path: Path, entries: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    """An arbitrary zip; `mode` is that of its first entry."""
    with zipfile.ZipFile(path, "w") as made:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, mode = mode << 16, stat.S_IFREG | 0o644
            made.writestr(info, content)
    return path


def test_a_packed_run_is_unpacked_unchanged(run: RunFolder, tmp_path: Path) -> None:
    archive.pack_run(run, tmp_path / "run.zip")
    write_atomic(tmp_path / "again" / "old", "of an earlier call")
    back = archive.unpack_run(tmp_path / "run.zip", tmp_path / "again")
    names = sorted(path.relative_to(back.root).as_posix() for path in back.root.rglob("*") if path.is_file())
    assert names == ["MANIFEST.json", "checkpoint/last.npz", "metrics.jsonl"]
    assert back.last.read_bytes() == run.last.read_bytes()
    with zipfile.ZipFile(tmp_path / "run.zip") as made:
        assert {info.compress_type for info in made.infolist()} == {zipfile.ZIP_STORED}


def test_the_log_is_packed_on_request(run: RunFolder, tmp_path: Path) -> None:
    archive.pack_run(run, tmp_path / "run.zip", with_log=True)
    assert archive.unpack_run(tmp_path / "run.zip", tmp_path / "again").log.read_text() == "is the target's"


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("/etc/passwd", 0o644, "an absolute name"),
        ("..\\..\\evil", 0o644, "an absolute name"),
        ("C:evil", 0o644, "an absolute name"),
        ("../evil", 0o644, "leads out of the folder"),
        ("checkpoint/../../evil", 0o644, "leads out of the folder"),
        ("link", stat.S_IFLNK | 0o777, "a link or device"),
        ("pipe", stat.S_IFIFO | 0o644, "a link or device"),
    ],
)
def test_hostile_names_are_refused_before_anything_is_written(
    name: str, mode: int, message: str, tmp_path: Path
) -> None:
    made = zipped(tmp_path / "run.zip", {name: b"../../evil", "MANIFEST.json": b'{"files": {}}'}, mode)
    with pytest.raises(ContractError, match=message):
        archive.unpack_run(made, tmp_path / "deep" / "dest")
    assert [path.name for path in tmp_path.iterdir()] == ["run.zip"]


def test_more_than_a_disk_holds_is_refused(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.pack_run(run, tmp_path / "run.zip")
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(ContractError, match="would take"):
        archive.unpack_run(tmp_path / "run.zip", tmp_path / "dest")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "no readable MANIFEST"),
        ({"MANIFEST.json": b"[]"}, "must be a JSON object"),
        ({"MANIFEST.json": b"{}"}, "lists no files"),
        ({"MANIFEST.json": b'{"files": {"model.keras": 1}}'}, "model.keras is missing"),
        ({"MANIFEST.json": b'{"files": {"model.keras": 1}}', "model.keras": b""}, "model.keras has another sha256"),
    ],
)
def test_missing_and_damaged_files_are_named(entries: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=message):
        archive.unpack_run(zipped(tmp_path / "run.zip", entries), tmp_path / "dest")


@pytest.mark.parametrize("harm", ["cut", "flipped", "no zip"])
def test_a_torn_archive_is_refused(harm: str, run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    archive.pack_run(run, path)
    data = path.read_bytes()
    at = data.index(b"weightsweights")
    torn = {"cut": data[:200], "flipped": data[:at] + b"W" + data[at + 1 :], "no zip": b"<html>"}
    path.write_bytes(torn[harm])
    with pytest.raises(ContractError, match=r"run\.zip cannot be unpacked"):
        archive.unpack_run(path, tmp_path / "dest")


def test_the_same_name_twice_is_refused(run: RunFolder, tmp_path: Path) -> None:
    archive.pack_run(run, tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip", "a") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("metrics.jsonl", json.dumps({"epoch": 9}))
    with pytest.raises(ContractError, match="same name twice"):
        archive.unpack_run(tmp_path / "run.zip", tmp_path / "dest")
