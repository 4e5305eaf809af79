"""What every target's wire needs: how long an answer asks to wait, and an error in one line."""

from __future__ import annotations

from typing import Any


def retry_after_s(response: Any) -> float | None:
    """Seconds of the Retry-After header; None where there is none, or a date."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def words(error: Exception) -> str:
    """The error's kind and text, cut to what a message can carry."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
