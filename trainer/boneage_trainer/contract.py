"""The contract between the orchestrator and the trainer: names, values and files both sides use.

Standard library only and quick to import, because every command of boneagectl imports it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from boneage_trainer.config import TrainConfig as TrainConfig
from boneage_trainer.config import setting as setting
from boneage_trainer.errors import ContractError as ContractError
from boneage_trainer.errors import did_you_mean as did_you_mean
from boneage_trainer.errors import shorten as shorten
from boneage_trainer.errors import unknown_name as unknown_name
from boneage_trainer.presets import PRESETS as PRESETS

SCHEMA = 1
SENTINEL = "BONEAGE "
STATE_SENTINEL = "BONEAGE-STATE "
RESEARCH_ONLY = "For research and education only. Not a medical device; not for diagnosis or treatment."


# ------------------------------------------------------------------------------------------- job
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What ``job.json`` says: one run, the same for each of its legs and on every target.

    Paths, ids, time limits and the checkpoint to resume from belong to a leg and are passed as arguments.
    `data` holds the pack's ``fingerprint``, ``count`` and ``image_size_px``, the first empty where the
    pack is only made on the remote machine; `provenance` the versions and the git state of the code.
    """

    train: TrainConfig
    data: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Raises ContractError where `text` is not a job of a supported schema."""
        raw = parse_object(text, "job")
        if raw.get("schema") != SCHEMA:
            raise ContractError(f"job has schema {raw.get('schema')!r}; this trainer supports {SCHEMA}")
        if missing := {"train", "data", "provenance"} - raw.keys():
            raise ContractError(f"job lacks {', '.join(sorted(missing))}")
        return cls(train=TrainConfig.from_mapping(raw["train"]), data=raw["data"], provenance=raw["provenance"])


def parse_object(text: str, what: str) -> dict[str, Any]:
    """`text` as one JSON object; `what` names it in the error."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{what} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ContractError(f"{what} must be a JSON object, not {type(raw).__name__}")
    return raw


_Parameters = TypeVar("_Parameters")


def parse_parameters(kind: Callable[..., _Parameters], values: Mapping[str, Any]) -> _Parameters:
    """`values` of a generated session as the dataclass `kind`; raises ContractError where one is unknown or missing."""
    names = list(inspect.signature(kind).parameters)
    for name in values:
        if name not in names:
            raise ContractError(unknown_name("parameter", name, names))
    if missing := [name for name in names if name not in values]:
        raise ContractError(f"the session lacks the parameters {', '.join(missing)}")
    return kind(**values)


