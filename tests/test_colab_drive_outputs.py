"""A leg's state and files from the user's Drive, over real HTTP: the newest complete outputs, verified."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.auth", reason="google-auth is not installed (the extra colab), so nothing reads Drive")
pytest.importorskip("cryptography", reason="cryptography is not installed, which makes the emulator's certificates")

import requests

from boneage_trainer import archive
from boneage_trainer.contract import RunFolder, parse_object, write_atomic, write_json, write_manifest
from boneage_trainer.platforms import colab_drive
from boneagectl.errors import (
    LimitRefused,
    MachineError,
    NotFound,
    NotSignedIn,
    NotYet,
    ProviderRefused,
    Unreachable,
    UsageError,
)
from boneagectl.targets.colab import drive, notebook_outputs
from boneagectl.targets.colab.drive import DriveClient
from boneagectl.targets.colab.notebook_outputs import DamagedOutputs
from emulators.colab import Colab, Fault
from support import wait_for

RUN, LEG = "hands-a1b2", "hands-a1b2-01"
FOLDER = "application/vnd.google-apps.folder"
FILES = "https://www.googleapis.com/drive/v3/files"


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colab]:
    for name in [name for name in os.environ if name.startswith(("GOOGLE", "CLOUDSDK")) or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    with Colab(tmp_path / "the colab") as emulator:
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        for name, value in (("ATTEMPTS", 3), ("BACKOFF_S", 0.01), ("LONGEST_PAUSE_S", 0.05)):
            monkeypatch.setattr(f"boneagectl.targets.http.{name}", value)
        sign_in(emulator, "drive.readonly", "cloud-platform")
        yield emulator
        assert emulator.refused_hosts == []


def sign_in(colab: Colab, *scopes: str, **other: Any) -> Path:
    """As gcloud leaves a login: no access token, and no list of scopes."""
    said = colab.login.grant(*scopes)
    kept = {name: said[name] for name in ("client_id", "client_secret", "refresh_token", "universe_domain")}
    path = colab.home / ".config" / "gcloud" / "application_default_credentials.json"
    write_json(path, {"type": "authorized_user", **kept, **other})
    return path


@pytest.fixture
def files(colab: Colab) -> Iterator[DriveClient]:
    with drive.open_session() as session:
        yield DriveClient(session)


@pytest.fixture
def dest(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "here" / "artifacts")


# ----------------------------------------------------------------------------------- what is there
def make(folder: RunFolder, epoch: int, state: str = "running", leg: str = LEG, updated_s: float = 0.0) -> RunFolder:
    """What a leg that has reached `epoch` carries to Drive."""
    write_atomic(folder.last, f"weights after epoch {epoch}\n" * 9000)
    write_atomic(folder.best, "weights of the best epoch\n" * 2000)
    write_atomic(folder.metrics, "".join(json.dumps({"epoch": at + 1}) + "\n" for at in range(epoch)))
    said = {"state": state, "reason": "", "epoch": epoch, "epochs": 9, "leg": leg}
    write_json(folder.state, {**said, "updated_s": updated_s or 1000.0 + epoch})
    write_manifest(folder)
    return folder


def place(colab: Colab, name: str = "", run: str = RUN) -> Path:
    return colab.drive.folder / "boneagectl" / run / LEG / name


def slot(colab: Colab, name: str, epoch: int, **other: Any) -> RunFolder:
    return make(RunFolder(place(colab, name)), epoch, **other)


def results(colab: Colab, tmp_path: Path, epoch: int, state: str = "complete", **other: Any) -> Path:
    """The zip that a session's last cell leaves; it has more than the slots."""
    made = RunFolder(tmp_path / f"session-{epoch}-{state}")
    write_atomic(made.predictions, "id,predicted_months\n1,100\n")
    write_atomic(made.log, "what it printed\n")
    make(made, epoch, state, **other)
    path = place(colab).parent / f"results-{LEG}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    archive.pack_run(made, path, with_log=True)
    return path


def epoch_in(folder: RunFolder) -> int:
    return int(parse_object(folder.state.read_text(), "state")["epoch"])


