"""The generated notebook, executed: by the rehearsal in two processes, and under nbclient in real kernels."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RunFolder, read_metrics
from boneagectl import bundle
from boneagectl.errors import MachineError
from boneagectl.models import Finding
from boneagectl.target_settings import ColabSettings
from boneagectl.targets import rehearsal
from boneagectl.targets.colab import notebook_outputs, render
from boneagectl.targets.colab import rehearsal as colab_rehearsal
from support import make_spec, wait_for

LEG = "hands-a1b2-01"


def sent(folder: Path, pack: str = "", **train: Any) -> Path:
    spec = make_spec(preset="smoke", deterministic=True, target="colab", **train)
    settings = ColabSettings(pack=pack)
    render.render_notebook(spec, bundle.build(spec), LEG, folder, None, settings)
    return folder


def rehearse(folder: Path, place: Path, python: str = sys.executable) -> list[Finding]:
    place.mkdir(exist_ok=True)
    return list(colab_rehearsal.rehearse(folder, place, python))


def test_a_rehearsal_runs_two_sessions_and_lists_what_it_cannot_check(tmp_path: Path) -> None:
    found = rehearse(sent(tmp_path / "sent"), tmp_path / "place")
    assert [one.what for one in found if one.level == "ok"] == ["data", "first session", "second session", "results"]
    assert [one.detail for one in found if one.level == "warn"] == list(colab_rehearsal.UNCHECKED)
    lines = read_metrics(RunFolder(tmp_path / "place" / "collected").metrics)
    assert [line["epoch"] for line in lines] == [1, 2]


def test_a_failing_trainer_fails_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sent(tmp_path / "sent", pack="boneage/pack")
    path, _ = render.read_notebook(folder)
    path.write_text(path.read_text().replace("'epochs': 2", "'epochs': 'two'"))
    with pytest.raises(MachineError, match="no epoch reached Drive: STOPPED: epochs must be int"):
        rehearse(folder, tmp_path / "place")


# --------------------------------------------------------------------------------- in real kernels
@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a kernel that is started here finds around it: the stub, a Drive with a pack, nothing of this checkout."""
    pytest.importorskip("nbclient", reason="nbclient and ipykernel are in the extra dev")
    pytest.importorskip("ipykernel")
    rehearsal.synthesize_images(tmp_path / "hands", sys.executable)
    rehearsal.prepare_pack(tmp_path / "hands", tmp_path / "drive" / "boneage" / "pack", sys.executable)
    for name, value in colab_rehearsal.notebook_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    return tmp_path


def run_all(notebook: Path, content: Path, interrupt_after: Path | None = None) -> Any:
    """Every cell in a new kernel; whoever sees `interrupt_after` clicks the square of the cell."""
    import nbclient
    import nbformat

    shutil.rmtree(content, ignore_errors=True)
    client = nbclient.NotebookClient(nbformat.read(notebook, as_version=4), timeout=120, kernel_name="python3")
    over = threading.Event()

    def click() -> None:
        wait_for(lambda: over.is_set() or list(interrupt_after.glob("*/MANIFEST.json")), 60)
        os.killpg(os.getpgid(client.km.provisioner.pid), 2)

    if interrupt_after:
        threading.Thread(target=click, daemon=True).start()
    try:
        return client.execute()
    finally:
        over.set()


def said(notebook: Any, cell: str) -> str:
    """What a cell printed, and what it shows."""
    outputs = next(one.outputs for one in notebook.cells if one.id == cell)
    return "".join(one.get("text", "") or one.get("data", {}).get("text/html", "") for one in outputs)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_two_sessions_in_kernels_with_a_drive_that_fails_every_third_write(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook, _ = render.read_notebook(sent(machine / "sent", pack="boneage/pack"))
    monkeypatch.setenv("STUB_DRIVE_FAULT", "every:3")
    leg_on_drive = machine / "drive" / "boneagectl" / "hands-a1b2" / LEG
    first = run_all(notebook, machine / "content", leg_on_drive)
    paused = re.search(r"PAUSED after epoch (\d) of 2: signal SIGINT\. Drive has everything", said(first, "training"))
    assert paused, said(first, "training")
    assert "<progress" in said(first, "training")
    second = run_all(notebook, machine / "content")
    assert f"resuming after epoch {paused[1]}" in said(second, "drive")
    assert "COMPLETE after epoch 2. Drive has everything" in said(second, "training")
    assert "<svg" in said(second, "training")
    assert "test error:" in said(second, "results")
    dest = RunFolder(machine / "collected")
    assert notebook_outputs.import_results(machine / "downloads" / f"results-{LEG}.zip", LEG, dest).unlisted == ()
    assert json.loads(dest.state.read_text())["state"] == "complete"
    assert [line["epoch"] for line in read_metrics(dest.metrics)] == [1, 2]


@pytest.mark.filterwarnings("ignore")
def test_a_stopped_cell_shows_a_message_without_traceback(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    notebook, _ = render.read_notebook(sent(machine / "sent", pack="boneage/pack"))
    monkeypatch.setenv("BONEAGE_REHEARSAL", "0")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        run_all(notebook, machine / "content")
    assert caught.value.ename == "CellStopped"
    assert "Colab provided no GPU" in caught.value.evalue
    made = nbformat.read(notebook, as_version=4)
    assert all(not cell.get("outputs") for cell in made.cells)
