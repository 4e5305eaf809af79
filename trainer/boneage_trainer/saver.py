"""Writes what an epoch leaves in the background, in order, and never lets a disk end a training unheard."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable


class Saver:
    """One thread that does one job at a time; a job that fails with OSError is told and noted, not raised."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        """Why the newest job could not be done, or None where it could."""
        self._crash: BaseException | None = None
        self._jobs: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue(maxsize=1)
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, what: str, job: Callable[[], None]) -> None:
        """Has `job` done soon; waits until the one before is done, so that at most one epoch is under way."""
        self.drain()
        self._jobs.put((what, job))

    def drain(self) -> None:
        """Returns when everything is done; raises what was no disk's fault."""
        self._jobs.join()
        if self._crash:
            crash, self._crash = self._crash, None
            raise crash

    def _work(self) -> None:
        while True:
            what, job = self._jobs.get()
            try:
                job()
                self.error = None
            except OSError as error:
                self.error = error
                print(f"warning: {what} could not be saved: {error}; training goes on, the next epoch tries again",
                      file=sys.stderr, flush=True)  # fmt: skip
            except BaseException as error:
                self._crash = error
            finally:
                self._jobs.task_done()
