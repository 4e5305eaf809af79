"""What goes to a machine of Colab's: written by `render`, shown by a dry run, sent by `submit` as it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boneage_trainer.contract import PackFolder, RunFolder, parse_object, write_atomic, write_json
from boneagectl import bundle as bundles
from boneagectl.errors import MachineError, UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.targets.colab import colab_cli
from boneagectl.targets.colab.jupyter import Runtime
from boneagectl.templates import fill, literal

STARTUP_S = 1800
"""From the machine to the training's begin: the pack goes up. A machine where it has not begun by then goes back."""
LAUNCH, GUARD, SESSION = "launch.json", "guard.py", "session.py"
_TREE = ("boneagectl", "boneagectl/{leg}", "boneagectl/{leg}/pack", "boneagectl/{leg}/earlier",
         "boneagectl/{leg}/earlier/checkpoint")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launch:
    """``launch.json``: `pack` and `resume` are folders here or empty, `dataset` is Kaggle's where there is no pack."""

    leg: str
    gpu: str
    pack: str
    resume: str
    dataset: str
    time_limit_s: int
    units_per_hour: float

    @property
    def name(self) -> str:
        """What the official command line calls the machine."""
        return name_of(self.leg)


def name_of(leg_id: str) -> str:
    return f"boneage-{leg_id}"


def folder_of(leg_id: str) -> str:
    """On the machine, as its Jupyter server names it."""
    return f"content/boneagectl/{leg_id}"


def write(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, gpu: str, dataset: str
) -> None:
    """Writes the bundle, the launch and the two pieces of code that the kernel runs.

    Raises:
        UsageError: no images, or a checkpoint that is not whole.
    """
    pack = str(spec.pack) if PackFolder(spec.pack).card.exists() else ""
    if not (pack or dataset):
        raise UsageError(f"{spec.pack} is not a pack", "boneagectl data prepare, or set targets.colab.dataset")
    if resume and not RunFolder(resume.folder).last.is_file():
        raise UsageError(f"{resume.folder} has no checkpoint to go on from", "boneagectl collect RUN")
    earlier, rate = str(resume.folder) if resume else "", colab_cli.units_per_hour(gpu)
    launch = Launch(leg_id, gpu, pack, earlier, "" if pack else dataset, spec.time_limit_s, rate)
    parameters = {"leg": leg_id, "fingerprint": spec.data["fingerprint"], "image_size_px": spec.data["image_size_px"],
                  "dataset": launch.dataset, "time_limit_s": float(spec.time_limit_s)}  # fmt: skip
    session = fill("colab/session.py.j2", leg=leg_id, leg_literal=repr(leg_id), parameters=literal(parameters))
    write_atomic(dest / bundles.BUNDLE_NAME, bundle.content)
    write_atomic(dest / GUARD, fill("colab/guard.py.j2", startup_s=STARTUP_S))
    write_atomic(dest / SESSION, session)
    write_json(dest / LAUNCH, {name: getattr(launch, name) for name in Launch.__slots__})


def read(rendered: Path) -> Launch:
    return Launch(**parse_object((rendered / LAUNCH).read_text(encoding="utf-8"), LAUNCH))


def begin(runtime: Runtime, rendered: Path, launch: Launch) -> str:
    """Sends everything and has the training begin; returns the kernel, which goes on without us.

    Raises:
        MachineError: the machine refused, is gone, or does not answer; nothing is trained.
    """
    signs_in = f"boneage_authorization = {authorization()!r}\n" if launch.dataset else ""
    kernel = runtime.start_kernel()
    runtime.run(kernel, (rendered / GUARD).read_text(encoding="utf-8"))
    for folder in _TREE:
        runtime.make_folder(f"content/{folder.format(leg=launch.leg)}")
    for source, name in _files(rendered, launch):
        runtime.upload(source, f"{folder_of(launch.leg)}/{name}")
    runtime.start(kernel, signs_in + (rendered / SESSION).read_text(encoding="utf-8"))
    return kernel


def _files(rendered: Path, launch: Launch) -> Iterator[tuple[Path, str]]:
    """What goes up, and its name there; the card of the pack last, as what has one is whole."""
    yield rendered / bundles.BUNDLE_NAME, bundles.BUNDLE_NAME
    if launch.pack:
        pack = PackFolder(Path(launch.pack))
        yield from ((path, f"pack/{path.name}") for path in (pack.images, pack.index, pack.problems, pack.card)
                    if path.exists())  # fmt: skip
    if launch.resume:
        run = RunFolder(Path(launch.resume))
        paths = (path for path in (run.metrics, run.best, run.last, run.state, run.manifest) if path.exists())
        yield from ((path, f"earlier/{path.relative_to(run.root).as_posix()}") for path in paths)


def authorization() -> str:
    """What signs in to Kaggle, from the user's own credentials here.

    Raises:
        MachineError: there are none, or only a login that gives no token away.
    """
    from boneagectl.targets.kaggle import credentials

    found = credentials.find()
    if found.kind == "key":
        return "Basic " + base64.b64encode(f"{found.username}:{found.secret}".encode()).decode()
    if found.kind == "token":
        return f"Bearer {found.secret}"
    raise MachineError("a Kaggle login cannot be handed to Colab, a token can", credentials.HOW)
