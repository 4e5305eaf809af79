"""Notebooks as readable text: cells that begin with ``# %% name [markdown] key=JSON``, as jupytext reads them.

Written as the JSON of an ``.ipynb`` by ourselves: the same bytes each time, and ids that are the cells' names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_HEAD = re.compile(r"# %% (?P<name>[\w-]+)(?P<markdown> \[markdown\])?(?P<options>( \w+=\S+)*)")
_START = "# %% "


def notebook(text: str, metadata: Mapping[str, Any]) -> str:
    """The ``.ipynb`` of `text`, without outputs."""
    cells = [_cell(part) for part in re.split(rf"^(?={_START})", text, flags=re.MULTILINE) if part.strip()]
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(text: str) -> dict[str, Any]:
    """One cell.

    Raises:
        ValueError: its first line is no head; a template is at fault.
    """
    first, _, rest = text.partition("\n")
    head = _HEAD.fullmatch(first)
    if not head:
        raise ValueError(f"no head of a cell: {first!r}")
    options = (option.partition("=") for option in head["options"].split())
    common = {"id": head["name"], "metadata": {key: json.loads(value) for key, _, value in options}}
    source = rest.strip("\n")
    if head["markdown"]:
        prose = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.split("\n"))
        return {"cell_type": "markdown", **common, "source": prose.splitlines(keepends=True)}
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, **common, "outputs": [], "source": lines}
