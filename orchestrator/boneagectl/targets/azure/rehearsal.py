"""Executes the job's own command line on this machine, in the folder that would be uploaded, on synthetic hands."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl import artifacts, units
from boneagectl.errors import MachineError
from boneagectl.models import Finding
from boneagectl.targets import rehearsal
from boneagectl.targets.azure import jobs, render

_PLACEHOLDER = re.compile(r"\$\{\{(\w+\.\w+)\}\}")
UNCHECKED = (
    "whether the cluster provides a node, and TensorFlow there can use its GPU",
    "whether the registered pack can be mounted, and how fast it is",
    "the image of the job: the rehearsal used the versions of this machine",
    "the price, and the credit",
)


def rehearse(rendered: Path, folder: Path, python: str) -> Iterator[Finding]:
    """Rehearses in the empty `folder`; yields each result. The job's own output goes to standard error.

    Raises:
        MachineError: the job description is wrong, its command failed, or its outputs are not what they should be.
    """
    job = jobs.load_job_file(rendered)
    yield Finding("ok", "job.yml", f"the SDK accepts it: {job.name}, ends after {job.limits.timeout} s")
    rehearsal.synthesize_images(folder / "hands", python)
    rehearsal.prepare_pack(folder / "hands", folder / "pack", python)
    shutil.copytree(rendered / render.STAGE, folder / "code")
    started_s = time.monotonic()
    nodes = int(job.resources.instance_count or 1)
    _run_nodes(job, folder, nodes, python)
    duration = units.format_duration(time.monotonic() - started_s)
    yield Finding("ok", "command", f"as it would run there, on {nodes} local node(s), it completed in {duration}")
    yield _check_outputs(RunFolder(folder / "run"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _run_nodes(job: Any, folder: Path, nodes: int, python: str) -> None:
    """The first node in the foreground, the others beside it; each as TensorFlow's distribution starts it."""
    paths = {"inputs.pack": folder / "pack", "outputs.run": folder / "run"}
    command = ["bash", "-c", _PLACEHOLDER.sub(lambda name: str(paths[name[1]]), job.command)]
    shared = {**rehearsal.clean_environment(), **job.environment_variables, **rehearsal.ENVIRONMENT}
    shared["PATH"] = f"{_install_python(folder / 'bin', python)}{os.pathsep}{shared.get('PATH', '')}"
    environments = [{**shared, **extra} for extra in _cluster_variables(nodes)]
    with _other_nodes(command, folder / "code", environments[1:]):
        for _ in rehearsal.run_program(command, folder / "code", environments[0]):
            pass


@contextmanager
def _other_nodes(command: list[str], folder: Path, environments: list[dict[str, str]]) -> Iterator[None]:
    """The nodes beside the first; they end with it."""
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    processes = [subprocess.Popen(command, cwd=folder, env=environment, **quiet) for environment in environments]
    try:
        yield
    finally:
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cluster_variables(nodes: int) -> list[dict[str, str]]:
    """What Azure ML sets for each node; nothing for a single one."""
    if nodes < 2:
        return [{}]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(nodes)]
    workers = [f"127.0.0.1:{listening.getsockname()[1]}" for listening in sockets]
    for listening in sockets:
        listening.close()
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index},
                                  "environment": "cloud"})}
        for index in range(nodes)
    ]  # fmt: skip


def _install_python(folder: Path, python: str) -> Path:
    """The interpreter that trains, under the name that the command calls."""
    folder.mkdir()
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    program.chmod(0o755)
    return folder


def _check_outputs(run: RunFolder) -> Finding:
    collected = artifacts.read_artifacts(run)
    state = parse_object(run.state.read_text(), run.state.name)
    if state["state"] != "complete" or collected.unlisted:
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason'] or collected.unlisted}")
    return Finding("ok", "outputs", f"{len(collected.sha256)} files, each with the checksum of its manifest")
