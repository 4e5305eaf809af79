"""What a command finds on the Azure emulator's nodes: its words filled in, an environment, programs."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulators.azure_runner import Job

HOLE = re.compile(r"\$\{\{\s*((?:inputs|outputs)\.\w+)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]")
_NOT_THERE = re.compile(r"AZURE_|BONEAGE|.*proxy$|REQUESTS_CA_BUNDLE$|SSL_CERT_FILE$|PYTHONPATH$|PYTEST_", re.I)


def holes(command: str) -> set[str]:
    """What the command needs, without what it only may have."""
    return set(HOLE.findall(_OPTIONAL.sub("", command)))


def fill(command: str, places: dict[str, str]) -> str:
    def optional(found: re.Match[str]) -> str:
        return found[1] if holes(found[1]) <= set(places) else ""

    return HOLE.sub(lambda hole: places[hole[1]], _OPTIONAL.sub(optional, command))


def environment(job: Job, places: dict[str, str], path: Path) -> dict[str, str]:
    """That of the job's PUT, without what would lead back to the emulator, and with what Azure ML adds."""
    own = {name: value for name, value in job.around.items() if not _NOT_THERE.match(name)}
    parts = job.job_id.split("/")
    mounted = {f"AZURE_ML_{name.replace('.', '_', 1).replace('inputs', 'INPUT').replace('outputs', 'OUTPUT')}": value
               for name, value in places.items()}  # fmt: skip
    return {
        **own, **mounted, "AZUREML_RUN_ID": job.name, "AZUREML_ARM_SUBSCRIPTION": parts[2],
        "AZUREML_ARM_RESOURCEGROUP": parts[4], "AZUREML_ARM_WORKSPACE_NAME": parts[8],
        "AZUREML_EXPERIMENT_NAME": job.said.get("experimentName") or "Default", "AZUREML_NODE_COUNT":
        str(job.node_count), "AZUREML_CR_EXECUTION_WORKING_DIR_PATH": str(job.folder), "PYTHONUNBUFFERED": "1",
        "PATH": f"{path}{os.pathsep}{own.get('PATH', '')}", **(job.said.get("environmentVariables") or {}),
    }  # fmt: skip


def workers(distribution: dict[str, Any] | None, count: int) -> list[dict[str, str]]:
    """What each node knows of the others; the first is the chief."""
    kind = (distribution or {}).get("distributionType")
    ports = _free_ports(count)
    if kind == "TensorFlow":
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        said = [{"cluster": cluster, "task": {"type": "worker", "index": at}, "environment": "cloud"}
                for at in range(count)]  # fmt: skip
        return [{"TF_CONFIG": json.dumps(one)} for one in said]
    if kind is None:
        return [{} for _ in range(count)]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]), "WORLD_SIZE": str(count), "LOCAL_RANK": "0"}
    return [{**shared, "RANK": str(at), "NODE_RANK": str(at)} for at in range(count)]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
