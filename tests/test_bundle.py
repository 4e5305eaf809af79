"""The bundle: the same input gives the same bytes anywhere, and nothing else is in it."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import boneage_trainer
from boneage_trainer.contract import Job
from boneagectl import bundle
from boneagectl.bundle import STAYS
from support import environment, make_spec

SCRIPT = """
import os
os.umask(int(os.environ["MASK"], 8))
from boneagectl import bundle
from boneagectl.bundle import STAYS
from support import make_spec
print(bundle.build(make_spec(epochs=7)).sha256)
"""


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONHASHSEED": "1", "TZ": "Pacific/Auckland", "MASK": "077"},
     {"PYTHONHASHSEED": "2", "TZ": "America/New_York", "MASK": "000", "LC_ALL": "C"}],
)  # fmt: skip
def test_another_process_makes_the_same_bytes(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment(**variables), capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == bundle.build(make_spec(epochs=7)).sha256, done.stderr


def test_only_the_trainer_s_modules_and_the_job_are_in_it() -> None:
    made = bundle.build(make_spec())
    package = Path(boneage_trainer.__file__).parent
    modules = [f"boneage_trainer/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")]
    travels = [name for name in modules if not any(name == stays or name.startswith(f"{stays}/") for stays in STAYS)]
    expected = sorted(["__main__.py", "job.json", *travels])
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert archive.namelist() == expected
        assert archive.testzip() is None
        assert {(info.date_time, info.external_attr >> 16, info.compress_type) for info in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o644, zipfile.ZIP_STORED)
        }
    assert [item.name for item in made.files] == expected
    assert len(made.content) < bundle.MAX_BYTES == 400_000


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


def test_the_sha256_follows_the_config_and_not_the_leg() -> None:
    base = bundle.build(make_spec()).sha256
    assert bundle.build(make_spec(epochs=7)).sha256 != base
    assert bundle.build(make_spec(Path("/elsewhere"), time_limit_s=60)).sha256 == base, "paths and limits are a leg's"