def media(colab: Colab) -> int:
    """How many times bytes of a file were asked for."""
    return sum(call.startswith("GET drive media/") for call in colab.calls)


def through_the_api(colab: Colab, name: str, parent: str = "root", mime: str = "") -> str:
    """Makes a file or folder that a mount could not; returns its id."""
    token = colab.login.grant("drive")["token"]
    said = {"name": name, "parents": [parent], "mimeType": mime or "application/octet-stream"}
    answer = requests.post(FILES, json=said, headers={"Authorization": f"Bearer {token}"}, timeout=5)
    answer.raise_for_status()
    return str(answer.json()["id"])


def collect(files: DriveClient, dest: RunFolder) -> Any:
    return notebook_outputs.download_outputs(files, RUN, LEG, dest)


# --------------------------------------------------------------------------------------- the slots
def test_without_outputs_there_is_no_progress(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    for _ in range(2):
        assert notebook_outputs.read_progress(files, RUN, LEG) is None
        with pytest.raises(NotYet, match=f"nothing complete of {LEG}") as caught:
            collect(files, dest)
        assert "Google account" in caught.value.next_step
        place(colab, "a").mkdir(parents=True, exist_ok=True)
    assert not dest.root.exists()


def test_the_newer_slot_is_downloaded_completely(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    newer = slot(colab, "b", 4)
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert (seen["state"]["epoch"], [line["epoch"] for line in seen["metrics"]]) == (4, [1, 2, 3, 4])
    found = collect(files, dest)
    assert sorted(found.sha256) == [
        "MANIFEST.json", "checkpoint/best.npz", "checkpoint/last.npz", "metrics.jsonl", "state.json",
    ]  # fmt: skip
    assert found.unlisted == ()
    assert dest.last.read_bytes() == newer.last.read_bytes()
    assert sorted(path.name for path in dest.root.iterdir()) == [
        "MANIFEST.json", "checkpoint", "metrics.jsonl", "state.json",
    ]  # fmt: skip
    assert [path.name for path in dest.root.parent.iterdir()] == ["artifacts"]


def test_the_final_state_is_newer_than_the_last_epoch(colab: Colab, files: DriveClient) -> None:
    slot(colab, "a", 4, state="paused", updated_s=2000.0)
    slot(colab, "b", 4, updated_s=1990.0)
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert seen["state"]["state"] == "paused"


def test_only_changed_files_are_downloaded_again(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    first, before = collect(files, dest), media(colab)
    assert collect(files, dest) == first
    assert media(colab) - before == 2, "the list and the state"
    slot(colab, "b", 4)
    before = media(colab)
    collect(files, dest)
    assert media(colab) - before == 4 + 2, "both lists and states; the weights and the metrics, but not the best"
    assert epoch_in(dest) == 4


def test_damaged_local_files_are_replaced(colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path) -> None:
    slot(colab, "a", 3)
    first = collect(files, dest)
    dest.last.write_text("half")
    (tmp_path / "outside").write_text("mine")
    dest.metrics.unlink()
    dest.metrics.symlink_to(tmp_path / "outside")
    assert collect(files, dest) == first
    assert (tmp_path / "outside").read_text() == "mine", "a link is replaced, not followed"
    dest.state.write_text("{")
    assert collect(files, dest) == first


@pytest.mark.parametrize("harm", ["state", "manifest", "no manifest", "no state", "not json", "another leg"])
def test_a_torn_slot_is_skipped(harm: str, colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    torn = slot(colab, "b", 4, **({"leg": "hands-a1b2-02"} if harm == "another leg" else {}))
    if harm == "state":
        torn.state.write_text(torn.state.read_text().replace("4", "5"))
    elif harm.startswith("no "):
        (torn.state if harm == "no state" else torn.manifest).unlink()
    elif harm != "another leg":
        torn.manifest.write_text("[]" if harm == "manifest" else "{")
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert seen["state"]["epoch"] == 3
    collect(files, dest)
    assert epoch_in(dest) == 3


@pytest.mark.parametrize("harm", ["weights", "no weights", "metrics"])
def test_a_slot_that_does_not_match_its_manifest_is_skipped(
    harm: str, colab: Colab, files: DriveClient, dest: RunFolder
) -> None:
    whole = slot(colab, "a", 3)
    torn = slot(colab, "b", 4)
    if harm == "no weights":
        torn.last.unlink()
    else:
        (torn.last if harm == "weights" else torn.metrics).write_text('{"epoch": 9}\n')
    collect(files, dest)
    assert (epoch_in(dest), dest.last.read_bytes()) == (3, whole.last.read_bytes())
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert seen["state"]["epoch"] == (3 if harm == "metrics" else 4)
    whole.last.write_text("damaged too")
    shutil.rmtree(dest.root)
    with pytest.raises(DamagedOutputs, match=r"are damaged: checkpoint/last\.npz"):
        collect(files, dest)
    assert list(dest.root.rglob("*.npz")) == []


def test_newer_local_outputs_stay(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    make(dest, 5)
    assert epoch_in(RunFolder(collect(files, dest).folder)) == 5
    dest.state.write_text("torn")
    collect(files, dest)
    assert epoch_in(dest) == 3, "incomplete outputs are not newer"


def test_downloads_are_complete_while_a_notebook_writes(
    colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebook's own code, on the mount, as fast as it can."""
    for name, value in (("ATTEMPTS", 21), ("BACKOFF_S", 0.05), ("LONGEST_PAUSE_S", 0.05)):
        monkeypatch.setattr(f"boneagectl.targets.http.{name}", value)
    drive, messages = colab_drive.MountedDrive(colab.drive.mount), list[str]()
    out = RunFolder(tmp_path / "content")
    mirror = colab_drive.DriveMirror(drive, place(colab), out, tmp_path / "staging", messages.append)
    epochs: list[int] = []
    for epoch in range(1, 25):
        make(out, epoch)
        mirror.copy_epoch()
        if epoch == 1:
            wait_for(lambda: notebook_outputs.read_progress(files, RUN, LEG))
        if epoch % 3 == 0:
            assert collect(files, dest).unlisted == ()
            archive.check_files(dest, [dest.last, dest.best, dest.metrics, dest.state])
            epochs.append(epoch_in(dest))
    assert mirror.wait(10) == messages == []
    collect(files, dest)
    assert (epochs, epoch_in(dest)) == (sorted(epochs), epoch)


# ------------------------------------------------------------------------------------- the results
def test_the_results_zip_wins_over_an_equal_slot(
    colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path
) -> None:
    slot(colab, "a", 4, state="complete", updated_s=2000.0)
    results(colab, tmp_path, 4, updated_s=2000.0)
    found = collect(files, dest)
    assert found.unlisted == ()
    assert dest.predictions.exists()
    assert dest.log.read_text() == "what it printed\n"
    assert not list(dest.root.glob(".*"))
    before = media(colab)
    assert collect(files, dest) == found
    assert media(colab) - before == 2 + 2, "list and state of the slot, and beginning and end of the zip"
    dest.log.unlink()
    assert collect(files, dest) == found
    write_json(dest.state, {"state": "complete", "epoch": 99, "leg": LEG})
    assert collect(files, dest) == found, "incomplete outputs are not newer"
    assert [path.name for path in dest.root.parent.iterdir()] == ["artifacts"]


def test_results_of_an_earlier_session_are_skipped(
    colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path
) -> None:
    results(colab, tmp_path, 3, state="paused")
    collect(files, dest)
    slot(colab, "b", 5)
    found = collect(files, dest)
    assert epoch_in(dest) == 5
    assert found.unlisted == ()
    results(colab, tmp_path, 9)
    collect(files, dest)
    assert (epoch_in(dest), dest.predictions.exists()) == (9, True)


def test_results_without_slots_are_enough(colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path) -> None:
    results(colab, tmp_path, 9)
    assert notebook_outputs.read_progress(files, RUN, LEG) is None
    assert collect(files, dest).unlisted == ()


@pytest.mark.parametrize("harm", ["no zip", "torn", "another leg"])
def test_unreadable_results_count_only_without_slots(
    harm: str, colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path
) -> None:
    path = results(colab, tmp_path, 9, **({"leg": "hands-a1b2-02"} if harm == "another leg" else {}))
    if harm != "another leg":
        path.write_bytes(path.read_bytes()[:-200] if harm == "torn" else b"<html>sign in</html>")
    with pytest.raises(UsageError if harm == "another leg" else MachineError, match="nothing was imported"):
        collect(files, dest)
    assert [path for path in dest.root.rglob("*") if path.is_file()] == []
    slot(colab, "a", 3)
    collect(files, dest)
    assert epoch_in(dest) == 3


def test_a_hostile_zip_is_refused(colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(results(colab, tmp_path, 9), "a") as opened:
        opened.writestr("../../outside", "x")
    with pytest.raises(MachineError, match="leads out of the folder"):
        collect(files, dest)
    assert not list(tmp_path.rglob("outside"))


# --------------------------------------------------------------------------------- names and twins
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "C:x", "a\\b"])
def test_a_name_outside_the_folder_is_refused(
    name: str, colab: Colab, files: DriveClient, dest: RunFolder, tmp_path: Path
) -> None:
    """In the list of the leg itself, or as Drive's own name for a file, which may have a slash in it."""
    made = slot(colab, "a", 3)
    said = json.loads(made.manifest.read_text())
    said["files"][name] = said["files"]["state.json"]
    before = made.manifest.read_text()
    made.manifest.write_text(json.dumps(said))
    with pytest.raises(MachineError, match="points outside its folder"):
        collect(files, dest)
    made.manifest.write_text(before)
    if name != "..":
        (folder,) = files.find_folders("boneagectl", RUN, LEG, "a")
        through_the_api(colab, name, folder.id)
        with pytest.raises(MachineError, match="points outside its folder"):
            collect(files, dest)
    assert not dest.root.exists()


def test_shortcuts_documents_and_other_files_are_ignored(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    (folder,) = files.find_folders("boneagectl", RUN, LEG, "a")
    through_the_api(colab, "state.json", folder.id, "application/vnd.google-apps.shortcut")
    through_the_api(colab, "notes", folder.id, "application/vnd.google-apps.document")
    through_the_api(colab, "metrics.jsonl", folder.id, FOLDER)
    (place(colab, "a") / "desktop.ini").write_text("of another program")
    collect(files, dest)
    assert sorted(path.name for path in dest.root.iterdir()) == [
        "MANIFEST.json", "checkpoint", "metrics.jsonl", "state.json",
    ]  # fmt: skip


def test_all_folders_of_one_name_are_searched(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    twin = through_the_api(colab, "boneagectl", mime=FOLDER)
    run = through_the_api(colab, RUN, twin, FOLDER)
    through_the_api(colab, LEG, run, FOLDER)
    make(RunFolder(colab.drive.folder / "boneagectl (1)" / RUN / LEG / "a"), 4)
    assert len(files.find_folders("boneagectl")) == 2
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert seen["state"]["epoch"] == 4
    collect(files, dest)
    assert epoch_in(dest) == 4


def test_the_newest_file_of_one_name_counts(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    made = slot(colab, "a", 3)
    (folder,) = files.find_folders("boneagectl", RUN, LEG, "a")
    through_the_api(colab, "state.json", folder.id)
    os.utime(place(colab, "a") / "state (1).json", (1, 1))
    collect(files, dest)
    assert dest.state.read_bytes() == made.state.read_bytes()


def test_names_with_quotes_and_long_lists_are_found(colab: Colab, files: DriveClient) -> None:
    folder = colab.drive.folder / "it's \\ a 手"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.bin").write_bytes(bytes(number + 1))
    colab.drive.most_per_page = 3
    found = files.list_files(files.find_folders(folder.name))
    assert sorted(one.size for one in found) == [1, 2, 3, 4, 5, 6, 7]
    assert [one.name for one in files.list_files(files.find_folders(folder.name), "4.bin")] == ["4.bin"]
    assert files.find_folders("no such", folder.name) == []


# ------------------------------------------------------------------------------------- what breaks
def test_an_interrupted_download_is_resumed(colab: Colab, dest: RunFolder) -> None:
    made = slot(colab, "a", 3)
    size = made.last.stat().st_size
    with drive.open_session() as session:
        responses: list[tuple[int, int]] = []
        session.hooks["response"].append(lambda answer, **_: responses.append((answer.status_code, length(answer))))
        files = DriveClient(session)
        (folder,) = files.find_folders("boneagectl", RUN, LEG, "a", "checkpoint")
        (weights,) = files.list_files([folder], "last.npz")
        colab.cuts = [90_000, 5_000]  # a shorter file leaves the cut to the next
        responses.clear()
        files.download(weights, dest.root / "weights")
    assert (dest.root / "weights").read_bytes() == made.last.read_bytes()
    assert [status for status, _ in responses] == [200, 206, 206]
    assert [count for _, count in responses] == [size, size - 90_000, size - 95_000], "no byte is downloaded twice"


def length(answer: requests.Response) -> int:
    return int(answer.headers.get("Content-Length", 0))


def test_a_partial_download_is_kept_for_the_next_call(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    made = slot(colab, "a", 3)
    colab.cuts = [90_000]
    colab.faults.append(Fault("GET drive media/*", "503", times=9, after=4))
    with pytest.raises(Unreachable, match="503"):
        collect(files, dest)
    assert not dest.last.exists()
    sizes = sorted(part.stat().st_size for part in (dest.root / ".incoming").glob("*"))
    assert sizes == [made.best.stat().st_size, 90_000]
    colab.faults.clear()
    before = media(colab)
    collect(files, dest)
    assert media(colab) - before == 4, "list, state, the rest of the weights, and metrics"
    assert dest.last.read_bytes() == made.last.read_bytes()
    assert not (dest.root / ".incoming").exists()


def test_a_kept_partial_download_is_verified(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    made = slot(colab, "a", 3)
    (folder,) = files.find_folders("boneagectl", RUN, LEG, "a", "checkpoint")
    (weights,) = files.list_files([folder], "last.npz")
    write_atomic(dest.root / ".incoming" / weights.md5, b"x" * 5000)
    collect(files, dest)
    assert dest.last.read_bytes() == made.last.read_bytes()


@pytest.mark.parametrize("kind", ["429", "500", "503", "403", "reset", "truncate"])
@pytest.mark.parametrize("call", ["GET drive files", "GET drive media/*"])
def test_temporary_failures_are_retried(
    kind: str, call: str, colab: Colab, files: DriveClient, dest: RunFolder
) -> None:
    """A 403 of the kind rateLimitExceeded is one that passes; a 429 says for how long."""
    made = slot(colab, "a", 3)
    colab.faults.append(Fault(call, kind, times=1))
    collect(files, dest)
    assert colab.faults == []
    assert dest.last.read_bytes() == made.last.read_bytes()


@pytest.mark.parametrize("call", ["GET drive files", "GET drive media/*"])
def test_a_hanging_request_times_out_and_is_retried(
    call: str, colab: Colab, files: DriveClient, dest: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneagectl.targets.http.TIMEOUT_S", (1.0, 0.3))
    slot(colab, "a", 3)
    colab.faults.append(Fault(call, "hang"))
    collect(files, dest)
    assert epoch_in(dest) == 3


REFUSED: dict[str, tuple[Fault, type[Exception], str, str]] = {
    "too fast": (Fault("*files", "403", times=9), Unreachable, "403 .*rateLimitExceeded", "few minutes"),
    "down": (Fault("*files", "500", times=9), Unreachable, "answered 500", "few minutes"),
    "quota": (Fault("*files", "403", code="dailyLimitExceeded"), LimitRefused, "dailyLimitExceeded", "--from ZIP"),
    "full": (Fault("*files", "403", code="storageQuotaExceeded"), LimitRefused, "storageQuota", "--from ZIP"),
    "downloads": (Fault("*media/*", "403", code="downloadQuotaExceeded"), LimitRefused, "downloadQuota", "--from ZIP"),
    "api off": (
        Fault("*files", "403", code="accessNotConfigured", text="Drive API has not been used in project 7"),
        ProviderRefused, "not enabled.*project 7", "gcloud services enable drive.googleapis.com",
    ),
    "scope": (Fault("*files", "403", code="insufficientPermissions"), NotSignedIn, "may not read", "gcloud auth"),
    "not accepted": (Fault("*files", "401", times=9), NotSignedIn, "does not accept the sign-in", "gcloud auth"),
    "abuse": (Fault("*media/*", "403", code="cannotDownloadAbusiveFile"), ProviderRefused, "Abusive", "in a browser"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_next_step(kind: str, colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    fault, error, said, way = REFUSED[kind]
    slot(colab, "a", 3)
    colab.faults.append(fault)
    with pytest.raises(error, match=said) as caught:
        collect(files, dest)
    assert way in caught.value.next_step  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    assert not dest.state.exists()


def test_the_specific_one_of_two_reasons_counts() -> None:
    """Google says some refusals twice, and in the older way of many services that is a mere "forbidden"."""
    newer = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}
    said = {"code": 403, "message": "has not been used", "errors": [{"reason": "forbidden"}], "details": [{}, newer]}
    for body, fragment in (({"error": said}, "not enabled"), ({"error": "x"}, "answered 403"), ([], "answered 403")):
        answer = requests.Response()
        answer.status_code, answer.raw = 403, io.BytesIO(json.dumps(body).encode())
        assert fragment in drive.DRIVE.error_from(answer, "MyDrive").message


def test_a_file_replaced_during_the_download_is_searched_again(
    colab: Colab, files: DriveClient, dest: RunFolder
) -> None:
    slot(colab, "a", 3)
    colab.faults.append(Fault("GET drive media/*", "404", after=2))
    collect(files, dest)
    assert epoch_in(dest) == 3
    (folder,) = files.find_folders("boneagectl", RUN, LEG, "a")
    (state,) = files.list_files([folder], "state.json")
    place(colab, "a/state.json").unlink()
    with pytest.raises(NotFound, match=r"state\.json.* 404") as caught:
        files.read_file(state)
    assert "Google account" in caught.value.next_step


def test_a_slot_being_written_does_not_hide_the_other(colab: Colab, files: DriveClient, dest: RunFolder) -> None:
    slot(colab, "a", 3)
    slot(colab, "b", 4)
    colab.faults.append(Fault("GET drive media/*", "404"))
    seen = notebook_outputs.read_progress(files, RUN, LEG)
    assert seen
    assert seen["state"]["epoch"] in (3, 4)


def test_a_large_state_file_is_refused(colab: Colab, files: DriveClient) -> None:
    with open(colab.drive.folder / "state.json", "wb") as stream:
        stream.truncate((1 << 25) + 1)
    (state,) = files._search("'root' in parents", "My Drive")
    with pytest.raises(ProviderRefused, match="too much for its kind"):
        files.read_file(state)


# ------------------------------------------------------------------------------------------ sign-in
def test_a_missing_or_invalid_sign_in_is_reported(colab: Colab, monkeypatch: pytest.MonkeyPatch) -> None:
    drive.credentials_path().unlink()
    with pytest.raises(NotSignedIn, match="not signed in to Google") as caught:
        drive.open_session()
    assert caught.value.next_step.startswith("gcloud auth application-default login --client-id-file=client.json --sc")
    assert "drive.readonly" in caught.value.next_step
    assert "--from ZIP" in caught.value.next_step
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(colab.root / "elsewhere"))
    assert drive.credentials_path().parent == colab.root / "elsewhere"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(colab.root / "key.json"))
    for text, said in (
        ('{"type": "service_account"}', "'service_account' sign-in"),
        ('{"type": "authorized_user"}', "no valid sign-in"),
        ("{", "no valid sign-in"),
    ):
        drive.credentials_path().write_text(text)
        with pytest.raises(NotSignedIn, match=said):
            drive.open_session()


def test_the_token_has_the_read_only_scope(colab: Colab, files: DriveClient) -> None:
    notebook_outputs.read_progress(files, RUN, LEG)
    (granted,) = {scopes for scopes, _ in list(colab.login._access.values())[-1:]}
    assert granted == (drive.SCOPE,)
    with drive.open_session() as session:
        answer = session.post(FILES, json={"name": "x"}, timeout=5)
        assert (answer.status_code, list(colab.drive.folder.iterdir())) == (403, [])


def test_a_sign_in_without_the_drive_scope_is_reported(colab: Colab, tmp_path: Path) -> None:
    """With drive.file a listing would be empty, and look as if nothing were there."""
    slot(colab, "a", 3)
    kept = {name: colab.login.grant("drive.file")[name] for name in ("token", "expiry")}
    for scopes, more in ((("drive.file",), kept), (("drive.file",), {}), (("cloud-platform",), {})):
        sign_in(colab, *scopes, **more)
        with drive.open_session() as session, pytest.raises(NotSignedIn, match="may not read Drive") as caught:
            notebook_outputs.read_progress(DriveClient(session), RUN, LEG)
        assert caught.value.next_step == drive.LOGIN


def test_the_scope_drive_file_does_not_show_mounted_files(colab: Colab) -> None:
    slot(colab, "a", 3)
    credentials = pytest.importorskip("google.oauth2.credentials")
    transport = pytest.importorskip("google.auth.transport.requests")
    narrow = credentials.Credentials.from_authorized_user_info(colab.login.grant("drive.file"))
    with transport.AuthorizedSession(narrow) as session:
        assert notebook_outputs.read_progress(DriveClient(session), RUN, LEG) is None


def test_an_expired_token_is_renewed_until_the_sign_in_is_revoked(colab: Colab, files: DriveClient) -> None:
    slot(colab, "a", 3)
    assert notebook_outputs.read_progress(files, RUN, LEG)
    colab.login.expire()
    assert notebook_outputs.read_progress(files, RUN, LEG)
    assert colab.calls.count("POST token") == 2
    colab.faults.append(Fault("POST token", "reset", times=99))
    colab.login.expire()
    with pytest.raises(Unreachable, match="sign-in server cannot be reached"):
        notebook_outputs.read_progress(files, RUN, LEG)
    colab.faults.clear()
    colab.login.revoked = True
    with pytest.raises(NotSignedIn, match="does not accept the sign-in: invalid_grant") as caught:
        notebook_outputs.read_progress(files, RUN, LEG)
    assert drive.LOGIN in caught.value.next_step


def test_netrc_does_not_replace_the_token(colab: Colab, files: DriveClient) -> None:
    slot(colab, "a", 3)
    (colab.home / ".netrc").write_text("machine www.googleapis.com login alice password other\n")
    assert notebook_outputs.read_progress(files, RUN, LEG)


def test_the_quota_project_is_sent(colab: Colab, monkeypatch: pytest.MonkeyPatch) -> None:
    slot(colab, "a", 3)
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "my-project")
    with drive.open_session() as session:
        heads: list[str] = []
        session.hooks["response"].append(
            lambda answer, **_: heads.append(answer.request.headers["x-goog-user-project"])
        )
        assert notebook_outputs.read_progress(DriveClient(session), RUN, LEG)
    assert set(heads) == {"my-project"}


def test_no_secret_is_shown_or_stored(
    colab: Colab, files: DriveClient, dest: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    slot(colab, "a", 3)
    caplog.set_level(logging.DEBUG)
    collect(files, dest)
    colab.login.revoked = True
    colab.login.expire()
    with pytest.raises(NotSignedIn) as caught:
        collect(files, dest)
    texts = [caplog.text, str(caught.value), caught.value.next_step]
    assert [text for text in texts if "SECRET" in text] == []
    kept = [path for path in dest.root.parent.rglob("*") if path.is_file()]
    assert len(kept) == 5
    assert [path for path in kept if b"SECRET" in path.read_bytes()] == []
