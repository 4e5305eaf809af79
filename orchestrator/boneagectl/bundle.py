"""The zip with the trainer and one job that a leg executes, and the provenance of the code in it.

``python bundle.zip --data PACK --out FOLDER`` is the whole interface. It holds only what its target runs, and the same
input gives the same bytes (see `boneage_trainer.archive.zip_entries`).
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import boneage_trainer
from boneage_trainer.archive import zip_entries
from boneage_trainer.contract import Job, write_atomic
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, BundleFile, JobSpec

BUNDLE_NAME = "bundle.zip"
MAX_BYTES = 150_000
"""A Kaggle script has at most 900 kB; this keeps one, with the bundle in base64, below 220 kB."""
ENTRY_POINTS = {
    "local": ("boneage_trainer.__main__",),
    "azure": ("boneage_trainer.__main__",),
    "kaggle": ("boneage_trainer.__main__", "boneage_trainer.platforms.kaggle"),
    "colab": (
        "boneage_trainer.__main__",
        "boneage_trainer.platforms.colab_cli",
        "boneage_trainer.platforms.colab_notebook",
    ),
}
"""What each target imports from its bundle. Only these modules and what they import or start are in it."""
_MODULE_NAME = re.compile(r"boneage_trainer(\.\w+)+")
_MAIN = b"from boneage_trainer.__main__ import main\n\nmain()\n"


# -------------------------------------------------------------------------------------------- content
def build(spec: JobSpec) -> Bundle:
    """The bundle for `spec`: the trainer's modules that its target runs, and ``job.json``.

    Raises:
        UsageError: it would be larger than `MAX_BYTES`.
    """
    job = Job(train=spec.train, data=spec.data, provenance=spec.provenance).to_json().encode()
    entries = sorted([*_modules(ENTRY_POINTS[spec.target]), ("__main__.py", _MAIN), ("job.json", job)])
    content = zip_entries(entries)
    if len(content) > MAX_BYTES:
        raise UsageError(f"the bundle has {len(content)} bytes, over the limit of {MAX_BYTES}")
    files = tuple(BundleFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in entries)
    return Bundle(content, hashlib.sha256(content).hexdigest(), files)


def _modules(entry_points: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Path and content of the trainer's modules that `entry_points` use, also inside functions, with their packages.

    The imports are read from the source: nothing is imported here, and TensorFlow need not be installed.
    """
    package, seen, todo = resources.files("boneage_trainer"), set[str](), list(entry_points)
    while todo:
        _, *parts = todo.pop().split(".")
        for at in range(len(parts) + 1):
            for path in ("/".join([*parts[:at], "__init__.py"]), "/".join(parts[:at]) + ".py"):
                if path not in seen and (file := package.joinpath(path)).is_file():
                    seen.add(path)
                    content = file.read_bytes()
                    todo += _imports(content)
                    yield f"boneage_trainer/{path}", content


def _imports(source: bytes) -> Iterator[str]:
    """Dotted names below ``boneage_trainer`` that a module imports, or starts as ``python -m NAME``.

    Some are of values, not of modules.
    """
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE_NAME.fullmatch(node.value):
            names = [node.value]
        yield from (name for name in names if name.startswith("boneage_trainer."))


# -------------------------------------------------------------------------------------------- provenance
MAX_DIFF_BYTES = 2_000_000
_GIT_TIMEOUT_S = 20
_DIFF = ("--no-color", "--no-ext-diff", "--no-textconv", "--binary")


def collect_provenance() -> tuple[dict[str, Any], bytes]:
    """Where the bundled code comes from, and its difference to the commit (empty in a clean checkout or a wheel).

    ``boneagectl`` and ``python``: versions; ``git_commit``: of the checkout that the trainer was imported from;
    ``git_dirty_sha256``: of the difference, None where there is none; ``git_untracked``: modules that git does not
    know; ``wheel_record_sha256``: of the RECORD of the installed wheel. None where it does not apply.
    """
    folder = Path(boneage_trainer.__file__).resolve().parent
    commit, untracked, diff = _git_state(folder)
    facts = {
        "boneagectl": boneage_trainer.__version__,
        "python": platform.python_version(),
        "git_commit": commit,
        "git_dirty_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        "git_untracked": untracked,
        "wheel_record_sha256": None if commit else _wheel_record_sha256(folder),
    }
    return facts, diff


def _git_state(folder: Path) -> tuple[str | None, list[str] | None, bytes]:
    """Commit, untracked modules and difference of the trainer's own folder; nothing where git does not track it, as in
    an environment that lies inside some other repository."""
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None, b""
    commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
    if not commit or status is None:
        return None, None, b""
    lines = status.decode(errors="replace").splitlines()
    untracked = sorted(line[3:] for line in lines if line.startswith("??") and line.endswith(".py"))
    is_dirty = any(not line.startswith("??") for line in lines)
    diff = _git(folder, "diff", "HEAD", *_DIFF, "--", ".") if is_dirty else b""
    return commit.decode().strip(), untracked or None, diff or b""


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it is missing, slow, or fails."""
    # A GIT_DIR of the user's would lead to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=_GIT_TIMEOUT_S, check=False,
            env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _wheel_record_sha256(folder: Path) -> str | None:
    """Of the installed distribution that `folder` belongs to: RECORD lists the sha256 of each of its files."""
    try:
        distribution = metadata.distribution("boneagectl")
    except metadata.PackageNotFoundError:
        return None
    records = [file for file in distribution.files or () if file.name == "RECORD"]
    if not records or Path(str(distribution.locate_file("boneage_trainer"))).resolve() != folder:
        return None
    return hashlib.sha256(Path(str(records[0].locate())).read_bytes()).hexdigest()


def keep_diff(diff: bytes, path: Path) -> None:
    """Writes the difference beside the leg, at most `MAX_DIFF_BYTES` of it; nothing for clean code."""
    if len(diff) > MAX_DIFF_BYTES:
        note = f"\n# cut: the first {MAX_DIFF_BYTES} of {len(diff)} bytes\n".encode()
        diff = diff[:MAX_DIFF_BYTES] + note
    if diff:
        write_atomic(path, diff)
