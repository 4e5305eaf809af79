"""A rehearsal: the very trainer that will run on a rented machine, here, on a few other images, cut short.

BONEAGE_REHEARSAL=1 asks for it, so that script, command line and bundle stay what will be sent.
"""

from __future__ import annotations

import dataclasses
import os

from boneage_trainer.contract import Job, PackFolder

EPOCHS = 2


def is_on() -> bool:
    return os.environ.get("BONEAGE_REHEARSAL") == "1"


def shortened(job: Job, pack: PackFolder) -> Job:
    """`job` in two epochs at most, for whatever images `pack` has; prints what was changed.

    Raises:
        ContractError: there is no pack.
    """
    train = job.train.shortened(min(EPOCHS, job.train.epochs))
    before, after = dataclasses.asdict(job.train), dataclasses.asdict(train)
    changes = [f"{key} {before[key]} -> {after[key]}" for key in after if after[key] != before[key]]
    print(f"rehearsal: {', '.join(changes) or 'nothing had to be cut'}", flush=True)
    return dataclasses.replace(job, train=train, data=pack.job_data())
