"""The `kaggle` target against the tests' emulator: what a submit costs, and how fast outputs come back.

    python benchmarks/kaggle_target.py [--files 200] [--mb 10]

Submit: CPU seconds (user and system) of the whole `boneagectl submit` process, from its start to the returned
prompt, the import of Kaggle's SDK included; median of five. Collect: a kernel leaves --files files of --mb MB;
curl loads them one after the other over one connection, then our `collect` does, hashes included, each in a
process of its own, from the same server, to the same disk. The server is Python too, and shares the cores.
"""

from __future__ import annotations

import argparse
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

from boneagectl.targets.kaggle.client import KaggleApi, Kernel
from boneagectl.targets.kaggle.credentials import find_credentials
from emulators import fake_trainer
from emulators.kaggle import Kaggle
from support import make_pack

ROUNDS = 5
SUBMIT_AT_MOST_S, COLLECT_AT_LEAST, MEMORY_AT_MOST_MB = 2.0, 0.8, 150.0
SCRIPT = """
import hashlib, json, os
from pathlib import Path
run = Path("run"); run.mkdir()
files = {{}}
for at in range({files}):
    data = os.urandom({size})
    (run / f"{{at:03d}}.bin").write_bytes(data)
    files[f"{{at:03d}}.bin"] = {{"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
(run / "MANIFEST.json").write_text(json.dumps({{"schema": 1, "files": files}}))
print('BONEAGE-STATE {{"state": "complete"}}')
"""
COLLECT = """
import json, resource, sys
from pathlib import Path
from boneagectl.models import Handle
from boneagectl.targets.kaggle import KaggleTarget
from boneagectl.target_settings import KaggleSettings
settings = KaggleSettings(username="alice", dataset="alice/some-pack")
target = KaggleTarget(Path(sys.argv[2]), settings)
found = target.collect(Handle.parse(sys.argv[1]), Path(sys.argv[3]))
assert not found.unlisted
print(json.dumps([len(found.sha256), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))
"""


def led_to(kaggle: Kaggle, place: Path) -> dict[str, str]:
    """Our environment, for a child process whose Kaggle is the emulator."""
    clean = {key: text for key, text in environment().items() if key.lower() != "no_proxy"}
    own = {"HOME": str(place), "BONEAGECTL_HOME": str(place / "home"), "KAGGLE_API_TOKEN": kaggle.token}
    return {**clean, **own, "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": kaggle.url}


# ------------------------------------------------------------------------------------------- submit
def submit_cpu_s(kaggle: Kaggle, place: Path) -> float:
    kaggle.add_dataset("alice/some-pack", make_pack(place / "pack"))
    return statistics.median(one_submit(kaggle, place, at) for at in range(ROUNDS))


def one_submit(kaggle: Kaggle, place: Path, at: int) -> float:
    """Two sessions at a time are all that Kaggle allows, so each is over before the next."""
    command = [sys.executable, "-m", "boneagectl", "submit", "--target", "kaggle", "--yes", "-q", "--time-limit", "10m",
               "--name", f"bench-run-{at}", "--set", "targets.kaggle.dataset=alice/some-pack"]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(command, cwd=place, env=led_to(kaggle, place), check=True, stdout=subprocess.DEVNULL)
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kaggle.preempt(f"bench-run-{at}-01")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ------------------------------------------------------------------------------------------ collect
def pushed(kaggle: Kaggle, files: int, size: int) -> Kernel:
    """A kernel that has left its files."""
    metadata = {
        "id": "alice/collect-bench-01", "title": "collect-bench-01", "language": "python", "kernel_type": "script",
        "is_private": True, "enable_gpu": True, "enable_tpu": False, "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4", "session_timeout_seconds": 3600, "dataset_sources": [],
        "kernel_sources": [], "model_sources": [], "competition_sources": [],
    }  # fmt: skip
    api = KaggleApi(find_credentials())
    kernel = api.push_kernel(metadata, SCRIPT.format(files=files, size=size))
    while api.session_status(kernel)[0] != "COMPLETE":
        time.sleep(0.2)
    return kernel


def by_curl(kernel: Kernel, dest: Path) -> float:
    """Seconds of one curl process that loads every file, over one connection as long as the server keeps it."""
    files, _ = KaggleApi(find_credentials()).list_outputs(kernel)
    dest.mkdir()
    config = dest / "curl.txt"
    config.write_text("".join(f'url = "{url}"\noutput = "{dest / Path(name).name}"\n' for name, url in files))
    started_s = time.perf_counter()
    subprocess.run(["curl", "-sS", "--fail", "--noproxy", "*", "-K", str(config)], check=True)
    return time.perf_counter() - started_s


def by_ours(kaggle: Kaggle, kernel: Kernel, place: Path) -> tuple[float, float]:
    """Seconds of the whole process, and its peak memory in MB."""
    command = [sys.executable, "-c", COLLECT, str(kernel.handle), str(place / "kept"), str(place / "ours")]
    started_s = time.perf_counter()
    done = subprocess.run(command, env=led_to(kaggle, place), check=True, stdout=subprocess.PIPE, text=True)
    took_s = time.perf_counter() - started_s
    _, memory_mb = json.loads(done.stdout)
    return took_s, memory_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--mb", type=int, default=10, help="size of each file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        trainer = fake_trainer.install(place / "bin")
        with Kaggle(place / "other-side", python=str(trainer)) as kaggle:
            os.environ.update(led_to(kaggle, place))
            cpu_s = submit_cpu_s(kaggle, place)
            kernel = pushed(kaggle, given.files, given.mb * 1_000_000)
            os.sync()  # neither side shall wait for what was written before it
            curl_s = by_curl(kernel, place / "curl")
            shutil.rmtree(place / "curl")
            os.sync()
            ours_s, memory_mb = by_ours(kaggle, kernel, place)
    show(_entries(cpu_s, curl_s, ours_s, memory_mb, given))


def _entries(cpu_s: float, curl_s: float, ours_s: float, memory_mb: float, given: Any) -> dict[str, dict[str, Any]]:
    size = f"{given.files} files of {given.mb} MB from a Kaggle kernel (emulated, same loopback)"
    submit = entry("CPU of `boneagectl submit --target kaggle`, to the returned prompt", "s",
                   ours=round(cpu_s, 2), at_most=SUBMIT_AT_MOST_S)  # fmt: skip
    collect = entry(f"{size}: seconds of `collect` with its checks, and of curl without", "s", ours=round(ours_s, 2),
                    other=round(curl_s, 2), ratio=round(curl_s / ours_s, 2), at_least=COLLECT_AT_LEAST)  # fmt: skip
    memory = entry(f"peak memory of that `collect` ({size})", "MB", ours=round(memory_mb), at_most=MEMORY_AT_MOST_MB)
    return {"kaggle_submit": submit, "kaggle_collect": collect, "kaggle_collect_memory": memory}


if __name__ == "__main__":
    main()
