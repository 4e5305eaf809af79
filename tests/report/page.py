"""Parses a report's HTML: figures with their tables, other tables, texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

Row = tuple[str, ...]


@dataclass
class Part:
    """What one figure holds; `paths` are the d of its paths by class."""

    texts: dict[str, str] = field(default_factory=dict)
    svg: dict[str, str | None] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    paths: dict[str, list[str]] = field(default_factory=dict)
    rects: list[dict[str, str | None]] = field(default_factory=list)


class Page(HTMLParser):
    """A parsed page: `figures` by id, `tables` outside figures by caption, and all elements."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, Part] = {}
        self.tables: dict[str, list[Row]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._part: Part | None = None
        self._open: list[str] = []
        self._words: list[str] = []
        self._cells: list[str] = []
        self._rows: list[Row] = []
        self._caption = ""

    @classmethod
    def of(cls, html: str) -> Page:
        page = cls()
        page.feed(html)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        self._words = []
        if tag == "figure":
            self._part = self.figures[given["id"] or ""] = Part()
        elif tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._cells = []
        if self._part:
            self._note(self._part, tag, given)

    def _note(self, part: Part, tag: str, given: dict[str, str | None]) -> None:
        if tag == "svg":
            part.svg = given
        elif tag == "path":
            part.paths.setdefault(given["class"] or "", []).append(given["d"] or "")
        elif tag == "rect":
            part.rects.append(given)
        elif tag in ("title", "desc"):
            part.ids.append(given["id"] or "")

    def handle_data(self, data: str) -> None:
        self._words.append(data)
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        words = " ".join(re.split(r"[ \n]+", "".join(self._words).strip()))
        if tag in ("td", "th"):
            self._cells.append(words)
        elif tag == "tr":
            self._rows.append(tuple(self._cells))
        elif tag == "caption":
            self._caption = words
        elif tag == "table":
            self._keep_table()
        elif self._part and tag in ("title", "desc", "figcaption", "summary"):
            self._part.texts[tag] = words
        elif self._part and tag == "text":
            self._part.labels.append(words)
        self._part = None if tag == "figure" else self._part

    def _keep_table(self) -> None:
        if self._part:
            self._part.rows = self._rows
        else:
            self.tables[self._caption] = self._rows