# --------------------------------------------------------------------------------------- folders
@dataclass(frozen=True, slots=True)
class RunFolder:
    """Every file of one leg's folder, named once."""

    root: Path

    @property
    def state(self) -> Path:
        """``state.json``: state, reason, epoch, epochs, pid, leg, started_s, updated_s."""
        return self.root / "state.json"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``: one line per epoch, from the first epoch of the run's first leg."""
        return self.root / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint that a next leg resumes from."""
        return self.root / "checkpoint" / "last.npz"

    @property
    def best(self) -> Path:
        """The weights with the lowest validation MAE so far."""
        return self.root / "checkpoint" / "best.npz"

    @property
    def model(self) -> Path:
        return self.root / "model.keras"

    @property
    def predictions(self) -> Path:
        """``predictions.csv``: id,split,male,boneage_months,predicted_months, in file order.

        With several views also disagreement_months: their standard deviation.
        """
        return self.root / "predictions.csv"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def split(self) -> Path:
        """``split.csv``: id,split,sha256 (16 digits) of each image, to know later what a model was trained on."""
        return self.root / "split.csv"

    @property
    def gradcam(self) -> Path:
        """``gradcam.png``: radiographs and the areas that change their predicted age; the terms of the data apply."""
        return self.root / "gradcam.png"

    @property
    def model_card(self) -> Path:
        return self.root / "model_card.md"

    @property
    def environment(self) -> Path:
        """``environment.json``: versions, the GPU that was used, data, provenance, times."""
        return self.root / "environment.json"

    @property
    def log(self) -> Path:
        """``train.log``: what the trainer printed; written by the target, not by the trainer."""
        return self.root / "train.log"

    @property
    def manifest(self) -> Path:
        """``MANIFEST.json``: size and sha256 of each file above except the log."""
        return self.root / "MANIFEST.json"

    @property
    def stop_request(self) -> Path:
        """Creating this file makes the trainer save and pause at the next batch."""
        return self.root / "stop"

    def manifest_files(self) -> Iterator[Path]:
        """The files that a manifest covers, those that exist."""
        for path in (self.state, self.metrics, self.last, self.best, self.model, self.predictions,
                     self.evaluation, self.environment, self.split, self.gradcam, self.model_card):  # fmt: skip
            if path.exists():
                yield path


@dataclass(frozen=True, slots=True)
class PackFolder:
    """A prepared dataset: every file of it, named once."""

    root: Path

    @property
    def images(self) -> Path:
        """``images.npy``: uint8, (n, size_px, size_px), gray; rows as in the index."""
        return self.root / "images.npy"

    @property
    def index(self) -> Path:
        """``index.csv``: id,male,boneage_months,sha256 (of the source file), in csv order."""
        return self.root / "index.csv"

    @property
    def card(self) -> Path:
        """``pack.json``: what the pack is, written last.

        schema, fingerprint, count, image_size_px, labelled, algorithm, opencv, images_sha256,
        source (csv and folder, names only, and listing_sha256) and problems (kind: how many).
        """
        return self.root / "pack.json"

    @property
    def problems(self) -> Path:
        """``problems.csv``: id,file,problem (broken, missing, unlabelled, duplicate) for every image left out."""
        return self.root / "problems.csv"

    def files(self) -> list[Path]:
        """Every file of a complete pack."""
        return [self.images, self.index, self.card, self.problems]

    @property
    def partial(self) -> Path:
        """The folder beside it in which a pack is made; removed once the pack is complete."""
        return self.root.with_name(self.root.name + ".partial")

    def read_card(self) -> dict[str, Any]:
        """The pack's card.

        Raises:
            ContractError: there is no pack here, or one of another schema.
        """
        try:
            card = parse_object(self.card.read_text(encoding="utf-8"), str(self.card))
        except (OSError, UnicodeDecodeError):
            raise ContractError(f"{self.root} is not a pack (no readable {self.card.name})") from None
        if card.get("schema") != SCHEMA:
            raise ContractError(f"pack {self.root} has schema {card.get('schema')!r}; this version supports {SCHEMA}")
        return card

    def job_data(self) -> dict[str, Any]:
        """What a job records of this pack: ``fingerprint``, ``count``, ``image_size_px``. Errors as for `read_card`."""
        card = self.read_card()
        return {key: card[key] for key in ("fingerprint", "count", "image_size_px")}


# ------------------------------------------------------------------------------------ safe files
@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes `path` whole or not at all: a temporary file, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes `path` whole or not at all."""
    with open_atomic(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON in its own order, written atomically; NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A csv with a header, its lines ended by newlines alone on every machine."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((header, *rows))
    return text.getvalue()


def sha256_of(path: Path) -> str:
    """The hex digest of a file's content; raises OSError where it cannot be read."""
    return hash_file(path, "sha256")


def hash_file(path: Path, algorithm: str) -> str:
    """As `sha256_of`, by any `algorithm` of hashlib."""
    import hashlib

    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: RunFolder) -> None:
    """Lists the files that `folder` holds now, with sizes and hashes."""
    files = {
        path.relative_to(folder.root).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in folder.manifest_files()
    }
    write_json(folder.manifest, {"schema": SCHEMA, "files": files})


# --------------------------------------------------------------------------------------- signals
def sentinel_line(metrics: Mapping[str, Any]) -> str:
    """The line that is printed after each epoch, so that a log stream alone is enough to follow a run."""
    return SENTINEL + json.dumps(metrics, sort_keys=True, allow_nan=False)


def parse_sentinel(line: str) -> dict[str, Any] | None:
    """The metrics in a log line, or None for any other line."""
    return _parse_signal(SENTINEL, line)


def state_line(values: Mapping[str, Any]) -> str:
    """The line that a remote session prints first and last: the content of ``state.json``, or what is known of it.

    Where only the log can be downloaded, or the provider's own state ("COMPLETE"), it distinguishes a paused run from a
    complete one.
    """
    return STATE_SENTINEL + json.dumps(values, sort_keys=True, allow_nan=False)


def parse_state(line: str) -> dict[str, Any] | None:
    """The state in a log line, or None for any other line."""
    return _parse_signal(STATE_SENTINEL, line)


def _parse_signal(start: str, line: str) -> dict[str, Any] | None:
    if not line.startswith(start):
        return None
    try:
        return parse_object(line[len(start) :], start.strip())
    except ContractError:
        return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs in a ``metrics.jsonl``; none where the file is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [parse_object(line, f"{path.name} line {number}") for number, line in enumerate(lines, 1) if line]
