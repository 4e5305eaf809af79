"""Legs that a person runs: a notebook to open, and what comes back of it by a zip or by the person's Drive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object, write_json
from boneagectl.errors import NotYet, UsageError
from boneagectl.models import Artifacts, Bundle, Checkpoint, Finding, Handle, JobSpec, LegState, Observation, Quote
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.colab import drive as colab_drive
from boneagectl.targets.colab import notebook_outputs, rehearsal, render
from boneagectl.targets.colab.drive import DriveFiles

COLAB = "https://colab.research.google.com"
FAQ = "research.google.com/colaboratory/faq.html"
_STATES = {state.value: state for state in LegState}


class ByHand:
    """`root` keeps what is known of each leg; with ``settings.drive`` the user's own Drive is read too."""

    def __init__(self, root: Path, settings: ColabSettings) -> None:
        self.root, self.settings = root, settings

    def findings(self) -> Iterator[Finding]:
        yield Finding("ok", "notebook", "needs a browser and a Google account; nothing is installed here for it")
        free = (
            "a free account: sessions of 12 h at most, a GPU is not promised, one account a person, no other remote use"
        )
        yield Finding("ok", "rules", f"{free}: {FAQ}")
        if self.settings.drive:
            yield _drive_finding()

    def quote(self, spec: JobSpec) -> Quote:
        return Quote("colab", spec.time_limit_s, 0, 0, 1, "a notebook that a person runs costs no money", "2026-11-25")

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.write(spec, bundle, leg_id, dest, resume, self.settings)

    def rehearse(self, rendered: Path, place: Path, python: str) -> Iterator[Finding]:
        return rehearsal.rehearse(rendered, place, python)

    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Nothing is sent: the person opens what was rendered."""
        path, _ = render.read(rendered)
        self._write(leg_id, {"notebook": str(path.absolute()), "made_s": time.time(), "state": {}})
        return self._handle(leg_id)

    def find(self, leg_id: str) -> Handle | None:
        return self._handle(leg_id) if self._path(leg_id).exists() else None

    def next_steps(self, handle: Handle) -> list[str]:
        """How to open the notebook, and how its results come back."""
        leg_id = handle.remote_id
        notebook, run_id = Path(self._note(leg_id)["notebook"]), leg_id.rpartition("-")[0]
        link = f"{COLAB}/github/OWNER/REPO/blob/BRANCH/{notebook.name}"
        brought = "" if self.settings.drive else f" --from results-{leg_id}.zip"
        home = "comes by itself with boneagectl watch, and" if self.settings.drive else "then"
        return [
            f"the notebook: {notebook}",
            f"open it: {COLAB}, File > Upload notebook; or put it on your Drive and double-click it;",
            f"  or push it to GitHub: {link}",
            f"  badge: [![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})",
            "choose Runtime > Run all. Cut off or out of time? Open it again and Run all: it goes on where it was",
            f"when it is over, {home}: boneagectl collect {run_id}{brought}",
        ]

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        """What was last brought, or what Drive has by now; a pause is not the end, since the notebook goes on."""
        leg_id = handle.remote_id
        state, metrics = self._note(leg_id).get("state", {}), None
        if self.settings.drive and (seen := self._look(leg_id)):
            state, metrics = seen["state"], (seen["metrics"] or [None])[-1]
            self._write(leg_id, {**self._note(leg_id), "state": state})
        return _snapshot(state, metrics, bool(self._note(leg_id).get("given_up")))

    @staticmethod
    def _look(leg_id: str) -> dict[str, Any] | None:
        with colab_drive.session() as session:
            return notebook_outputs.look(DriveFiles(session), *_names(leg_id))

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        raise NotYet("the log of a notebook is on its page", f"boneagectl collect {_names(handle.remote_id)[0]}")

    def stop(self, handle: Handle) -> None:
        """Only the person can: this notes that they will not open it again."""
        if note := self._note(handle.remote_id):
            self._write(handle.remote_id, {**note, "given_up": True})

    def collect(self, handle: Handle, place: Path) -> Artifacts:
        (run_id, leg_id), dest = _names(handle.remote_id), RunFolder(place)
        if self.settings.drive:
            with colab_drive.session() as session:
                return self._noted(leg_id, notebook_outputs.bring(DriveFiles(session), run_id, leg_id, dest))
        if dest.state.exists():
            from boneagectl import artifacts

            return artifacts.read_artifacts(dest)
        raise NotYet(f"nothing of {leg_id} is here yet", f"boneagectl collect {run_id} --from results-{leg_id}.zip")

    def collect_from_zip(self, handle: Handle, zip_path: Path, dest: RunFolder) -> Artifacts:
        """From the zip that the notebook offered."""
        return self._noted(handle.remote_id, notebook_outputs.results_bring(zip_path, handle.remote_id, dest))

    # --------------------------------------------------------------------------------- its notes
    def _noted(self, leg_id: str, brought: Artifacts) -> Artifacts:
        state = RunFolder(brought.folder).state
        if state.exists():
            said = parse_object(state.read_text(encoding="utf-8"), state.name)
            self._write(leg_id, {**self._note(leg_id), "state": said})
        return brought

    def _handle(self, leg_id: str) -> Handle:
        return Handle("colab", leg_id, f"{COLAB}/")

    def _path(self, leg_id: str) -> Path:
        if "/" in leg_id:
            raise UsageError(f"{leg_id!r} is not a leg's id")
        return self.root / "by-hand" / f"{leg_id}.json"

    def _note(self, leg_id: str) -> dict[str, Any]:
        path = self._path(leg_id)
        return parse_object(path.read_text(encoding="utf-8"), path.name) if path.exists() else {}

    def _write(self, leg_id: str, note: dict[str, Any]) -> None:
        write_json(self._path(leg_id), note)


def _names(leg_id: str) -> tuple[str, str]:
    return leg_id.rpartition("-")[0], leg_id


def _snapshot(state: dict[str, Any], metrics: dict[str, Any] | None, is_given_up: bool) -> Observation:
    leg, reason = _judged(state, is_given_up)
    epoch, epochs = (int(state.get(key) or 0) for key in ("epoch", "epochs"))
    elapsed_s = round(float(state.get("elapsed_s") or 0))
    return Observation(leg, reason, epoch, epochs, elapsed_s, 0, metrics)


def _judged(state: dict[str, Any], is_given_up: bool) -> tuple[LegState, str]:
    said, reason = _STATES.get(str(state.get("state"))), str(state.get("reason", ""))
    if said in (LegState.COMPLETE, LegState.FAILED):
        return said, reason
    if is_given_up:
        return (LegState.PAUSED, "given up here") if state else (LegState.LOST, "given up here; nothing came back")
    if said is LegState.PAUSED:
        return LegState.QUEUED, f"{reason or 'paused'}: open the notebook again and choose Run all"
    if said is LegState.RUNNING:
        return LegState.RUNNING, reason
    return LegState.QUEUED, "waits for you to open the notebook"


def _drive_finding() -> Finding:
    path = colab_drive.file()
    if path.exists():
        return Finding("ok", "drive", f"signed in by {path}, to read Drive only; {colab_drive.REVOKE}")
    return Finding("warn", "drive", f"nobody is signed in to Drive; {colab_drive.WITHOUT}", colab_drive.LOGIN)
