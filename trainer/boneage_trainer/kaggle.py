"""What the script that Kaggle runs calls: one session, and its first and last word.

Standard library only: the training has a process of its own, so that one that is killed, for want of memory
say, still leaves its run behind.

BONEAGE_KAGGLE_ROOT stands in for ``/kaggle``; with BONEAGE_REHEARSAL=1 the training is cut short and needs no GPU.
Exit codes: 0 complete or paused, 1 failed, 2 what is attached or asked for is wrong, 3 Kaggle gave no GPU,
else the trainer's.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, state_line
from boneage_trainer.gpus import NoGpu
from boneage_trainer.kaggle_session import KaggleSession, Parameters
from boneage_trainer.rented import failed, say

_NO_GPU = 3


def main(parameters: Mapping[str, Any], bundle: str | Path) -> int:
    """Trains one leg as `parameters` say with the trainer in the zip `bundle`.

    The first line printed and the last are `state_line`s: by the last a poller tells paused from complete.

    Returns:
        The exit code.
    """
    leg, started_s = parameters.get("leg", ""), round(time.time(), 3)
    known = {"leg": leg, "epoch": 0, "epochs": 0, "started_s": started_s}
    say(state_line({**known, "state": "running"}))
    try:
        code, state = KaggleSession(Parameters.from_mapping(parameters), Path(bundle)).run()
    except NoGpu as error:
        code, state = _NO_GPU, failed(str(error))
    except ContractError as error:
        code, state = 2, failed(str(error))
    except Exception as error:
        traceback.print_exc()
        code, state = 1, failed(f"{type(error).__name__}: {error}")
    if state["state"] == "failed":
        say(f"error: {state['reason']}")
    say(state_line({**known, **state}))
    return code
