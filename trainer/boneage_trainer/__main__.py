"""``python -m boneage_trainer JOB.json --data PACK --out FOLDER``, or ``python bundle.zip`` with its own job.

Exit codes: 0 complete or paused, 1 failed, 2 the arguments, the job or its data are wrong, 4 ended at the limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from boneage_trainer.contract import RESEARCH_ONLY, ContractError, Job, PackFolder, RunFolder
from boneage_trainer.platforms import detect
from boneage_trainer.platforms.detect import is_chief
from boneage_trainer.train.session import TrainingSession, TrainingStopped, read_first_start


def main(argv: Sequence[str] | None = None) -> None:
    """Trains one leg and exits with its code."""
    arguments = _parser().parse_args(argv)
    source = _choose_source(arguments)  # before this process writes that the leg runs
    # Of several machines that train together, only the chief writes to the run folder.
    with nullcontext(arguments.out.absolute()) if is_chief() else tempfile.TemporaryDirectory() as out:
        session = TrainingSession(RunFolder(Path(out)), arguments.leg, arguments.time_limit_s)
        session.start()
        code = _run(session, arguments, source)
    sys.exit(code)


def _run(session: TrainingSession, arguments: argparse.Namespace, source: RunFolder) -> int:
    try:
        _train(session, arguments, source)
    except TrainingStopped as stop:
        session.finish("paused", str(stop))
        print(f"paused: {stop}; epoch {session.epoch} of {session.epochs} is saved", flush=True)
        return 0
    except ContractError as error:
        return _fail(session, str(error), 2)
    except Exception as error:
        traceback.print_exc()
        return _fail(session, f"{type(error).__name__}: {error}", 1)
    session.finish("complete")
    return 0


def _train(session: TrainingSession, arguments: argparse.Namespace, source: RunFolder) -> None:
    job = Job.from_json(_read_job(arguments.job))
    if detect.is_rehearsal():
        job = detect.shorten_job(job, PackFolder(arguments.data.absolute()))
    session.epochs = job.train.epochs
    print(RESEARCH_ONLY, flush=True)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_USE_LEGACY_KERAS"] = "0"  # Azure's image sets it to 1; this is a Keras 3 trainer
    from boneage_trainer.data.pack import open_pack  # a wrong pack fails before TensorFlow loads

    pack = open_pack(arguments.data.absolute(), job.data)
    from boneage_trainer.train.loop import train

    train(job, pack, session, source)


def _choose_source(arguments: argparse.Namespace) -> RunFolder:
    """The folder to resume from: this leg's own if a preempted node left a checkpoint there, else the last leg's."""
    own = RunFolder(arguments.out.absolute())
    has_checkpoint = read_first_start(own, arguments.leg) is not None and own.last.exists()
    return RunFolder(arguments.resume.absolute()) if arguments.resume and not has_checkpoint else own


def _fail(session: TrainingSession, reason: str, code: int) -> int:
    line = " ".join(reason.split())[:500]
    print(f"error: {line}", file=sys.stderr, flush=True)
    try:
        session.finish("failed", line)
    except OSError as error:
        print(f"error: the state could not be written either: {error}", file=sys.stderr, flush=True)
    return code


def _read_job(path: Path | None) -> str:
    """The job at `path`, or the one in the zip that this code runs from."""
    if path:
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ContractError(f"job {path} cannot be read: {error.strerror}") from None
    archive = Path(sys.path[0])
    if not zipfile.is_zipfile(archive):
        raise ContractError("no job given; run: python -m boneage_trainer JOB.json --data PACK --out FOLDER")
    with zipfile.ZipFile(archive) as bundle:
        return bundle.read("job.json").decode()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="boneage_trainer", description=RESEARCH_ONLY)
    parser.add_argument("job", type=Path, nargs="?", help="job.json (default: the one in this bundle)")
    parser.add_argument("--data", type=Path, required=True, help="pack to train on")
    parser.add_argument("--out", type=Path, required=True, help="run folder of this leg")
    parser.add_argument("--resume", type=Path, help="run folder of the leg to resume from")
    parser.add_argument("--leg", default="", help="id of this leg")
    parser.add_argument("--time-limit-s", type=float, help="seconds after which the process ends itself")
    return parser


if __name__ == "__main__":
    main()
