"""The bundles on Python 3.10, which older versions of Azure's curated images have; boneagectl itself needs 3.11."""

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

IMPORT_ALL = """
import compileall, importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
assert sys.version_info[:2] == (3, 10)
assert compileall.compile_dir(root, quiet=1)
sys.path.insert(0, sys.argv[1])
for path in root.rglob("boneage_trainer/**/*.py"):
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    try:
        importlib.import_module(name)
        print(name)
    except ModuleNotFoundError as error:  # numpy, TensorFlow and the like need not be installed for 3.10
        assert not error.name.startswith("boneage_trainer"), error
"""
USE_ARCHIVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from boneage_trainer import archive, contract
folder = contract.RunFolder(Path(sys.argv[1], "run"))
contract.write_atomic(folder.metrics, contract.sentinel_line({"epoch": 7}).partition(" ")[2])
contract.write_manifest(folder)
archive.pack_run(folder, Path(sys.argv[1], "run.zip"))
print(contract.read_metrics(archive.unpack_run(Path(sys.argv[1], "run.zip"), Path(sys.argv[1], "again")).metrics))
"""
STANDARD_LIBRARY_ONLY = {"__main__", "config", "contract", "errors", "presets", "platforms.detect", "train.session"}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run([*map(str, command)], env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def python310() -> str:
    """A Python 3.10 of this machine: from PATH or from pyenv."""
    in_pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.10*/bin/python")
    for candidate in filter(None, (shutil.which("python3.10"), *map(str, in_pyenv))):
        # pyenv puts a shim on PATH also where its version is not active; the shim then exits with an error.
        if run(candidate, "-c", "").returncode == 0:
            return candidate
    pytest.skip("no Python 3.10 on PATH or in pyenv")


@pytest.mark.parametrize("target", ["azure", "kaggle", "colab"])
def test_a_bundle_compiles_and_imports_on_python_3_10(python310: str, target: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle.build(make_spec(target=target)).content)) as archive:
        archive.extractall(tmp_path)
    done = run(python310, "-c", IMPORT_ALL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= {f"boneage_trainer.{name}" for name in STANDARD_LIBRARY_ONLY}
    if target != "azure":
        done = run(python310, "-c", USE_ARCHIVE, tmp_path)
        assert (done.returncode, done.stdout) == (0, "[{'epoch': 7}]\n"), done.stderr


def test_a_bundle_starts_on_python_3_10(python310: str, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(bundle.build(make_spec(target="azure")).content)
    shown = run(python310, tmp_path / "bundle.zip", "--help")
    assert (shown.returncode, "--resume" in shown.stdout) == (0, True), shown.stderr
    failed = run(python310, tmp_path / "bundle.zip", "--data", tmp_path / "none", "--out", tmp_path / "out")
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert (state["state"], failed.returncode in (1, 2)) == ("failed", True), failed.stderr  # 1 where numpy is missing
