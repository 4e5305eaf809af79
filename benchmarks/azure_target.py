"""The `azure` target against the tests' emulator: the CPU time of a status, and the speed of collect.

    python benchmarks/azure_target.py [--files 200] [--mb 10]

Status: CPU seconds (user and system) of a whole `boneagectl show` of a run on Azure, three blobs and two ARM calls,
against `import azure.ai.ml` alone, with which a status through the official SDK begins; medians of five. Collect: a
job has left --files files of --mb MB; the blob SDK loads them one after the other with four connections each, then
our `collect` does, hashes included, each in a process of its own, from the same Azurite, to the same disk; the best
of three.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, entry, environment, show

sys.path.insert(0, str(ROOT / "tests"))

from emulators import fake_trainer
from emulators.azure import Azure
from support import make_pack

ROUNDS = 5
STATUS_AT_MOST, COLLECT_AT_LEAST, MEMORY_AT_MOST_MB = 0.5, 0.8, 200.0
LEG = "collect-bench-01"
SETTINGS = 'target = "azure"\ntime_limit = "30m"\ntrain.epochs = 3\n'
OPEN = """
import json, resource, sys, time
from pathlib import Path
from boneagectl import config
from boneagectl.paths import Home
from boneagectl.models import Handle
from boneagectl.targets import azure_target
from boneagectl.targets.azure import outputs
target = azure_target(Home(Path(sys.argv[1])), config.load())
job, dest = target._job(Handle("azure", sys.argv[2])), Path(sys.argv[3])
"""
OURS = """
collected = target.collect(job.handle, dest)
assert not collected.unlisted
count = len(collected.sha256)
"""
SDK = """
folder = outputs.run_folder(job.name)
box = job.output_store._container
names = list(box.list_blob_names(name_starts_with=folder))
dest.mkdir()
for name in names:
    with open(dest / name.removeprefix(folder), "wb") as stream:
        box.download_blob(name, max_concurrency=4).readinto(stream)
count = len(names)
"""
TELL = "print(json.dumps([count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))"


def client_environment(azure: Azure, folder: Path) -> dict[str, str]:
    """Our environment, for a child process whose Azure is the emulator."""
    return {**environment(), **azure.environment(), "HOME": str(folder), "BONEAGECTL_HOME": str(folder / "home")}


def cpu_s(command: list[str], folder: Path, env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ------------------------------------------------------------------------------------------- status
def status_cpu_s(azure: Azure, folder: Path) -> tuple[float, float]:
    """Of `boneagectl show`, and of the import of the SDK."""
    ours, env = [sys.executable, "-m", "boneagectl"], client_environment(azure, folder)
    cpu_s([*ours, "submit", "--yes", "-q", "--name", "bench-run"], folder, env)
    while azure.jobs["bench-run-01"].status != "Completed":
        time.sleep(0.1)
    sides = ([*ours, "show", "bench-run"], [sys.executable, "-c", "import azure.ai.ml"])
    rounds = [[cpu_s(side, folder, env) for side in sides] for _ in range(ROUNDS)]
    return statistics.median(one[0] for one in rounds), statistics.median(one[1] for one in rounds)


# ------------------------------------------------------------------------------------------ collect
def leave(azure: Azure, workspace: str, files: int, size: int) -> None:
    """What a job would have written."""
    container = azure.workspaces.place(azure.arm.find(workspace), "azureml://datastores/workspaceblobstore/paths/")
    listed = {}
    for at in range(files):
        name, data = f"{at:03d}.bin", os.urandom(size)
        azure.blobs.put(container.account, container.container, f"azureml/{LEG}/run/{name}", data)
        listed[name] = {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    manifest = json.dumps({"schema": 1, "files": listed}).encode()
    azure.blobs.put(container.account, container.container, f"azureml/{LEG}/run/MANIFEST.json", manifest)


def measure_collect(script: str, azure: Azure, folder: Path, name: str) -> tuple[float, float]:
    """Seconds of the whole process, and its peak memory in MB."""
    command = [sys.executable, "-c", OPEN + script + TELL, str(folder / "home"), LEG, str(folder / name)]
    os.sync()  # neither side shall wait for what was written before it
    started_s = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=client_environment(azure, folder), check=True, stdout=subprocess.PIPE, text=True
    )
    took_s = time.perf_counter() - started_s
    shutil.rmtree(folder / name)
    return took_s, json.loads(done.stdout)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--mb", type=int, default=10, help="size of each file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "boneage.toml").write_text(SETTINGS)
        trainer = fake_trainer.install(folder / "bin")
        with Azure(folder / "other-side", python=str(trainer)) as azure:
            workspace = azure.add_workspace("boneagectl", "boneagectl")
            azure.add_cluster(workspace)
            azure.add_data(workspace, "boneage-pack-9eab9eab9eab", make_pack(folder / "pack"))
            status_s, import_s = status_cpu_s(azure, folder)
            leave(azure, workspace, given.files, given.mb * 1_000_000)
            rounds = [
                (measure_collect(SDK, azure, folder, "sdk"), measure_collect(OURS, azure, folder, "ours"))
                for _ in range(3)
            ]
    sdk_s, ours_s = (min(pair[side][0] for pair in rounds) for side in (0, 1))  # the first read is from the disk
    memory_mb = max(ours[1] for _, ours in rounds)
    show(_entries((status_s, import_s), (ours_s, sdk_s), memory_mb, given))


def _entries(
    status: tuple[float, float], collect: tuple[float, float], memory_mb: float, given: Any
) -> dict[str, dict[str, Any]]:
    size = f"{given.files} files of {given.mb} MB of an Azure job (Azurite, same loopback)"
    looked = entry("CPU of `boneagectl show` of a run on Azure, against `import azure.ai.ml` alone", "s",
                   ours=round(status[0], 2), other=round(status[1], 2), ratio=round(status[0] / status[1], 2),
                   at_most=STATUS_AT_MOST)  # fmt: skip
    came = entry(f"{size}: seconds of `collect` with its checks, and of the blob SDK without", "s",
                 ours=round(collect[0], 2), other=round(collect[1], 2), ratio=round(collect[1] / collect[0], 2),
                 at_least=COLLECT_AT_LEAST)  # fmt: skip
    memory = entry(f"peak memory of that `collect` ({size})", "MB", ours=round(memory_mb), at_most=MEMORY_AT_MOST_MB)
    return {"azure_status": looked, "azure_collect": came, "azure_collect_memory": memory}


if __name__ == "__main__":
    main()
