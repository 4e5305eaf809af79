"""Runs work on all processor cores, in processes that do not outlive their parent."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """The cores that this process may use; a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_chunks(
    work: Callable[[list[Item]], Result], items: Sequence[Item], workers: int | None, chunk: int = 16
) -> Iterator[Result]:
    """The result of `work` for each chunk of `items`, as soon as it is ready, in no fixed order.

    Few items, or one worker, stay in this process: starting another costs as much as 20 images.

    Raises:
        OSError: a worker process died. What `work` raises is raised unchanged.
    """
    chunks = [list(items[start : start + chunk]) for start in range(0, len(items), chunk)]
    workers = min(workers or count_cores(), len(chunks))
    if workers <= 1:
        yield from map(work, chunks)
        return
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)
    try:
        for future in as_completed([executor.submit(work, some) for some in chunks]):
            yield future.result()
    except BrokenProcessPool:
        raise OSError(errno.ENOMEM, "a worker process died, perhaps out of memory; try --workers 1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread per worker, Ctrl-C left to the parent, and an end when the parent ends, even by SIGKILL."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # libpng writes "libpng error: ..." past Python into the progress line; the report names the file.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)

    def end_with_parent() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
