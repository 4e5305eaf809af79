"""ContractError, for what the user can correct, and its wording for unknown names and long values."""

from __future__ import annotations

from collections.abc import Iterable


class ContractError(ValueError):
    """A job, config or file breaks the contract; the message states the rule and the value."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is not one of `known`, with the closest match."""
    names = sorted(known)
    return f"unknown {what} {shorten(name)}.{did_you_mean(name, names)} Known: {', '.join(names)}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the one of `known` that is closest to `name`; empty where none is close."""
    import difflib

    near = difflib.get_close_matches(name[:200], list(known), n=1) if isinstance(name, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""


def shorten(value: object, most: int = 80) -> str:
    """The representation of `value` for a message, cut to `most` characters; control characters are escaped."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # over 4,300 digits, or nested too deeply to print
        return "a value too long to print"
    return text if len(text) <= most else f"{text[: most - 1]}…"
