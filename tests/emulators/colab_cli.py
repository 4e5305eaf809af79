"""Google's own command line for Colab, for tests to call: a program in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

VERSION = "0.7.5"
_PYTHONS = ("python3.12", "python3.13", "python3.14")


def find_cli() -> Path | None:
    """The program BONEAGE_COLAB_CLI; never one that happens to be installed, which has a user's login."""
    given = os.environ.get("BONEAGE_COLAB_CLI")
    return Path(given) if given and Path(given).is_file() else None


def missing() -> str:
    """Why the command line is not there; nothing where it is."""
    if find_cli():
        return ""
    return f"google-colab-cli is not installed: pip install google-colab-cli=={VERSION} in an environment of its own " \
           "with Python 3.12 or newer, and BONEAGE_COLAB_CLI=ENVIRONMENT/bin/colab"  # fmt: skip


def install_cli(folder: Path, python: str = "") -> Path:
    """Puts it into an environment below `folder` and returns the program; takes half a minute and 160 MB."""
    interpreter = python or next((name for name in _PYTHONS if shutil.which(name)), "")
    if not interpreter:
        raise FileNotFoundError(f"google-colab-cli needs one of {', '.join(_PYTHONS)}, and none is on the PATH")
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True, stdin=subprocess.DEVNULL)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"google-colab-cli=={VERSION}"]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    return folder / "bin" / "colab"
