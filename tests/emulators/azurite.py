"""Finds and installs Azurite, Microsoft's blob store emulator. Needs Node.js only; ``make test`` installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "3.35.0"
"""The newest version that runs on Node 20."""

_ROOT = Path(__file__).resolve().parents[2]
_MAIN = "node_modules/azurite/dist/src/blob/main.js"


def find_azurite() -> Path | None:
    """Azurite's main.js, below the folder BONEAGE_AZURITE or where ``make test`` installs it."""
    folder = Path(os.environ.get("BONEAGE_AZURITE") or _ROOT / ".venv" / "azurite")
    return path if (path := folder / _MAIN).is_file() else None


def install_azurite(folder: Path) -> None:
    """Installs it into `folder`: half a minute, 190 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", f"azurite@{VERSION}", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL)


def missing() -> str:
    """Why there is no blob store here; empty if there is one."""
    if shutil.which("node") is None:
        return "Node.js is not installed, which Azurite needs"
    if find_azurite() is None:
        return "Azurite is not installed: make azurite"
    return ""


def main(folder: Path) -> int:
    """Installs it once. Without Node.js the tests skip; with it, a failed installation is an error, not a skip."""
    if shutil.which("npm") is None:
        print("npm is not installed: the azure tests will be skipped", file=sys.stderr)
        return 0
    if (folder / _MAIN).is_file():
        return 0
    try:
        install_azurite(folder)
    except subprocess.CalledProcessError as error:
        print(f"error: npm is here but cannot install Azurite: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
