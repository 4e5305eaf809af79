"""The bundle: the same input gives the same bytes, it holds only what its target runs, and its provenance is right."""

from __future__ import annotations

import ast
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import boneage_trainer
from boneage_trainer.contract import Job
from boneagectl import bundle
from boneagectl.bundle import ENTRY_POINTS, MAX_BYTES
from support import ROOT, Cli, environment, make_spec

TARGETS = tuple(ENTRY_POINTS)
SCRIPT = """
import os
os.umask(int(os.environ["MASK"], 8))
from boneagectl import bundle
from support import make_spec
print(bundle.build(make_spec(target="kaggle", epochs=7)).sha256)
"""


# ------------------------------------------------------------------------------------------ bytes
@pytest.mark.parametrize(
    "variables",
    [{"PYTHONHASHSEED": "1", "TZ": "Pacific/Auckland", "MASK": "077"},
     {"PYTHONHASHSEED": "2", "TZ": "America/New_York", "MASK": "000", "LC_ALL": "C"}],
)  # fmt: skip
def test_another_process_makes_the_same_bytes(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment(**variables), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == bundle.build(make_spec(target="kaggle", epochs=7)).sha256, done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_entries_are_sorted_deflated_and_dated_alike(target: str) -> None:
    made = bundle.build(make_spec(target=target))
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist()) == [item.name for item in made.files]
        assert {(info.date_time, info.external_attr >> 16, info.compress_type) for info in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o644, zipfile.ZIP_DEFLATED)
        }


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_small(target: str) -> None:
    assert len(bundle.build(make_spec(target=target)).content) < MAX_BYTES == 150_000


def test_the_kaggle_script_is_small(project: Path, cli: Cli) -> None:
    words = ("--dry-run", "--out", project / "sent", "--weights", "none", "--set", "targets.kaggle.username=alice")
    cli("submit", "--target", "kaggle", *words)
    (script,) = (project / "sent").glob("*.py")
    assert script.stat().st_size <= 220_000


def test_the_sha256_follows_the_config_and_not_the_leg() -> None:
    base = bundle.build(make_spec()).sha256
    assert bundle.build(make_spec(epochs=7)).sha256 != base
    assert bundle.build(make_spec(Path("/elsewhere"), time_limit_s=60)).sha256 == base, "paths and limits are a leg's"


# ---------------------------------------------------------------------------------------- content
def names_in(target: str) -> list[str]:
    return [item.name for item in bundle.build(make_spec(target=target)).files]


@pytest.mark.parametrize("target", ["kaggle", "colab"])
def test_what_a_session_starts_as_a_process_is_in_it(target: str) -> None:
    """Raw images are prepared by ``python -m boneage_trainer.data.prepare``, which nothing imports."""
    assert "boneage_trainer/data/prepare.py" in names_in(target)


