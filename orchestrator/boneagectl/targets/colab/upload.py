"""What a CLI leg uploads to its runtime: written by `render`, shown by a dry run, sent by `submit` unchanged."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boneage_trainer.contract import PackFolder, RunFolder, parse_object, write_atomic, write_json
from boneagectl import bundle as bundles
from boneagectl.errors import NotSignedIn, UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.targets.colab import colab_cli
from boneagectl.targets.colab.jupyter import RuntimeClient
from boneagectl.templates import fill, literal

STARTUP_S = 1800
"""From the runtime's start to the first training step, mostly upload. A runtime where nothing has started by then
releases itself."""
LAUNCH, GUARD, SESSION = "launch.json", "guard.py", "session.py"
_FOLDERS = ("boneagectl", "boneagectl/{leg}", "boneagectl/{leg}/pack", "boneagectl/{leg}/earlier",
            "boneagectl/{leg}/earlier/checkpoint")  # fmt: skip


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """``launch.json``: `pack` and `resume` are local folders or empty; `dataset` is the Kaggle dataset, used without a
    pack."""

    leg: str
    gpu: str
    pack: str
    resume: str
    dataset: str
    time_limit_s: int
    units_per_hour: float

    @property
    def name(self) -> str:
        """The runtime's name in Google's CLI."""
        return runtime_name(self.leg)


def runtime_name(leg_id: str) -> str:
    return f"boneage-{leg_id}"


def remote_folder(leg_id: str) -> str:
    """The leg's folder on the runtime, as its Jupyter server names it."""
    return f"content/boneagectl/{leg_id}"


def render_upload(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, gpu: str, dataset: str
) -> None:
    """Writes the bundle, ``launch.json`` and the two scripts that the kernel runs.

    Raises:
        UsageError: there are no images, or the checkpoint is incomplete.
    """
    pack = str(spec.pack) if PackFolder(spec.pack).card.exists() else ""
    if not (pack or dataset):
        raise UsageError(f"{spec.pack} is not a pack", "boneagectl data prepare, or set targets.colab.dataset")
    if resume and not RunFolder(resume.folder).last.is_file():
        raise UsageError(f"{resume.folder} has no checkpoint to resume from", "boneagectl collect RUN")
    earlier, rate = str(resume.folder) if resume else "", colab_cli.units_per_hour(gpu)
    launch = LaunchSpec(leg_id, gpu, pack, earlier, "" if pack else dataset, spec.time_limit_s, rate)
    parameters = {"leg": leg_id, "fingerprint": spec.data["fingerprint"], "image_size_px": spec.data["image_size_px"],
                  "dataset": launch.dataset, "time_limit_s": float(spec.time_limit_s)}  # fmt: skip
    session = fill("colab/session.py.j2", leg=leg_id, leg_literal=repr(leg_id), parameters=literal(parameters))
    write_atomic(dest / bundles.BUNDLE_NAME, bundle.content)
    write_atomic(dest / GUARD, fill("colab/guard.py.j2", startup_s=STARTUP_S))
    write_atomic(dest / SESSION, session)
    write_json(dest / LAUNCH, {name: getattr(launch, name) for name in LaunchSpec.__slots__})


def read_launch(rendered: Path) -> LaunchSpec:
    return LaunchSpec(**parse_object((rendered / LAUNCH).read_text(encoding="utf-8"), LAUNCH))


def start_run(client: RuntimeClient, rendered: Path, launch: LaunchSpec) -> str:
    """Uploads everything and starts the run; returns the id of its kernel, which needs no connection from now on.

    Raises:
        RemoteError: the runtime refused, is gone, or does not answer; the run did not start.
    """
    sign_in = f"boneage_authorization = {kaggle_authorization()!r}\n" if launch.dataset else ""
    kernel = client.start_kernel()
    client.run_code(kernel, (rendered / GUARD).read_text(encoding="utf-8"))
    for folder in _FOLDERS:
        client.create_folder(f"content/{folder.format(leg=launch.leg)}")
    for source, name in _files_to_upload(rendered, launch):
        client.upload(source, f"{remote_folder(launch.leg)}/{name}")
    client.start_code(kernel, sign_in + (rendered / SESSION).read_text(encoding="utf-8"))
    return kernel


def _files_to_upload(rendered: Path, launch: LaunchSpec) -> Iterator[tuple[Path, str]]:
    """Each local file and its name in the leg's folder. The pack's card comes last: a pack with a card is complete."""
    yield rendered / bundles.BUNDLE_NAME, bundles.BUNDLE_NAME
    if launch.pack:
        pack = PackFolder(Path(launch.pack))
        yield from ((path, f"pack/{path.name}") for path in (pack.images, pack.index, pack.problems, pack.card)
                    if path.exists())  # fmt: skip
    if launch.resume:
        run = RunFolder(Path(launch.resume))
        paths = (path for path in (run.metrics, run.best, run.last, run.state, run.manifest) if path.exists())
        yield from ((path, f"earlier/{path.relative_to(run.root).as_posix()}") for path in paths)


def kaggle_authorization() -> str:
    """The Authorization header for Kaggle, from the user's credentials on this computer.

    Raises:
        NotSignedIn: there are none, or only a sign-in that cannot be passed on.
    """
    from boneagectl.targets.kaggle import credentials

    signed_in = credentials.find_credentials()
    if signed_in.kind == "key":
        return "Basic " + base64.b64encode(f"{signed_in.username}:{signed_in.secret}".encode()).decode()
    if signed_in.kind == "token":
        return f"Bearer {signed_in.secret}"
    raise NotSignedIn("a Colab runtime needs a Kaggle API token; this sign-in cannot be passed on", credentials.HOW)
