"""Finds and installs Google's command line for Colab, which needs its own Python environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "0.7.5"

_ROOT = Path(__file__).resolve().parents[2]
_PYTHONS = ("python3.12", "python3.13", "python3.14")


def find_cli() -> Path | None:
    """The program BONEAGE_COLAB_CLI, else the one below .venv; never one on the PATH, which has a user's sign-in."""
    path = Path(os.environ.get("BONEAGE_COLAB_CLI") or _ROOT / ".venv" / "colab-cli" / "bin" / "colab")
    return path if path.is_file() else None


def missing() -> str:
    """Why the command line is not installed; empty if it is."""
    if find_cli():
        return ""
    return (
        "google-colab-cli is not installed: python tests/emulators/colab_cli.py FOLDER, with Python 3.12 or newer on "
        "the PATH, and BONEAGE_COLAB_CLI=FOLDER/bin/colab"
    )


def find_python() -> str:
    """An interpreter of Python 3.12 or newer, or empty. A name alone may be a shim without an interpreter."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for name in (sys.executable, *_PYTHONS, *map(str, sorted(pyenv.glob("3.1[2-9]*/bin/python")))):
        if shutil.which(name):
            code = "import sys; sys.exit(sys.version_info < (3, 12))"
            if subprocess.run([name, "-c", code], capture_output=True, check=False).returncode == 0:
                return name
    return ""


def install_cli(folder: Path, python: str = "") -> Path:
    """Creates an environment in `folder` and returns the program: half a minute, 280 MB."""
    interpreter = python or find_python()
    if not interpreter:
        raise FileNotFoundError("google-colab-cli needs Python 3.12 or newer, and none is on the PATH")
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True, stdin=subprocess.DEVNULL)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"google-colab-cli=={VERSION}"]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    return folder / "bin" / "colab"


def main(folder: Path) -> int:
    """Installs it once. Without Python 3.12 the tests skip; with it, a failed installation is an error, not a skip."""
    if (folder / "bin" / "colab").is_file():
        return 0
    if not find_python():
        print("no Python 3.12 or newer: the tests with Colab's command line will be skipped", file=sys.stderr)
        return 0
    try:
        install_cli(folder)
    except subprocess.CalledProcessError as error:
        print(f"error: Python 3.12 is here but google-colab-cli cannot be installed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
