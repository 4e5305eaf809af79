"""Finds the folders shipped beside the code, in a wheel and in a checkout alike."""

from __future__ import annotations

from pathlib import Path


def data_dir(name: str) -> Path:
    """The folder `name` (``templates`` or ``infra``): in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "_data" / name
    return shipped if shipped.is_dir() else package.parents[1] / name
