"""Runs the very command line of the job, here, in the folder that would be uploaded, on synthetic hands."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl import artifacts, units
from boneagectl.errors import MachineError
from boneagectl.models import Finding
from boneagectl.targets import rehearsal
from boneagectl.targets.azure import jobs, render

_HOLE = re.compile(r"\$\{\{(\w+\.\w+)\}\}")
UNCHECKED = (
    "whether the cluster gives a node, and TensorFlow there can use its GPU",
    "whether the registered pack can be mounted, and how fast it is",
    "the image of the job: here it ran with the versions of this machine",
    "the price, and the credit",
)


def rehearse(rendered: Path, place: Path, python: str) -> Iterator[Finding]:
    """What held, one by one; the job's own output goes to standard error.

    Raises:
        MachineError: the job's description is wrong, its command failed, or it left something else than it should.
    """
    job = jobs.read(rendered)
    yield Finding("ok", "job.yml", f"the SDK takes it: {job.name}, ends after {job.limits.timeout} s")
    rehearsal.synthesize_images(place / "hands", python)
    rehearsal.prepare_pack(place / "hands", place / "pack", python)
    shutil.copytree(rendered / render.STAGE, place / "code")
    began_s = time.monotonic()
    nodes = int(job.resources.instance_count or 1)
    _run(job, place, nodes, python)
    took = units.format_duration(time.monotonic() - began_s)
    yield Finding("ok", "command", f"as it would run there, on {nodes} local node(s), it ran to its end in {took}")
    yield _left(RunFolder(place / "run"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _run(job: Any, place: Path, nodes: int, python: str) -> None:
    """The first node in front, the others beside it; each as TensorFlow's own distribution would start it."""
    places = {"inputs.pack": place / "pack", "outputs.run": place / "run"}
    command = ["bash", "-c", _HOLE.sub(lambda hole: str(places[hole[1]]), job.command)]
    shared = {**rehearsal.clean_environment(), **job.environment_variables, **rehearsal.ENVIRONMENT}
    shared["PATH"] = f"{_python_called_python(place / 'bin', python)}{os.pathsep}{shared.get('PATH', '')}"
    workers = [f"127.0.0.1:{port}" for port in _free_ports(nodes)]
    environments = [{**shared, **_worker(workers, at)} for at in range(nodes)]
    with subprocess_group(command, place / "code", environments[1:]):
        for _ in rehearsal.run_program(command, place / "code", environments[0]):
            pass


class subprocess_group:
    """The other nodes, which end with the first."""

    def __init__(self, command: list[str], folder: Path, environments: list[dict[str, str]]) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._others = [subprocess.Popen(command, cwd=folder, env=one, **quiet) for one in environments]  # type: ignore[call-overload]

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for other in self._others:
            try:
                other.wait(30)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()


def _worker(workers: list[str], index: int) -> dict[str, str]:
    """What Azure ML sets for node `index`; nothing where there is one only."""
    if len(workers) < 2:
        return {}
    task = {"type": "worker", "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task, "environment": "cloud"})}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _python_called_python(folder: Path, python: str) -> Path:
    """The interpreter that trains, under the name that the command calls."""
    folder.mkdir()
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    program.chmod(0o755)
    return folder


def _left(run: RunFolder) -> Finding:
    found = artifacts.read_artifacts(run)
    state = parse_object(run.state.read_text(), run.state.name)
    if state["state"] != "complete" or found.unlisted:
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason'] or found.unlisted}")
    return Finding("ok", "outputs", f"{len(found.sha256)} files, each as its own list says")
