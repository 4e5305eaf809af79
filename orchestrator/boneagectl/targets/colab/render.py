"""The notebook of a leg: the template, filled with the leg's settings and the trainer's code, as an ``.ipynb`` file.

Templates of notebooks are readable text: each cell begins with ``# %% name [markdown] key=JSON``, as jupytext reads it.
"""

from __future__ import annotations

import ast
import bz2
import dataclasses
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boneage_trainer.archive import zip_entries
from boneage_trainer.contract import RunFolder, parse_object, write_atomic
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.target_settings import ColabSettings
from boneagectl.templates import base64_lines, fill, literal

FOLDER = "boneagectl"
"""On the user's Drive; as in the trainer's `platforms.colab_notebook`."""
RESUME_NOTE = "resume.txt"
MAX_BYTES = 300_000
_GPUS = ("T4", "L4", "A100")
_CELL_START = "# %% "
_CELL_HEAD = re.compile(r"# %% (?P<name>[\w-]+)(?P<markdown> \[markdown\])?(?P<options>( \w+=\S+)*)")


def notebook_name(leg_id: str) -> str:
    return f"{leg_id}.ipynb"


def render_notebook(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, settings: ColabSettings
) -> None:
    """Writes the notebook. One that resumes another leg also gets `RESUME_NOTE`, which says what Drive must hold.

    Raises:
        UsageError: an invalid setting, a notebook over 300 kB, or an incomplete checkpoint.
    """
    _check_settings(settings)
    earlier_leg = _leg_of(resume) if resume else ""
    values = _template_values(spec, bundle, leg_id, earlier_leg, settings)
    metadata = {  # as Colab itself writes it; toc_visible opens the outline
        "accelerator": "GPU",
        "colab": {"gpuType": settings.gpu, "provenance": [], "toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = to_ipynb(fill("colab/notebook.py.j2", **values), metadata)
    if len(text.encode()) > MAX_BYTES:
        raise UsageError(f"the notebook has {len(text.encode())} bytes, over the limit of {MAX_BYTES}")
    write_atomic(dest / notebook_name(leg_id), text)
    if resume:
        write_atomic(dest / RESUME_NOTE, _resume_note(leg_id, earlier_leg, resume))


def _check_settings(settings: ColabSettings) -> None:
    if settings.dataset.count("/") != 1 or not all(settings.dataset.split("/")):
        raise UsageError(f"targets.colab.dataset must be OWNER/NAME, not {settings.dataset!r}")
    if Path(settings.pack).is_absolute() or ".." in Path(settings.pack).parts:
        raise UsageError(f"targets.colab.pack must be a folder below MyDrive, like boneage/pack, not {settings.pack!r}")
    if settings.gpu not in _GPUS:
        raise UsageError(f"targets.colab.gpu must be one of {', '.join(_GPUS)}, not {settings.gpu!r}")


def _leg_of(resume: Checkpoint) -> str:
    """The id of the leg to resume, which names its folder on Drive."""
    folder = RunFolder(resume.folder)
    if not (folder.last.is_file() and folder.best.is_file() and folder.state.is_file()):
        raise UsageError(
            f"{resume.folder} has no complete checkpoint, which a notebook needs to resume",
            "boneagectl collect RUN, or start a new run: boneagectl submit --target colab",
        )
    return str(parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)["leg"])


def _resume_note(leg_id: str, earlier_leg: str, resume: Checkpoint) -> str:
    run = leg_id.rpartition("-")[0]
    return (
        f"{notebook_name(leg_id)} resumes {earlier_leg}.\n\n"
        f"It expects that leg in the folder MyDrive/{FOLDER}/{run}/{earlier_leg} of your Drive.\n"
        f"A leg that ran on Colab with the same account is already there. For any other leg, open Drive in a browser,\n"
        f"create that folder, and upload this folder into it (last.npz and best.npz):\n\n"
        f"  {RunFolder(resume.folder).last.parent}\n"
    )


def _template_values(
    spec: JobSpec, bundle: Bundle, leg_id: str, earlier_leg: str, settings: ColabSettings
) -> dict[str, Any]:
    code = extract_code(bundle)
    return {
        "leg": json.dumps(leg_id),
        "resume": json.dumps(earlier_leg),
        "dataset": json.dumps(settings.dataset),
        "pack": json.dumps(settings.pack),
        "time_limit_s": spec.time_limit_s,
        "train": literal(dataclasses.asdict(spec.train)),
        "data": literal(spec.data),
        "provenance": literal(spec.provenance),
        "code_sha256": hashlib.sha256(code).hexdigest(),
        "code_base64_lines": base64_lines(bz2.compress(code, 9)),  # bz2: its output has been stable for decades
    }


def extract_code(bundle: Bundle) -> bytes:
    """The bundle without its job, whose settings are readable in a cell; the notebook puts the two together again.

    A changed setting thus changes one line of the notebook.
    """
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as opened:
        entries = [(entry.filename, opened.read(entry)) for entry in opened.infolist() if entry.filename != "job.json"]
        return zip_entries(entries, zipfile.ZIP_STORED)


def read_notebook(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The notebook in a rendered folder, and the values in its settings cell."""
    path = next(folder.glob("*.ipynb"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell["source"] for cell in cells if cell["id"] == "settings"))
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return path, {line.targets[0].id: ast.literal_eval(line.value) for line in lines}  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------- from text to cells
def to_ipynb(text: str, metadata: Mapping[str, Any]) -> str:
    """The ``.ipynb`` of `text`, without outputs."""
    parts = re.split(rf"^(?={_CELL_START})", text, flags=re.MULTILINE)
    cells = [_cell(part) for part in parts if part.strip()]
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(text: str) -> dict[str, Any]:
    """One cell.

    Raises:
        ValueError: the template has a cell without a valid first line.
    """
    first, _, rest = text.partition("\n")
    head = _CELL_HEAD.fullmatch(first)
    if not head:
        raise ValueError(f"invalid first line of a cell: {first!r}")
    options = (option.partition("=") for option in head["options"].split())
    common = {"id": head["name"], "metadata": {key: json.loads(value) for key, _, value in options}}
    source = rest.strip("\n")
    if head["markdown"]:
        prose = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.split("\n"))
        return {"cell_type": "markdown", **common, "source": prose.splitlines(keepends=True)}
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, **common, "outputs": [], "source": lines}
