"""Which images a model has seen: ``split.csv``, by the content of the source files, not by their names."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from boneage_trainer.contract import ContractError, RunFolder, write_atomic
from boneage_trainer.pack import Pack
from boneage_trainer.splits import NAMES, Split

_DIGITS = 16  # of sha256: two of a million images share them with a chance of 3 in 100 million


def write(folder: RunFolder, pack: Pack, parts: Split) -> None:
    """Writes ``split.csv``: id,split,sha256 (its first 16 digits) of every image of `parts`, in pack order."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("id", "split", "sha256"))
    named = {row: name for name in NAMES for row in getattr(parts, name)}
    writer.writerows((pack.ids[row], named[row], pack.sha256[row][:_DIGITS]) for row in sorted(named))
    write_atomic(folder.split, buffer.getvalue())


def of_split(pack: Pack, parts: Split) -> dict[str, str]:
    """The part each image of `parts` was in, by the digits of its sha256; training comes before the others."""
    return {pack.sha256[row][:_DIGITS]: name for name in reversed(NAMES) for row in getattr(parts, name)}


def read(folder: RunFolder) -> dict[str, str] | None:
    """As `of_split`, from the ``split.csv`` of a run; None where it has none.

    Raises:
        ContractError: it is not one.
    """
    try:
        with open(folder.split, encoding="utf-8", newline="") as stream:
            rows = [(row["sha256"], row["split"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return None
    except (KeyError, UnicodeDecodeError, csv.Error):
        raise ContractError(f"{folder.split} must have the columns id,split,sha256") from None
    if strange := {name for _, name in rows} - set(NAMES):
        raise ContractError(f"{folder.split} has the split {min(strange)!r}; known: {', '.join(NAMES)}")
    return {sha256: name for wanted in reversed(NAMES) for sha256, name in rows if name == wanted}


def counted(pack: Pack, rows: Sequence[int], seen: Mapping[str, str] | None) -> dict[str, Any]:
    """What of `rows` the model had seen.

    Returns:
        trained_on, trained_on_count, and validated_on_count: images that chose the epoch that was kept.
        All null where `seen` is None: then nobody knows.
    """
    if seen is None:
        return {"trained_on": None, "trained_on_count": None, "validated_on_count": None}
    found = Counter(seen.get(pack.sha256[row][:_DIGITS]) for row in rows)
    return {
        "trained_on": found["train"] > 0,
        "trained_on_count": found["train"],
        "validated_on_count": found["validation"],
    }
