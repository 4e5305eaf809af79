"""The bundle on Python 3.10, which older versions of Azure's curated images have; boneagectl itself needs 3.11."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from boneagectl import bundle
from support import make_spec

CHECK = """
import compileall, importlib, sys
assert sys.version_info[:2] == (3, 10)
assert compileall.compile_dir(sys.argv[1], quiet=1)
sys.path.insert(0, sys.argv[1])
for name in ("errors", "presets", "config", "contract", "archive", "console", "train.session", "platforms.detect"):
    importlib.import_module(f"boneage_trainer.{name}")
from pathlib import Path
from boneage_trainer import archive, contract
job = contract.Job.from_json(Path(sys.argv[1], "job.json").read_text())
folder = contract.RunFolder(Path(sys.argv[1], "run"))
contract.write_atomic(folder.metrics, contract.sentinel_line({"epoch": job.train.epochs}).partition(" ")[2])
contract.write_manifest(folder)
archive.pack_run(folder, Path(sys.argv[1], "run.zip"))
print(contract.read_metrics(archive.unpack_run(Path(sys.argv[1], "run.zip"), Path(sys.argv[1], "again")).metrics))
"""


@pytest.fixture(scope="module")
def python310() -> str:
    """A Python 3.10 of this machine: from PATH or from pyenv."""
    of_pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.10*/bin/python")
    for candidate in filter(None, (shutil.which("python3.10"), *map(str, of_pyenv))):
        # A shim of pyenv is on PATH also where its version is not active; it then exits with an error.
        if run(candidate, "-c", "").returncode == 0:
            return candidate
    pytest.skip("no Python 3.10 on PATH or in pyenv")


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run([*map(str, command)], env=variables, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_the_bundle_runs_on_python_3_10(python310: str, tmp_path: Path) -> None:
    """All modules compile; those that need no TensorFlow, of which Python 3.10 has none here, are used as well."""
    content = bundle.build(make_spec(epochs=7)).content
    (tmp_path / "bundle.zip").write_bytes(content)
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "unpacked")
    checked = run(python310, "-c", CHECK, tmp_path / "unpacked")
    assert (checked.returncode, checked.stdout) == (0, "[{'epoch': 7}]\n"), checked.stderr
    shown = run(python310, tmp_path / "bundle.zip", "--help")
    assert (shown.returncode, "--resume" in shown.stdout) == (0, True), shown.stderr
    failed = run(python310, tmp_path / "bundle.zip", "--data", tmp_path / "none", "--out", tmp_path / "out")
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert (state["state"], failed.returncode in (1, 2)) == ("failed", True), failed.stderr  # 1 where numpy is missing
