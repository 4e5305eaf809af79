"""TensorFlow's log lines are dropped when a command works, and shown when it breaks."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boneage_trainer.stderr_filter import filter_lines
from trainer.conftest import SOURCE

NOISE = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1795862672.477743   14185 port.cc:153] oneDNN custom operations are on.\n",
    b"E0000 00:00:1795862672.477743   14185 cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error\n",
    b"2026-11-28 10:35:23.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary\n",
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate\n",
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
    b"\x1b[0;93m2026-11-28 10:35:23.12 [W:onnxruntime:Default, device_discovery.cc:164 Discover] no GPU\x1b[m\n",
)
KEPT = (
    b"F0000 00:00:1795862672.477743   14185 cpu_feature_guard.cc:227] compiled to use AVX instructions\n",
    b"terminate called after throwing an instance of 'std::bad_alloc'\n",
    b"WARNING: 7 of the 96 images in all were TRAINED ON\n",
    b"error: no such file\n",
)
FAKE_TENSORFLOW = """
import os
os.write(2, b"I0000 00:00:1795862672.477743   14185 port.cc:153] the last line before it broke\\n")
os.write(2, b"undefined symbol: the reason\\n")
{end}
"""


def test_log_lines_are_dropped_and_other_lines_kept_in_order() -> None:
    target = io.BytesIO()
    filter_lines(io.BytesIO(b"".join(NOISE + KEPT) + b"not ended\0boneage: done\n"), target)
    assert target.getvalue() == b"".join(KEPT) + b"not ended"


def test_dropped_lines_follow_if_the_command_broke() -> None:
    target = io.BytesIO()
    filter_lines(io.BytesIO(b"".join(NOISE + KEPT)), target)
    assert target.getvalue() == b"".join(KEPT + NOISE)


@pytest.mark.parametrize(
    ("end", "code", "shown"),
    [
        ("raise ImportError('libcudart.so is missing')", 1, "libcudart.so is missing"),
        ("os.abort()", -signal.SIGABRT, "undefined symbol"),
    ],
    ids=["import error", "crash"],
)
def test_a_tensorflow_that_cannot_be_loaded_shows_its_own_reason(
    end: str, code: int, shown: str, tmp_path: Path
) -> None:
    (tmp_path / "tensorflow.py").write_text(FAKE_TENSORFLOW.format(end=end))
    (tmp_path / "hand.png").touch()
    (tmp_path / "model.keras").touch()
    command = [sys.executable, "-m", "boneage_trainer.inference.command", str(tmp_path), str(tmp_path / "hand.png")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(SOURCE)))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == code, done.stderr
    for text in (shown, "undefined symbol: the reason", "the last line before it broke"):
        assert text in done.stderr


def test_a_closed_stderr_does_not_stop_a_command(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m boneage_trainer.inference.command "{tmp_path}" "{tmp_path}" 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    assert subprocess.run(["sh", "-c", command], env=environment, timeout=600, check=False).returncode == 2
