"""The wheel, in a clean environment: it runs, and finds its templates and infra."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and what it needs, and no checkout."""
    folder = tmp_path_factory.mktemp("clean environment")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return python


def run(python: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "BONEAGECTL_HOME": str(home / "state")}
    return subprocess.run(
        [str(python), *arguments], env=environment, cwd=home, capture_output=True, text=True, check=False
    )


def test_it_starts_in_both_ways(python: Path, tmp_path: Path) -> None:
    assert run(python, "-m", "boneagectl", "--version", home=tmp_path).stdout.startswith("boneagectl 0.")
    done = subprocess.run([str(python.parent / "boneagectl"), "--help"], capture_output=True, text=True, check=True)
    assert "submit" in done.stdout


def test_it_renders_from_its_own_templates(python: Path, tmp_path: Path) -> None:
    done = run(python, "-m", "boneagectl", "init", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'preset = "tiny"' in (tmp_path / "boneage.toml").read_text()
    code = "from boneagectl.paths import data_dir as d; print(d('templates'), (d('infra') / 'README.md').is_file())"
    place, infra = run(python, "-c", code, home=tmp_path).stdout.rsplit(maxsplit=1)
    assert "_data" in place
    assert infra == "True"


def test_without_the_extra_it_says_what_is_missing(python: Path, tmp_path: Path) -> None:
    done = run(python, "-m", "boneagectl", "data", "synth", "hands", home=tmp_path)
    assert done.returncode == 3
    assert "boneagectl[data]" in done.stderr
    assert "Traceback" not in done.stderr


def test_provenance_names_the_wheel_not_the_repository_that_it_lies_in(python: Path, tmp_path: Path) -> None:
    """Also where the environment is inside a repository, and the command is typed in it."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "x")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    code = "import json; from boneagectl.bundle import collect_provenance as c; print(json.dumps(c()[0]))"
    facts = json.loads(run(python, "-c", code, home=tmp_path).stdout)
    (record,) = python.parents[1].glob("lib/python*/site-packages/boneagectl-*.dist-info/RECORD")
    assert facts["git_commit"] is None
    assert facts["wheel_record_sha256"] == hashlib.sha256(record.read_bytes()).hexdigest()
