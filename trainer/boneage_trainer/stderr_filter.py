"""Keeps the log lines of TensorFlow's C++ libraries off the terminal, and shows them when something breaks.

The libraries write to file descriptor 2 directly, and ``TF_CPP_MIN_LOG_LEVEL`` does not silence what they log before
their logging is set up. So a small process of its own, this file run as a script, reads the descriptor and drops the
log lines. It outlives a crash of the command: a fatal message, and the log lines before it, still reach the user.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ \S+:\d+\]"  # absl; F is fatal, and shown
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] \S+:\d+\]"  # TensorFlow
    rb"|To enable the following instructions: .* rebuild TensorFlow|Skipping registering GPU devices"
    rb"|(INFO|WARNING): .*(TensorFlow Lite|XNNPACK|delegate)"
    rb"|(\x1b\[[\d;]*m)*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \[[VIWE]:onnxruntime:"
    rb"|(\x1b\[[\d;]*m)+$"
)
"""The beginning of a line that says nothing to the user."""
_DONE = b"\0boneage: done\n"
"""The command's last line to the filter; without it, the command broke and what was dropped is shown."""
_KEPT_LINES = 200
_PATIENCE_S = 5.0
"""A process that the command left behind may hold the descriptor open."""


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Drops TensorFlow's log lines from stderr; what else Python writes to ``sys.stderr`` bypasses the filter.

    If the block raises, or the process dies in it, the last 200 dropped lines are printed after all.
    """
    try:
        terminal = os.dup(2)
        source, sink = os.pipe()
        process = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=source)
    except OSError:  # stderr is closed, or no process can be started: noise is better than no command
        yield
        return
    logger = logging.getLogger("tensorflow")
    own_stderr, own_level = sys.stderr, logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a test's stand-in has no descriptor
        if own_stderr.fileno() == 2:
            # Never closed: a logger that was made in the block may write until the process ends.
            sys.stderr = open(terminal, "w", 1, own_stderr.encoding, "backslashreplace", closefd=False)  # noqa: SIM115
    os.close(source)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield
        with contextlib.suppress(OSError):  # the filter is gone
            os.write(2, _DONE)
    finally:
        sys.stderr = own_stderr
        logger.setLevel(own_level)
        os.dup2(terminal, 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)


def filter_lines(source: BinaryIO, target: BinaryIO) -> None:
    """Copies `source` without the lines that match `NOISE`; those follow at the end if no ``done`` line came."""
    dropped: deque[bytes] = deque(maxlen=_KEPT_LINES)
    for line in iter(source.readline, b""):
        if line.endswith(_DONE):  # after a line that was not ended, perhaps
            target.write(line[: -len(_DONE)])
            dropped.clear()
            break
        if NOISE.match(line):
            dropped.append(line)
        else:
            target.write(line)
            target.flush()
    target.writelines(dropped)
    target.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's; this ends with it
    filter_lines(sys.stdin.buffer, sys.stderr.buffer)
