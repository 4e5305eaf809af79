"""Runs the generated notebook on this computer, with a stub of Colab's package, in two sessions: the first is killed.

Its cells run in `stub/run_all.py`, in the interpreter that trains: a Jupyter kernel would need three more packages
here and would not check more of what is sent. The tests run the notebook in a real kernel.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl import units
from boneagectl.errors import MachineError
from boneagectl.models import Finding
from boneagectl.targets import rehearsal
from boneagectl.targets.colab import notebook_outputs, render

STUB = Path(__file__).parent / "stub"
TOKEN = "a token for the rehearsal"  # noqa: S105
UNCHECKED = (
    "whether Colab has a GPU for you today, and TensorFlow can use it there",
    "whether Google grants the notebook access to your Drive, and how Drive behaves",
    "whether your token can download the real dataset, or your Drive has the pack",
    "how soon Colab ends an idle session, and how fast its machines are",
    "the package versions of Colab's image, and how the page looks; this computer's versions were used, without a page",
)
_DRIVE_POLL_S = 0.02
_NOTHING_SENT = "nothing was sent or reserved"


def rehearse(rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
    """Yields what was verified; the notebook's own output goes to standard error.

    Raises:
        MachineError: a cell failed, the second session did not resume, or the results are not as expected.
    """
    notebook, values = render.read_notebook(rendered)
    leg_id = values["LEG"]
    rehearsal.synthesize_images(workspace / "hands", python)
    with _provide_images(values, workspace, python) as (source, variables):
        yield Finding("ok", "data", f"{rehearsal.IMAGES} synthetic hands in place of {source}")
        command = [python, "-u", str(STUB / "run_all.py"), str(notebook.absolute())]
        start_s, environment = time.monotonic(), {**notebook_environment(workspace), **variables}
        epoch = _run_until_first_epoch(command, workspace, environment, leg_id)
        yield Finding("ok", "first session", f"killed after epoch {epoch}, and its disk deleted")
        shutil.rmtree(workspace / "content")
        _run_second_session(command, workspace, environment)
    duration = units.format_duration(time.monotonic() - start_s)
    yield Finding("ok", "second session", f"the same notebook resumed from Drive and completed; both took {duration}")
    zipped, dest = workspace / "downloads" / notebook_outputs.results_name(leg_id), RunFolder(workspace / "collected")
    found = notebook_outputs.import_results(zipped, leg_id, dest)
    state = parse_object(dest.state.read_text(), dest.state.name)
    if state["state"] != "complete":
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason']}")
    size = units.format_bytes(zipped.stat().st_size)
    yield Finding("ok", "results", f"{zipped.name}, {size}: {len(found.sha256)} files match their manifest")
    for item in UNCHECKED:
        yield Finding("warn", "not checked", item)


def notebook_environment(workspace: Path) -> dict[str, str]:
    """The environment variables of the notebook's process, whose Colab lies below `workspace`."""
    return {
        **rehearsal.clean_environment(),
        **rehearsal.ENVIRONMENT,
        "PYTHONPATH": str(STUB.absolute()),
        "COLAB_RELEASE_TAG": "rehearsal",
        "BONEAGECTL_ROOT": str(workspace / "content"),
        "STUB_DRIVE": str(workspace / "drive"),
        "STUB_DOWNLOADS": str(workspace / "downloads"),
        "STUB_SECRET_KAGGLE_API_TOKEN": TOKEN,
    }


# ------------------------------------------------------------------------------------- the sessions
def _run_until_first_epoch(command: list[str], workspace: Path, environment: Mapping[str, str], leg_id: str) -> int:
    """Kills the notebook once Drive holds an epoch, as when Colab ends a session; returns the epoch."""
    manifests = (
        f"{render.FOLDER}/*/{leg_id}/*/{RunFolder(workspace).manifest.name}"  # written last, after a whole epoch
    )
    found: list[Path] = []
    with _notebook_process(command, workspace, environment) as process:

        def kill_after_first_epoch() -> None:
            while process.poll() is None and not found:
                found.extend((workspace / "drive").glob(manifests))
                time.sleep(_DRIVE_POLL_S)
            _kill(process)

        threading.Thread(target=kill_after_first_epoch, daemon=True).start()
        last = [line for line in _echo_lines(process) if line][-1:]
    if not found:
        raise MachineError(f"no epoch reached Drive: {''.join(last) or 'it printed nothing'}", _NOTHING_SENT)
    state = RunFolder(found[0].parent).state
    return int(parse_object(state.read_text(), state.name)["epoch"])


def _run_second_session(command: list[str], workspace: Path, environment: Mapping[str, str]) -> None:
    with _notebook_process(command, workspace, environment) as process:
        lines = list(_echo_lines(process))
        code = process.wait()
    if code:
        raise MachineError(f"the notebook failed: {lines[-1] if lines else code}", _NOTHING_SENT)
    if not any("interrupted after epoch" in line for line in lines):
        raise MachineError("the second session did not resume where the first was killed", _NOTHING_SENT)


@contextmanager
def _notebook_process(
    command: list[str], workspace: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The notebook's process; it and everything that it started are killed at the end of the block."""
    with subprocess.Popen(
        command, cwd=workspace, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _echo_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    for line in process.stdout or ():
        print(f"  {line}", end="", file=sys.stderr, flush=True)
        yield line.rstrip("\n")


# ----------------------------------------------------------------------------------------- the images
@contextmanager
def _provide_images(values: Mapping[str, Any], workspace: Path, python: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Puts the synthetic hands where the notebook gets its images; yields that place's name, and variables for it."""
    if pack := values["PACK"]:
        (workspace / "drive" / pack).parent.mkdir(parents=True, exist_ok=True)
        rehearsal.prepare_pack(workspace / "hands", workspace / "drive" / pack, python)
        yield f"{pack} on Drive", {}
        return
    zipped = Path(shutil.make_archive(str(workspace / "hands"), "zip", workspace / "hands"))
    with serve_dataset(f"/api/v1/datasets/download/{values['DATASET']}", zipped) as url:
        yield f"{values['DATASET']} on Kaggle", {"KAGGLE_API_ENDPOINT": url, "no_proxy": "127.0.0.1"}


@contextmanager
def serve_dataset(path: str, zipped: Path) -> Iterator[str]:
    """A stand-in for Kaggle's download: serves `zipped` at `path` to requests with `TOKEN`; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_authorized, is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}", self.path == path
            content = zipped.read_bytes() if is_authorized and is_known else b""
            self.send_response(200 if content else 401 if is_known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
