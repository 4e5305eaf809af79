"""Fills templates; a placeholder without a value is an error."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from boneagectl.paths import data_dir

_LINE = 120


def fill(template: str, **values: Any) -> str:
    """`template` is a path below ``templates/``, with ``/``; HTML is escaped in ``.html.j2`` files."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(enabled_extensions=("html", "html.j2"), default=False),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def literal(values: Mapping[str, Any]) -> str:
    """`values` as Python source, one a line, in their own order."""
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in values.items()) + "}"


def base64_lines(content: bytes) -> list[str]:
    text = base64.b64encode(content).decode()
    return [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
