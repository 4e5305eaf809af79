"""The folder for Azure ML: what the real SDK makes of it, and what its command does on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from boneage_trainer.contract import RunFolder, write_atomic
from boneagectl import bundle
from boneagectl.errors import MachineError, UsageError
from boneagectl.models import Checkpoint, Handle, JobSpec
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import jobs, rehearsal
from boneagectl.targets.azure import render as azure_render
from support import assert_golden, make_pack, make_spec

LEG = "contract-run-01"


def settings(**other: object) -> AzureSettings:
    values = {
        "subscription": "00000000-0000-0000-0000-000000000001", "resource_group": "boneagectl", "workspace": "boneage",
        "region": "westeurope", "cluster": "gpu", "size": "Standard_NC4as_T4_v3", "tier": "dedicated", "nodes": 1,
        "idle": "2m", "pack": "",
        "environment": "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest", **other,
    }  # fmt: skip
    return AzureSettings(**values)  # type: ignore[arg-type]


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return make_spec(make_pack(tmp_path / "pack"), time_limit_s=7200, preset="smoke", target="azure")


def render(spec: JobSpec, dest: Path, resume: Checkpoint | None = None, **other: object) -> Path:
    azure_render.write_job_folder(spec, bundle.build(spec), LEG, dest, resume, settings(**other))
    return dest


def test_the_sdk_reads_the_job_as_intended(spec: JobSpec, tmp_path: Path) -> None:
    folder = render(spec, tmp_path / "sent")
    assert_golden("azure-job.yml", (folder / "job.yml").read_text())
    job = jobs.load_job_file(folder)
    assert (job.name, job.limits.timeout, job.resources.instance_count) == (LEG, 7200, 1)
    assert job.compute == "gpu"
    assert job.environment_variables["TF_USE_LEGACY_KERAS"] == "0"
    assert job.inputs["pack"].path.endswith("boneage-pack-9eab9eab9eab:1")
    assert "--time-limit-s 6900" in job.command
    assert sorted(path.name for path in (folder / "stage").iterdir()) == ["bundle.zip"]


def test_several_nodes_use_tensorflow_s_distribution(spec: JobSpec, tmp_path: Path) -> None:
    job = jobs.load_job_file(render(spec, tmp_path / "sent", nodes=2))
    assert (job.resources.instance_count, job.distribution.worker_count, job.distribution.type) == (2, 2, "tensorflow")


def test_a_checkpoint_of_any_target_is_sent_along(spec: JobSpec, tmp_path: Path) -> None:
    before = RunFolder(tmp_path / "before")
    for path in (before.last, before.best, before.metrics, before.model):
        write_atomic(path, "x")
    folder = render(spec, tmp_path / "sent", Checkpoint(before.root, Handle("kaggle", "alice/other-run-01/1")))
    sent = RunFolder(folder / "resume")
    assert sent.last.exists()
    assert not sent.model.exists()
    assert "--resume ${{inputs.resume}}" in jobs.load_job_file(folder).command


@pytest.mark.parametrize(
    ("other", "limit_s", "said"),
    [({"workspace": ""}, 7200, "targets.azure.workspace is not set"), ({}, 300, "leaves no time to train")],
)
def test_what_cannot_be_rendered(
    spec: JobSpec, tmp_path: Path, other: dict[str, object], limit_s: int, said: str
) -> None:
    short = JobSpec(spec.train, spec.pack, spec.data, spec.target, limit_s, spec.provenance)
    with pytest.raises(UsageError, match=said):
        render(short, tmp_path / "sent", **other)
    assert not (tmp_path / "sent").exists()


def test_a_job_that_the_sdk_does_not_accept(spec: JobSpec, tmp_path: Path) -> None:
    folder = render(spec, tmp_path / "sent")
    text = (folder / "job.yml").read_text()
    (folder / "job.yml").write_text(text.replace("instance_count: 1", "instance_count: many"))
    with pytest.raises(MachineError, match=r"does not accept job\.yml"):
        jobs.load_job_file(folder)


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_rehearsed_command_completes(spec: JobSpec, tmp_path: Path, nodes: int) -> None:
    folder, place = render(spec, tmp_path / "sent", nodes=nodes), tmp_path / "place"
    place.mkdir()
    findings = list(rehearsal.rehearse(folder, place, sys.executable))
    assert [finding.what for finding in findings if finding.level == "ok"] == ["job.yml", "command", "outputs"]
    assert "the price, and the credit" in {finding.detail for finding in findings}


def test_a_failed_rehearsal_is_reported(spec: JobSpec, tmp_path: Path) -> None:
    folder, place = render(spec, tmp_path / "sent"), tmp_path / "place"
    place.mkdir()
    (folder / "stage" / "bundle.zip").write_bytes(b"torn")
    with pytest.raises(MachineError, match="exit code"):
        list(rehearsal.rehearse(folder, place, sys.executable))
