"""What saving every epoch costs preset `fast`: seconds in which training pauses, compared with the epoch itself.

    python benchmarks/checkpoint.py [--size-px 256] [--images 8071]

The network, its optimizer and its averages are real; an epoch's length is that of measured steps times the paper's
8,071 of 12,611 images. Also printed: the share of a T4's epoch as calculated in the fact sheet, 6 s for 10,088
images at 224 px, scaled to these images; on such a GPU an epoch is so short that the share matters.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import entry, seconds, show

from boneage_trainer.console import print_status
from boneage_trainer.contract import TrainConfig

AT_MOST = 0.02
ROUNDS, STEPS = 5, 2


def built(config: TrainConfig, size_px: int) -> tuple[Any, Any]:
    """The network's core and its training step."""
    from boneage_trainer.train import model
    from boneage_trainer.train import step as train_step
    from boneage_trainer.train.device import find_device

    device = find_device()
    with device.scope():
        networks = model.build_networks(config, size_px, np.array([20, 200], np.float32), Path(), "float32")
        optimizer = train_step.build_optimizer(config, config.learning_rate, 252, config.epochs)
        return networks.core, train_step.TrainStep(networks.core, optimizer, config, device, 126.0)


def step_s(step: Any, batch: int, size_px: int) -> float:
    """The median time of a step, without its trace."""
    images, zeros = np.zeros((batch, size_px, size_px, 1), np.uint8), np.zeros((batch, 1), np.float32)
    float(step([images, zeros], zeros)[0])
    return statistics.median(seconds(lambda: float(step([images, zeros], zeros)[0])) for _ in range(STEPS))


def measure_saving(core: Any, step: Any, folder: Path) -> dict[str, float]:
    """As the trainer does it: a copy while training waits, the file and its hash while it continues."""
    from boneage_trainer.train import checkpoint
    from boneage_trainer.train.checkpoint import BackgroundWriter

    writer, pauses_s, writes_s = BackgroundWriter(), [], []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        best, values = (
            checkpoint.copy_values(core.variables),
            checkpoint.copy_values([*core.variables, *step.variables]),
        )
        pauses_s.append(time.perf_counter() - began_s)
        writer.submit("round", lambda best=best: checkpoint.save_checkpoint(folder / "best.npz", best, {}))
        writer.submit("round", lambda values=values: checkpoint.save_checkpoint(folder / "last.npz", values, {}))
        writer.wait()
        writes_s.append(time.perf_counter() - began_s - pauses_s[-1])
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return {"stands_s": statistics.median(pauses_s), "writes_s": statistics.median(writes_s), "mb": megabytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--images", type=int, default=8071, help="of an epoch")
    given = parser.parse_args()
    config = TrainConfig.from_mapping({"preset": "fast", "weights": "none"})
    core, step = built(config, given.size_px)
    epoch_s = step_s(step, config.batch_size, given.size_px) * given.images / config.batch_size
    with tempfile.TemporaryDirectory() as place:
        found = measure_saving(core, step, Path(place))
    t4_s = 6.0 * given.images / 10_088 * (given.size_px / 224) ** 2
    parts = {key: round(value, 4) for key, value in {**found, "t4_share": found["stands_s"] / t4_s}.items()}
    print_status(
        f"pauses {found['stands_s']:.3f} s an epoch; an epoch here {epoch_s:.0f} s, on a T4 about {t4_s:.1f} s"
    )
    what = (
        f"saving an epoch of `fast` ({found['mb']:.0f} MB, best and last), training standing still, against an epoch "
        f"of {given.images} images of {given.size_px} px on this machine; of a T4's calculated epoch it would be "
        f"{parts['t4_share']:.2%}"
    )
    ratio = round(found["stands_s"] / epoch_s, 6)
    figures = {"ours": round(found["stands_s"], 4), "other": round(epoch_s, 1), "ratio": ratio}
    show({"checkpoint": entry(what, "s", **figures, at_most=AT_MOST, parts=parts)})


if __name__ == "__main__":
    main()
