"""`make test` fails, and does not skip, where a daemon that its tests need can be installed but is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

EMULATORS = ROOT / "tests" / "emulators"


def install(script: str, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Runs the installer with nothing but `programs` on the PATH."""
    environment = {**os.environ, "PATH": str(programs), "PYENV_ROOT": str(folder / "no-pyenv")}
    command = [sys.executable, str(EMULATORS / script), str(folder / "made")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["azurite.py", "colab_cli.py"])
def test_without_its_runtime_the_tests_skip(script: str, tmp_path: Path) -> None:
    if script == "colab_cli.py" and sys.version_info >= (3, 12):
        pytest.skip("this interpreter is the runtime")
    done = install(script, tmp_path, tmp_path)
    assert done.returncode == 0
    assert "will be skipped" in done.stderr


@pytest.mark.parametrize(
    ("script", "name", "behaviour"),
    [
        ("azurite.py", "npm", "exit 1"),
        # Says that it is new enough, and cannot make an environment.
        ("colab_cli.py", "python3.12", 'test "$1" = -c'),
    ],
)
def test_with_its_runtime_a_failed_installation_is_an_error(
    script: str, name: str, behaviour: str, tmp_path: Path
) -> None:
    if script == "colab_cli.py" and sys.version_info >= (3, 12):
        pytest.skip("this interpreter is the runtime")
    program(tmp_path, name, behaviour)
    done = install(script, tmp_path, tmp_path)
    assert done.returncode == 1
    assert "cannot" in done.stderr
