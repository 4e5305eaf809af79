"""The notebook as a file: readable, valid, deterministic; a changed parameter changes one line."""

from __future__ import annotations

import base64
import bz2
import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder, write_atomic, write_json
from boneage_trainer.platforms import colab_notebook, detect
from boneagectl import bundle, templates
from boneagectl.errors import UsageError
from boneagectl.models import Checkpoint, Handle, JobSpec
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.colab import render as colab_render
from support import assert_golden, make_spec

LEG, SECOND = "hands-a1b2-01", "hands-a1b2-02"
METADATA: dict[str, Any] = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}


def settings(**other: str) -> ColabSettings:
    return ColabSettings(**{"dataset": "kmader/rsna-bone-age", "pack": "", "gpu": "T4", **other})


def notebook(
    folder: Path, spec: JobSpec | None = None, leg: str = LEG, resume: Checkpoint | None = None, **other: str
) -> str:
    spec = spec or make_spec(preset="smoke", target="colab")
    colab_render.render_notebook(spec, bundle.build(spec), leg, folder, resume, settings(**other))
    return (folder / f"{leg}.ipynb").read_text()


def cells(text: str) -> dict[str, str]:
    return {cell["id"]: "".join(cell["source"]) for cell in json.loads(text)["cells"]}


def readable(text: str) -> str:
    """All that a person reads, without the code in base64."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["id"] == "begin":
            before, _, after = source.split('"""')
            source = f'{before}"""\n(code)\n"""{after}'
            source = source.replace(before.split('CODE_SHA256 = "')[1].split('"')[0], "SHA256")
        parts.append(f"[{cell['cell_type']} {cell['id']} {json.dumps(cell['metadata'])}]\n{source}\n")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------ the file
def test_the_readable_text_of_the_notebook(tmp_path: Path) -> None:
    text = notebook(tmp_path)
    assert_golden("colab-notebook.txt", readable(text))
    assert RESEARCH_ONLY.split(".")[0] in cells(text)["title"]


def test_it_is_a_valid_notebook_without_outputs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    made = nbformat.reads(notebook(tmp_path), as_version=nbformat.NO_CONVERT)
    nbformat.validate(made)
    assert (made.nbformat, made.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert made.metadata["accelerator"] == "GPU"
    assert made.metadata["colab"]["gpuType"] == "T4"
    for cell in code:
        compile(cell.source, cell.id, "exec")


def test_jupytext_reads_the_template_to_the_same_cells(tmp_path: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    spec = make_spec(preset="smoke", target="colab")
    holes = colab_render._template_values(spec, bundle.build(spec), LEG, "", settings())
    theirs = jupytext.reads(templates.fill("colab/notebook.py.j2", **holes), fmt="py:percent").cells
    ours = json.loads(notebook(tmp_path))["cells"]
    assert [cell.metadata.pop("title") for cell in theirs] == [cell["id"] for cell in ours]
    assert [(cell.cell_type, cell.source, cell.metadata) for cell in theirs] == [
        (cell["cell_type"], "".join(cell["source"]), cell["metadata"]) for cell in ours
    ]


def test_it_is_the_same_bytes_each_time_and_small(tmp_path: Path) -> None:
    first, second = notebook(tmp_path / "a"), notebook(tmp_path / "b")
    assert first == second
    assert len(first.encode()) < 300_000


@pytest.mark.parametrize(
    "change",
    [
        {"spec": make_spec(preset="smoke", epochs=9, target="colab")},
        {"spec": make_spec(preset="smoke", learning_rate=1e-4, target="colab")},
        {"spec": make_spec(preset="smoke", time_limit_s=600, target="colab")},
        {"leg": SECOND},
        {"dataset": "alice/hands"},
        {"pack": "boneage/pack"},
        {"gpu": "L4"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_changed_parameter_is_one_changed_line(tmp_path: Path, change: dict[str, Any]) -> None:
    before, after = notebook(tmp_path / "a").splitlines(), notebook(tmp_path / "b", **change).splitlines()
    lines = [
        line for line in difflib.unified_diff(before, after, n=0) if line[0] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert [line[0] for line in lines] == ["-", "+"]


def test_its_code_and_settings_make_the_submitted_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(preset="smoke", epochs=7, target="colab")
    notebook(tmp_path, spec)
    path, values = colab_render.read_notebook(tmp_path)
    code = cells(path.read_text())["begin"].split('"""')[1]
    (tmp_path / "code.zip").write_bytes(bz2.decompress(base64.b64decode(code)))
    monkeypatch.setenv("BONEAGE_REHEARSAL", "1")
    monkeypatch.setenv("BONEAGECTL_ROOT", str(tmp_path))
    given = {key.lower(): value for key, value in values.items()}
    colab_notebook.NotebookSession(tmp_path / "code.zip", **given)
    made = (tmp_path / "boneagectl" / LEG / "tmp" / "bundle.zip").read_bytes()
    assert made == bundle.build(spec).content
    assert detect.platform_limit_s() == (None, "")


# -------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"dataset": "rsna"}, "OWNER/NAME"),
        ({"pack": "../elsewhere"}, "below MyDrive"),
        ({"pack": "/content/drive/MyDrive/pack"}, "below MyDrive"),
        ({"gpu": "P100"}, "one of T4, L4, A100"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, other: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        notebook(tmp_path / "sent", **other)
    assert not (tmp_path / "sent").exists()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    pack = 'it\'s "quoted"\n# %% evil\nimport os'
    notebook(tmp_path, pack=pack)
    _, values = colab_render.read_notebook(tmp_path)
    assert values["PACK"] == pack


def test_a_too_large_notebook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colab_render, "MAX_BYTES", 50_000)
    with pytest.raises(UsageError, match="over the limit of 50000"):
        notebook(tmp_path)


def test_a_template_cell_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid first line of a cell"):
        colab_render.to_ipynb("# %%\nx = 1\n", METADATA)


# ------------------------------------------------------------------------------------ an earlier leg
def test_a_resumed_leg_names_the_previous_one_and_its_folder_on_drive(tmp_path: Path) -> None:
    earlier = RunFolder(tmp_path / "earlier")
    for path in (earlier.last, earlier.best):
        write_atomic(path, "weights")
    write_json(earlier.state, {"leg": LEG, "state": "paused"})
    resume = Checkpoint(earlier.root, Handle("kaggle", f"alice/{LEG}/1"))
    text = notebook(tmp_path / "sent", leg=SECOND, resume=resume)
    assert f'RESUME = "{LEG}"' in cells(text)["settings"]
    assert str(tmp_path) not in text
    note = (tmp_path / "sent" / colab_render.RESUME_NOTE).read_text()
    assert f"MyDrive/boneagectl/hands-a1b2/{LEG}" in note
    assert str(earlier.last.parent) in note


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no complete checkpoint") as caught:
        notebook(tmp_path / "sent", leg=SECOND, resume=Checkpoint(tmp_path, Handle("local", LEG)))
    assert "boneagectl collect" in caught.value.next_step
