"""The file formats a model can be handed over in; each in a module of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Inputs = Mapping[str, Any]
"""``image``: uint8 (n, px, px, 1), and for models that read the sex ``male``: float32 (n, 1), 1 or 0."""

Answer = Callable[[Inputs], Any]

MODULES = {"keras": "as_keras", "savedmodel": "as_savedmodel", "onnx": "as_onnx", "tflite": "as_tflite"}


@dataclass(frozen=True, slots=True)
class Source:
    """What is handed over: the model as Keras loaded it, the file it came from, and its card as Markdown."""

    model: Any
    file: Path
    card: str


@dataclass(frozen=True, slots=True)
class Format:
    """`write` makes `name`, a file or folder, at a path; `opened` has its own runtime answer: months (n,)."""

    name: str
    write: Callable[[Source, Path], None]
    opened: Callable[[Path], Answer]


def of(name: str) -> Format:
    """The format called `name`, one of MODULES; raises ImportError where a package it needs is missing."""
    found: Format = importlib.import_module(f"boneage_trainer.handover.{MODULES[name]}").FORMAT
    return found