def imported(source: bytes) -> Iterator[str]:
    """The path of every module of the trainer that `source` may import, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for name in (*names, module, *(f"{module}.{name}" for name in names)):
            path = name.replace(".", "/")
            yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / "trainer" / file).is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_the_target_imports_is_inside(target: str) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle.build(make_spec(target=target)).content)) as archive:
        modules = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
    assert {f"{name.replace('.', '/')}.py" for name in ENTRY_POINTS[target]} <= set(modules)
    missing = {path: name for name, source in modules.items() for path in imported(source) if path not in modules}
    assert missing == {}
    packages = {f"{Path(name).parent.as_posix()}/__init__.py" for name in modules if "/" in name}
    assert packages <= set(modules)


def test_only_what_a_target_runs_travels_there() -> None:
    assert not any("colab" in name for target in ("local", "kaggle", "azure") for name in names_in(target))
    elsewhere = ("kaggle", "/prepare.py")
    assert not any(part in name for target in ("local", "azure") for name in names_in(target) for part in elsewhere)
    here = ("/export/", "/check.py", "/synth.py", "/command.py", "/dicom.py", "/intake.py", "/reader.py")
    assert [name for target in TARGETS for name in names_in(target) if any(part in name for part in here)] == []


@pytest.mark.parametrize("target", TARGETS)
def test_it_starts_from_the_zip_alone(target: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(bundle.build(make_spec(target=target)).content)
    imports = "; ".join(f"import {name}" for name in ENTRY_POINTS[target])
    code = f"import sys; sys.path[:] = [{str(path)!r}, *(p for p in sys.path if {str(ROOT)!r} not in p)]; {imports}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_stray_file_beside_the_modules_stays_out() -> None:
    stray = Path(boneage_trainer.__file__).parent / "secret.env.tmp"
    before = bundle.build(make_spec()).sha256
    stray.write_text("KEY=1")
    try:
        assert bundle.build(make_spec()).sha256 == before
    finally:
        stray.unlink()


def test_the_job_inside_is_the_job_asked_for() -> None:
    spec = make_spec(epochs=7, split="holdout:0.1:3")
    with zipfile.ZipFile(io.BytesIO(bundle.build(spec).content)) as archive:
        job = Job.from_json(archive.read("job.json").decode())
    assert job == Job(train=spec.train, data=spec.data, provenance=spec.provenance)


# ------------------------------------------------------------------------------------- provenance
def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path) -> str:
    """A git repository with one file; returns its commit."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    (folder / "own.txt").write_text("mine\n")
    git(folder, "add", "own.txt")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own that the trainer was imported from."""
    folder = tmp_path / "checkout" / "trainer" / "boneage_trainer"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("__version__ = '1'\n")
    (folder / "loop.py").write_text("step = 1\n")
    repository(tmp_path / "checkout")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "-q", "-m", "trainer")
    monkeypatch.setattr(boneage_trainer, "__file__", str(folder / "__init__.py"))
    return folder


def test_it_names_the_commit_of_the_trainer_not_of_the_folder_where_it_was_typed(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = repository(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "project" / ".git"))
    facts, diff = bundle.collect_provenance()
    monkeypatch.delenv("GIT_DIR")
    assert theirs not in str(facts)
    assert facts["git_commit"] == git(checkout, "rev-parse", "HEAD")
    assert (facts["git_dirty_sha256"], facts["git_untracked"], diff) == (None, None, b"")


def test_changed_code_is_dirty_and_its_difference_is_known_without_other_files(checkout: Path, tmp_path: Path) -> None:
    (checkout / "loop.py").write_text("step = 2\n")
    (checkout / "extra.py").write_text("TOKEN = 's3cret'\n")
    (tmp_path / "checkout" / "own.txt").write_text("not the trainer's\n")
    facts, diff = bundle.collect_provenance()
    assert facts["git_dirty_sha256"] == hashlib.sha256(diff).hexdigest()
    assert b"+step = 2" in diff
    assert b"s3cret" not in diff
    assert b"own.txt" not in diff
    assert [Path(name).name for name in facts["git_untracked"]] == ["extra.py"]


def test_a_trainer_installed_inside_another_repository_is_not_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project" / ".venv" / "boneage_trainer"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    theirs = repository(tmp_path / "project")
    monkeypatch.setattr(boneage_trainer, "__file__", str(folder / "__init__.py"))
    facts, diff = bundle.collect_provenance()
    assert facts["git_commit"] is None
    assert theirs not in str(facts)
    assert diff == b""


def test_the_difference_is_kept_beside_the_run(
    project: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    diff = b"+step = 2\n"
    facts: dict[str, Any] = {"git_commit": "0" * 40, "git_dirty_sha256": hashlib.sha256(diff).hexdigest()}
    monkeypatch.setattr(bundle, "collect_provenance", lambda: (facts, diff))
    cli("submit", "--name", "dirty-run", "-q")
    assert (home / "runs" / "dirty-run" / "legs" / "01" / "source.diff").read_bytes() == diff
    monkeypatch.setattr(bundle, "collect_provenance", lambda: (facts, b""))
    cli("submit", "--name", "clean-run", "-q")
    assert not (home / "runs" / "clean-run" / "legs" / "01" / "source.diff").exists()


def test_a_large_difference_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_DIFF_BYTES", 10)
    bundle.keep_diff(b"0123456789abcdef", tmp_path / "source.diff")
    assert (tmp_path / "source.diff").read_bytes() == b"0123456789\n# cut: the first 10 of 16 bytes\n"
