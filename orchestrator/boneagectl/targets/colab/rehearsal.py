"""Runs the very notebook here, with a stand-in for Colab's package, in two sessions: the first is cut off.

Its cells are run by a small program, `stub/run_all.py`, in the interpreter that trains: a kernel would need three
more packages on the user's machine, and shows nothing more of what is sent. Our tests run it in a real kernel.
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
UNCHECKED = (
    "whether Colab gives a GPU today, and TensorFlow there can use it",
    "whether Google lets the notebook have your Drive, and how Drive behaves there",
    "whether your token fetches the real data set, or the pack lies on your Drive",
    "how long Colab leaves a session alone, and how fast it is",
    "the versions in Colab's image, and how the page looks; here it ran with those of this machine, without a page",
)
_LOOK_EVERY_S = 0.02
_TOKEN = "a token for the rehearsal"  # noqa: S105


def rehearse(rendered: Path, place: Path, python: str) -> Iterator[Finding]:
    """What held, one by one; the notebook's own output goes to standard error.

    Raises:
        MachineError: a cell failed, the second session did not go on, or it left something else than it should.
    """
    notebook, values = render.read(rendered)
    rehearsal.draw(place / "hands", python)
    with _data(values, place, python) as (where, variables):
        yield Finding("ok", "data", f"{rehearsal.IMAGES} synthetic hands lie where {where} would")
        command = [python, "-u", str(STUB / "run_all.py"), str(notebook.absolute())]
        began_s, surroundings = time.monotonic(), {**_surroundings(place), **variables}
        epoch = _cut_session(command, place, surroundings, values["LEG"])
        yield Finding("ok", "first session", f"cut off after epoch {epoch}: the machine and its disk are gone")
        shutil.rmtree(place / "content")
        _second_session(command, place, surroundings)
    took = units.format_duration(time.monotonic() - began_s)
    yield Finding("ok", "second session", f"the same notebook went on from Drive and ran to its end; both in {took}")
    yield _brought(place / "downloads" / f"results-{values['LEG']}.zip", values["LEG"], RunFolder(place / "brought"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _surroundings(place: Path) -> dict[str, str]:
    return {
        **rehearsal.clean_environment(),
        **rehearsal.ASKED,
        "PYTHONPATH": str(STUB.absolute()),
        "COLAB_RELEASE_TAG": "rehearsal",
        "BONEAGECTL_ROOT": str(place / "content"),
        "STUB_DRIVE": str(place / "drive"),
        "STUB_DOWNLOADS": str(place / "downloads"),
        "STUB_SECRET_KAGGLE_API_TOKEN": _TOKEN,
    }


# ------------------------------------------------------------------------------------- the sessions
def _cut_session(command: list[str], place: Path, environment: Mapping[str, str], leg_id: str) -> int:
    """Kills everything once Drive holds an epoch, as when the machine is taken away; returns which."""
    copies = f"{render.FOLDER}/*/{leg_id}/*/{RunFolder(place).manifest.name}"  # written last: what has it is whole
    found: list[Path] = []
    with _running(command, place, environment) as process:

        def cut() -> None:
            while process.poll() is None and not found:
                found.extend((place / "drive").glob(copies))
                time.sleep(_LOOK_EVERY_S)
            _kill(process)

        threading.Thread(target=cut, daemon=True).start()
        last = [line for line in _shown(process) if line][-1:]
    if not found:
        raise MachineError(
            f"no epoch reached Drive: {''.join(last) or 'it printed nothing'}", "nothing was sent or booked"
        )
    state = RunFolder(found[0].parent).state
    return int(parse_object(state.read_text(), state.name)["epoch"])


def _second_session(command: list[str], place: Path, environment: Mapping[str, str]) -> None:
    with _running(command, place, environment) as process:
        said = list(_shown(process))
        code = process.wait()
    if code:
        raise MachineError(f"the notebook failed: {said[-1] if said else code}", "nothing was sent or booked")
    if not any("cut off after epoch" in line for line in said):
        raise MachineError("the second session did not go on where the first was cut off")


@contextmanager
def _running(command: list[str], place: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The notebook's process, and all that it starts: gone when this ends, however that is."""
    with subprocess.Popen(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _shown(process: subprocess.Popen[str]) -> Iterator[str]:
    for line in process.stdout or ():
        print(f"  {line}", end="", file=sys.stderr, flush=True)
        yield line.rstrip("\n")


def _brought(zipped: Path, leg_id: str, dest: RunFolder) -> Finding:
    """What it offered, brought and checked as by `collect --from`."""
    found = notebook_outputs.results_bring(zipped, leg_id, dest)
    state = parse_object(dest.state.read_text(), dest.state.name)
    if state["state"] != "complete":
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason']}")
    size = units.format_bytes(zipped.stat().st_size)
    return Finding("ok", "results", f"{zipped.name}, {size}: {len(found.sha256)} files, each as its own list says")


# ----------------------------------------------------------------------------------------- the data
@contextmanager
def _data(values: Mapping[str, Any], place: Path, python: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Puts the hands where the notebook looks; what that place is called, and the variables that lead there."""
    if pack := values["PACK"]:
        (place / "drive" / pack).parent.mkdir(parents=True, exist_ok=True)
        rehearsal.pack(place / "hands", place / "drive" / pack, python)
        yield f"{pack} on Drive", {}
        return
    zipped = Path(shutil.make_archive(str(place / "hands"), "zip", place / "hands"))
    with kaggle(f"/api/v1/datasets/download/{values['DATASET']}", zipped) as address:
        yield f"{values['DATASET']} on Kaggle", {"KAGGLE_API_ENDPOINT": address, "no_proxy": "127.0.0.1"}


@contextmanager
def kaggle(path: str, zipped: Path) -> Iterator[str]:
    """As much of Kaggle as gives `zipped` at `path` to whoever has the token; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known, is_there = self.headers.get("Authorization") == f"Bearer {_TOKEN}", self.path == path
            content = zipped.read_bytes() if is_known and is_there else b""
            self.send_response(200 if content else 401 if is_there else 404)
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
