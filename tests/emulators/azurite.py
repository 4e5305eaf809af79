"""Microsoft's Azurite: where it lies, and how it comes there. Needs nothing but Node.js: ``make test`` runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "3.35.0"
"""The newest that Node 20 runs."""

_ROOT = Path(__file__).resolve().parents[2]
_MAIN = "node_modules/azurite/dist/src/blob/main.js"


def find_azurite() -> Path | None:
    """Azurite's program: below the folder BONEAGE_AZURITE, else where ``make test`` puts it."""
    folder = Path(os.environ.get("BONEAGE_AZURITE") or _ROOT / ".venv" / "azurite")
    return path if (path := folder / _MAIN).is_file() else None


def install_azurite(folder: Path) -> None:
    """Puts it into `folder`; takes half a minute and 190 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", f"azurite@{VERSION}", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL)


def missing() -> str:
    """Why there is no blob store here; nothing where there is one."""
    if shutil.which("node") is None:
        return "Node.js is not installed: no Azurite, and without it no blob store"
    if find_azurite() is None:
        return "Azurite is not installed: make azurite"
    return ""


def main(folder: Path) -> None:
    """Installs it once; where that cannot be, says what is skipped, and stops nobody."""
    if shutil.which("npm") is None:
        print("no npm here: the tests of the azure target will be skipped", file=sys.stderr)
    elif not (folder / _MAIN).is_file():
        try:
            install_azurite(folder)
        except subprocess.CalledProcessError as error:
            print(
                f"npm cannot install Azurite ({error}): the tests of the azure target will be skipped", file=sys.stderr
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
