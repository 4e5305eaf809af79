"""Colab's package for tests in this process: the stub that the rehearsal uses, reloaded for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boneage_trainer.platforms import detect
from boneagectl.targets import colab

STUB = Path(colab.__file__).parent / "stub"


@contextmanager
def colab_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Colab whose content, Drive and downloads lie below `place`; yields the folder that is MyDrive."""
    monkeypatch.syspath_prepend(str(STUB))
    monkeypatch.setattr(detect, "_container_age_s", lambda: 0.0)
    for name in [name for name in sys.modules if name.startswith("google.colab")]:
        monkeypatch.delitem(sys.modules, name)
    variables = {"BONEAGECTL_ROOT": "content", "STUB_DRIVE": "drive", "STUB_DOWNLOADS": "downloads"}
    for name, folder in variables.items():
        monkeypatch.setenv(name, str(place / folder))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "a test")
    monkeypatch.delenv("STUB_DRIVE_FAULT", raising=False)
    yield place / "drive"
    monkeypatch.setenv("STUB_DRIVE_FAULT", "")  # for a thread that still waits
