"""The memory that a run needs for a large pack: the same epoch on 1 GB of images and on 120 MB.

    python benchmarks/memory.py [--mb 1000] [--size-px 256] [--width 4]

Peak resident memory of the training process as the kernel counted it, and its anonymous part as sampled in
/proc while it ran. The bar is on the whole process with the large pack, TensorFlow and the (small) model
included. The small pack has just enough images for full batches everywhere: prediction takes 256 at a time,
and their activations, not the pack, would otherwise be the difference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import entry, environment, show

from boneage_trainer.console import print_status
from boneage_trainer.contract import SCHEMA, Job, PackFolder, TrainConfig, sha256_of, write_json
from boneage_trainer.data.pixels import ALGORITHM

AT_MOST_MB = 1500
SMALL_MB = 120


# -------------------------------------------------------------------------------------- the packs
def write_pack(root: Path, count: int, size_px: int) -> None:
    """A pack of random grays; its card says what `boneage_trainer.data.prepare` would.

    Written image by image: a child's peak starts at what its parent's had been when it was started.
    """
    pack, random = PackFolder(root), np.random.default_rng(1)
    root.mkdir()
    with open(pack.images, "wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, size_px, size_px)}
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(count):
            stream.write(random.bytes(size_px * size_px))
    lines = (f"{at},{at % 2 == 0},{12 + 7 * at % 204},{at:064x}\n" for at in range(count))
    pack.index.write_text("id,male,boneage_months,sha256\n" + "".join(lines))
    card = {
        "schema": SCHEMA, "algorithm": ALGORITHM, "fingerprint": f"{count:064x}", "count": count,
        "image_size_px": size_px, "labelled": True, "images_sha256": sha256_of(pack.images),
    }  # fmt: skip
    write_json(pack.card, card)


def write_job(path: Path, pack: Path, width: int) -> None:
    card = PackFolder(pack).read_card()
    config = TrainConfig.from_mapping({"epochs": 1, "width": width, "warmup_epochs": 0})
    data = {key: card[key] for key in ("fingerprint", "count", "image_size_px")}
    path.write_text(Job(train=config, data=data, provenance={}).to_json())


# ----------------------------------------------------------------------------------- the training
def peaks_mb(job: Path, pack: Path, out: Path) -> dict[str, float]:
    """Trains in a separate process; its peak resident memory, and the peak of its anonymous part."""
    command = [sys.executable, "-m", "boneage_trainer", str(job), "--data", str(pack), "--out", str(out)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    anonymous_kb = 0
    while True:
        anonymous_kb = max(anonymous_kb, _anonymous_kb(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    resident_kb = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {"resident_mb": round(resident_kb * 1024 / 1e6), "anonymous_mb": round(anonymous_kb * 1024 / 1e6)}


def _anonymous_kb(process_id: int) -> int:
    """0 where there is no /proc, or the process is gone."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def measure(place: Path, megabytes: dict[str, int], size_px: int, width: int) -> dict[str, dict[str, float]]:
    found = {}
    for name, mb in megabytes.items():
        pack, job = place / f"{name}-pack", place / f"{name}.json"
        write_pack(pack, max(64, mb * 1_000_000 // size_px**2), size_px)
        write_job(job, pack, width)
        found[name] = peaks_mb(job, pack, place / name)
        print_status(f"{mb} MB pack: {found[name]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mb", type=int, default=1000, help="size of the large pack")
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--width", type=int, default=4, help="the network's; small, so that the epoch is short")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), {"other": SMALL_MB, "ours": given.mb}, given.size_px, given.width)
    mine, other = found["ours"]["resident_mb"], found["other"]["resident_mb"]
    print_status(f"the larger pack costs {mine - other:+.0f} MB")
    what = (
        f"peak resident memory of a whole training, one epoch, on a {given.mb} MB pack of {given.size_px} px, "
        f"TensorFlow and the model included; other: the same on a {SMALL_MB} MB pack"
    )
    show({"memory": entry(what, "MB", ours=mine, other=other, at_most=AT_MOST_MB, parts=found)})


if __name__ == "__main__":
    main()
