"""The `colab` target's CLI mode against the tests' emulator: how fast a checkpoint is downloaded.

    python benchmarks/colab_target.py [--mb 400]

A runtime has a run folder with one checkpoint of --mb MB. curl downloads the file, then boneagectl downloads and hashes
the folder, each in a process of its own, through the same proxy from the same Jupyter server, to the same disk;
medians of five. The server is Python too, and shares the cores.
"""

from __future__ import annotations

import argparse
import json
import os
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

from boneage_trainer.contract import RunFolder, write_manifest
from emulators.colab import Colab
from emulators.colab_vms import Kind, Vm

ROUNDS = 5
DOWN_AT_LEAST, MEMORY_AT_MOST_MB = 0.8, 150.0
LEG = "bench-run-01"
DOWNLOAD = """
import json, resource, sys, time
from contextlib import closing
from pathlib import Path
from boneage_trainer.contract import RunFolder
from boneagectl.targets.colab import cli_session
from boneagectl.targets.colab.colab_cli import RuntimeAccess
from boneagectl.targets.colab.jupyter import RuntimeClient
said = json.load(sys.stdin)
access = RuntimeAccess("", said["url"], said["token"], time.time() + 3600)
with closing(RuntimeClient(access, lambda: access)) as client:
    found = cli_session.download_run_folder(client, sys.argv[1], RunFolder(Path(sys.argv[2])))
assert not found.unlisted
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))
"""


def by_curl(said: dict[str, Any], place: Path, env: dict[str, str]) -> float:
    """Seconds of the whole process."""
    config = place / "curl.txt"
    address = f"{said['url']}/files/content/boneagectl/{LEG}/run/checkpoint/last.npz"
    config.write_text(f'url = "{address}"\noutput = "{place / "curl.npz"}"\n'
                      f'header = "X-Colab-Runtime-Proxy-Token: {said["token"]}"\n')  # fmt: skip
    command = ["curl", "-sS", "--fail", "--cacert", env["SSL_CERT_FILE"], "-K", str(config)]
    return timed(command, env, "")[0]


def by_ours(said: dict[str, Any], place: Path, env: dict[str, str]) -> tuple[float, float]:
    """Seconds of the whole process, and its peak memory in MB."""
    command = [sys.executable, "-c", DOWNLOAD, LEG, str(place / "ours")]
    took_s, out = timed(command, env, json.dumps(said))
    shutil.rmtree(place / "ours")
    return took_s, float(out)


def timed(command: list[str], env: dict[str, str], given: str) -> tuple[float, str]:
    os.sync()  # neither side waits for earlier writes
    started_s = time.perf_counter()
    done = subprocess.run(command, env=env, input=given, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started_s, done.stdout


def leave(vm: Vm, size: int) -> None:
    """Writes what a run would leave."""
    run = RunFolder(vm.content / "boneagectl" / LEG / "run")
    run.last.parent.mkdir(parents=True)
    with open(run.last, "wb") as stream:
        for _ in range(size // 1_000_000):
            stream.write(os.urandom(1_000_000))
    run.metrics.write_text('{"epoch": 1}\n')
    write_manifest(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mb", type=int, default=400, help="size of the checkpoint")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with Colab(place / "other-side") as colab:
            vm = Vm(colab, "", Kind("GPU", "T4", False))
            colab.vms[vm.endpoint] = vm
            leave(vm, given.mb * 1_000_000)
            env = {**environment(), **colab.environment()}
            rounds = [(by_curl(vm.new_token(), place, env), by_ours(vm.new_token(), place, env)) for _ in range(ROUNDS)]
    curl_s = statistics.median(one[0] for one in rounds)
    ours_s = statistics.median(one[1][0] for one in rounds)
    show(_entries(curl_s, ours_s, max(one[1][1] for one in rounds), given.mb))


def _entries(curl_s: float, ours_s: float, memory_mb: float, mb: int) -> dict[str, dict[str, Any]]:
    size = f"a checkpoint of {mb} MB from a Colab machine (emulated, same loopback)"
    down = entry(f"{size}: seconds with its checks, and of curl without", "s", ours=round(ours_s, 2),
                 other=round(curl_s, 2), ratio=round(curl_s / ours_s, 2), at_least=DOWN_AT_LEAST)  # fmt: skip
    memory = entry(f"peak memory of that process ({size})", "MB", ours=round(memory_mb), at_most=MEMORY_AT_MOST_MB)
    return {"colab_checkpoint": down, "colab_checkpoint_memory": memory}


if __name__ == "__main__":
    main()
