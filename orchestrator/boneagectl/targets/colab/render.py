"""What a person opens in Colab: one notebook that brings its code, its settings, and all words with it."""

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

from boneage_trainer.archive import stored
from boneage_trainer.contract import RunFolder, parse_object, write_atomic
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.target_settings import ColabSettings
from boneagectl.templates import base64_lines, fill, literal

FOLDER = "boneagectl"
"""On the user's Drive; the trainer's `colab` calls it alike."""
NOTE = "resume.txt"
MAX_BYTES = 300_000
_GPUS = ("T4", "L4", "A100")


def name(leg_id: str) -> str:
    return f"{leg_id}.ipynb"


def write(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, settings: ColabSettings
) -> None:
    """Writes the notebook; where it goes on from another leg also `NOTE`, which says what Drive must hold.

    Raises:
        UsageError: a wish that Colab does not grant, a notebook over 300 kB, or a checkpoint that cannot be named.
    """
    _check(settings)
    before = _leg_of(resume) if resume else ""
    text = notebook(fill("colab/notebook.py.j2", **_holes(spec, bundle, leg_id, before, settings)), _metadata(settings))
    if len(text.encode()) > MAX_BYTES:
        raise UsageError(f"the notebook has {len(text.encode())} bytes, over the limit of {MAX_BYTES}")
    write_atomic(dest / name(leg_id), text)
    if resume:
        write_atomic(dest / NOTE, _note(leg_id, before, resume))


def _check(settings: ColabSettings) -> None:
    if settings.dataset.count("/") != 1 or not all(settings.dataset.split("/")):
        raise UsageError(f"targets.colab.dataset must be OWNER/NAME, not {settings.dataset!r}")
    if Path(settings.pack).is_absolute() or ".." in Path(settings.pack).parts:
        raise UsageError(f"targets.colab.pack is a folder below MyDrive, like boneage/pack, not {settings.pack!r}")
    if settings.gpu not in _GPUS:
        raise UsageError(f"targets.colab.gpu is one of {', '.join(_GPUS)}, not {settings.gpu!r}")


def _leg_of(resume: Checkpoint) -> str:
    """The id of the leg to go on from, by which Drive knows it."""
    folder = RunFolder(resume.folder)
    if not (folder.last.is_file() and folder.best.is_file() and folder.state.is_file()):
        raise UsageError(
            f"{resume.folder} has no whole checkpoint, and a notebook goes on from one on your Drive",
            "boneagectl collect RUN, or begin anew: boneagectl submit --target colab",
        )
    return str(parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)["leg"])


def _note(leg_id: str, before: str, resume: Checkpoint) -> str:
    run = leg_id.rpartition("-")[0]
    return (
        f"{name(leg_id)} goes on from {before}.\n\n"
        f"It looks for that leg in the folder MyDrive/{FOLDER}/{run}/{before} of your Drive.\n"
        f"A leg that ran on Colab with the same account is there already. Any other: open Drive in a browser, make\n"
        f"that folder, and put this folder into it as it is (last.npz and best.npz):\n\n"
        f"  {RunFolder(resume.folder).last.parent}\n"
    )


# ---------------------------------------------------------------------------------------- the holes
def _holes(spec: JobSpec, bundle: Bundle, leg_id: str, before: str, settings: ColabSettings) -> dict[str, Any]:
    code = _code(bundle)
    return {
        "leg": json.dumps(leg_id),
        "resume": json.dumps(before),
        "dataset": json.dumps(settings.dataset),
        "pack": json.dumps(settings.pack),
        "time_limit_s": spec.time_limit_s,
        "train": literal(dataclasses.asdict(spec.train)),
        "data": literal(spec.data),
        "provenance": literal(spec.provenance),
        "code_sha256": hashlib.sha256(code).hexdigest(),
        "code_base64_lines": base64_lines(bz2.compress(code, 9)),
    }


def _code(bundle: Bundle) -> bytes:
    """The bundle without its job, whose settings stand readable in a cell; the notebook puts the two together again.

    So a changed setting changes one line. bz2, since what it writes has been the same bytes for decades.
    """
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as opened:
        return stored((one.filename, opened.read(one)) for one in opened.infolist() if one.filename != "job.json")


def _metadata(settings: ColabSettings) -> dict[str, Any]:
    """As Colab itself writes it; the outline opens by itself."""
    return {
        "accelerator": "GPU",
        "colab": {"gpuType": settings.gpu, "provenance": [], "toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python"},
    }


# ------------------------------------------------------------------------------------------ read back
def read(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The notebook in a rendered folder, and the values in its cell of settings."""
    path = next(folder.glob("*.ipynb"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "".join(next(cell["source"] for cell in cells if cell["id"] == "settings"))
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return path, {line.targets[0].id: ast.literal_eval(line.value) for line in lines}  # type: ignore[attr-defined]


# == percent: Notebooks as readable text: cells that begin with ``# %% name [markdown] key=JSON``, as jupytext reads

_HEAD = re.compile(r"# %% (?P<name>[\w-]+)(?P<markdown> \[markdown\])?(?P<options>( \w+=\S+)*)")
_START = "# %% "


def notebook(text: str, metadata: Mapping[str, Any]) -> str:
    """The ``.ipynb`` of `text`, without outputs."""
    cells = [_cell(part) for part in re.split(rf"^(?={_START})", text, flags=re.MULTILINE) if part.strip()]
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(text: str) -> dict[str, Any]:
    """One cell.

    Raises:
        ValueError: its first line is no head; a template is at fault.
    """
    first, _, rest = text.partition("\n")
    head = _HEAD.fullmatch(first)
    if not head:
        raise ValueError(f"no head of a cell: {first!r}")
    options = (option.partition("=") for option in head["options"].split())
    common = {"id": head["name"], "metadata": {key: json.loads(value) for key, _, value in options}}
    source = rest.strip("\n")
    if head["markdown"]:
        prose = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.split("\n"))
        return {"cell_type": "markdown", **common, "source": prose.splitlines(keepends=True)}
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, **common, "outputs": [], "source": lines}
