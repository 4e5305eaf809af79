"""Google's own command line for Colab: where it lies, and how it comes there. It needs a Python of its own."""

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
    """The program BONEAGE_COLAB_CLI, else the one below .venv; never one on the PATH, which has a user's login."""
    path = Path(os.environ.get("BONEAGE_COLAB_CLI") or _ROOT / ".venv" / "colab-cli" / "bin" / "colab")
    return path if path.is_file() else None


def missing() -> str:
    """Why the command line is not there; nothing where it is."""
    if find_cli():
        return ""
    return (
        "google-colab-cli is not installed: python tests/emulators/colab_cli.py FOLDER, with Python 3.12 or newer on "
        "the PATH, and BONEAGE_COLAB_CLI=FOLDER/bin/colab"
    )


def find_python() -> str:
    """An interpreter that it runs on; empty where there is none. A name alone may be a shim that leads nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for name in (sys.executable, *_PYTHONS, *map(str, sorted(pyenv.glob("3.1[2-9]*/bin/python")))):
        if shutil.which(name):
            code = "import sys; sys.exit(sys.version_info < (3, 12))"
            if subprocess.run([name, "-c", code], capture_output=True, check=False).returncode == 0:
                return name
    return ""


def install_cli(folder: Path, python: str = "") -> Path:
    """Puts it into an environment that `folder` becomes, and returns the program; takes half a minute and 280 MB."""
    interpreter = python or find_python()
    if not interpreter:
        raise FileNotFoundError("google-colab-cli needs Python 3.12 or newer, and none is on the PATH")
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True, stdin=subprocess.DEVNULL)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"google-colab-cli=={VERSION}"]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    return folder / "bin" / "colab"


def main(folder: Path) -> None:
    """Installs it once; where that cannot be, says what is skipped, and stops nobody."""
    if (folder / "bin" / "colab").is_file():
        return
    try:
        install_cli(folder)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"{error}: the tests with Colab's own command line will be skipped", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
