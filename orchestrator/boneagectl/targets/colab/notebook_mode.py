"""Legs that the user runs in a browser: a notebook to open, and results that return as a zip or through Drive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object, write_json
from boneagectl import artifacts
from boneagectl.errors import NotYet, UsageError
from boneagectl.models import Artifacts, Bundle, Checkpoint, Finding, Handle, JobSpec, LegState, Observation, Quote
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.colab import drive, notebook_outputs, rehearsal, render
from boneagectl.targets.colab.drive import DriveClient

COLAB = "https://colab.research.google.com"
FAQ = "research.google.com/colaboratory/faq.html"
_STATES = {state.value: state for state in LegState}


class NotebookMode:
    """`root` holds a record of each leg; with ``settings.drive`` results come from the user's Drive."""

    def __init__(self, root: Path, settings: ColabSettings) -> None:
        self.root, self.settings = root, settings

    def check(self) -> Iterator[Finding]:
        yield Finding("ok", "notebook", "needs a browser and a Google account; nothing to install here")
        rules = "free account: sessions of 12 h at most, no guaranteed GPU, one account per person, no other remote use"
        yield Finding("ok", "rules", f"{rules}: {FAQ}")
        if self.settings.drive:
            path = drive.credentials_path()
            if path.exists():
                yield Finding("ok", "drive", f"signed in with {path}, read-only; {drive.REVOKE}")
            else:
                yield Finding("warn", "drive", f"not signed in to Drive; {drive.WITHOUT}", drive.LOGIN)

    def quote(self, spec: JobSpec) -> Quote:
        return Quote("colab", spec.time_limit_s, 0, 0, 1, "a notebook on a free Colab account", "2026-11-25")

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.render_notebook(spec, bundle, leg_id, dest, resume, self.settings)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return rehearsal.rehearse(rendered, workspace, python)

    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Sends nothing: the user opens the rendered notebook."""
        path, _ = render.read_notebook(rendered)
        self._save_record(leg_id, {"notebook": str(path.absolute()), "made_s": time.time(), "state": {}})
        return self._handle(leg_id)

    def find(self, leg_id: str) -> Handle | None:
        return self._handle(leg_id) if self._record_path(leg_id).exists() else None

    def next_steps(self, handle: Handle) -> list[str]:
        """How to open the notebook, and how to collect its results."""
        run_id, leg_id = _run_and_leg(handle)
        notebook = Path(self._load_record(leg_id)["notebook"])
        link = f"{COLAB}/github/OWNER/REPO/blob/BRANCH/{notebook.name}"
        collect = f"boneagectl collect {run_id}"
        end = (
            f"at its end: {collect} (boneagectl watch does it too)"
            if self.settings.drive
            else f"at its end: {collect} --from {notebook_outputs.results_name(leg_id)}"
        )
        return [
            f"the notebook: {notebook}",
            f"open it: {COLAB}, File > Upload notebook; or put it on your Drive and double-click it;",
            f"  or push it to GitHub: {link}",
            f"  badge: [![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})",
            "choose Runtime > Run all. After an interruption, open it again and choose Run all: it resumes",
            end,
        ]

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        """From what was last collected, or from Drive. A paused leg is queued: the notebook can be opened again."""
        run_id, leg_id = _run_and_leg(handle)
        record = self._load_record(leg_id)
        state, metrics = record.get("state", {}), None
        if self.settings.drive:
            with drive.open_session() as session:
                progress = notebook_outputs.read_progress(DriveClient(session), run_id, leg_id)
            if progress:
                state, metrics = progress["state"], (progress["metrics"] or [None])[-1]
                self._save_record(leg_id, {**record, "state": state})
        leg_state, reason = _leg_state(state, bool(record.get("given_up")))
        epoch, epochs = (int(state.get(key) or 0) for key in ("epoch", "epochs"))
        return Observation(leg_state, reason, epoch, epochs, round(float(state.get("elapsed_s") or 0)), 0, metrics)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        raise NotYet("a notebook shows its log on its own page", f"boneagectl collect {_run_and_leg(handle)[0]}")

    def stop(self, handle: Handle) -> None:
        """Only the user can stop a notebook: this records that it will not be opened again."""
        if record := self._load_record(handle.remote_id):
            self._save_record(handle.remote_id, {**record, "given_up": True})

    def collect(self, handle: Handle, folder: Path) -> Artifacts:
        (run_id, leg_id), dest = _run_and_leg(handle), RunFolder(folder)
        if self.settings.drive:
            with drive.open_session() as session:
                found = notebook_outputs.download_outputs(DriveClient(session), run_id, leg_id, dest)
            return self._record_state(leg_id, found)
        if dest.state.exists():
            return artifacts.read_artifacts(dest)
        zipped = notebook_outputs.results_name(leg_id)
        raise NotYet(f"nothing of {leg_id} has been collected yet", f"boneagectl collect {run_id} --from {zipped}")

    def import_results(self, handle: Handle, zipped: Path, dest: RunFolder) -> Artifacts:
        """From the zip that the notebook offered as a download."""
        found = notebook_outputs.import_results(zipped, handle.remote_id, dest)
        return self._record_state(handle.remote_id, found)

    # --------------------------------------------------------------------------------- its record
    def _record_state(self, leg_id: str, found: Artifacts) -> Artifacts:
        path = RunFolder(found.folder).state
        if path.exists():
            state = parse_object(path.read_text(encoding="utf-8"), path.name)
            self._save_record(leg_id, {**self._load_record(leg_id), "state": state})
        return found

    def _handle(self, leg_id: str) -> Handle:
        return Handle("colab", leg_id, f"{COLAB}/")

    def _record_path(self, leg_id: str) -> Path:
        if "/" in leg_id:
            raise UsageError(f"invalid leg id {leg_id!r}")
        return self.root / "by-hand" / f"{leg_id}.json"

    def _load_record(self, leg_id: str) -> dict[str, Any]:
        path = self._record_path(leg_id)
        return parse_object(path.read_text(encoding="utf-8"), path.name) if path.exists() else {}

    def _save_record(self, leg_id: str, record: dict[str, Any]) -> None:
        write_json(self._record_path(leg_id), record)


def _run_and_leg(handle: Handle) -> tuple[str, str]:
    return handle.remote_id.rpartition("-")[0], handle.remote_id


def _leg_state(state: dict[str, Any], is_given_up: bool) -> tuple[LegState, str]:
    leg_state, reason = _STATES.get(str(state.get("state"))), str(state.get("reason", ""))
    if leg_state in (LegState.COMPLETE, LegState.FAILED):
        return leg_state, reason
    if is_given_up:
        if not state:
            return LegState.LOST, "given up here; nothing was collected"
        return LegState.PAUSED, "given up here"
    if leg_state is LegState.PAUSED:
        return LegState.QUEUED, f"{reason or 'paused'}: open the notebook again and choose Run all"
    if leg_state is LegState.RUNNING:
        return LegState.RUNNING, reason
    return LegState.QUEUED, "waits for you to open the notebook"
